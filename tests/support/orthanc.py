"""A real Orthanc for the tests, where the Debian package orthanc is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from rebrain_node.demonstration.running_node import free_port
from tests.support.quick_node import wait_for

ORTHANC = shutil.which("Orthanc")
_DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
#: the plugin of the Debian package orthanc-dicomweb
DICOMWEB = _DICOMWEB if _DICOMWEB.exists() else None


class Orthanc:
    """An Orthanc of its own, on free ports, with its own folder."""

    def __init__(self, folder, node_port, plugins=(), **settings):
        self.folder = folder
        self.dicom_port, self.http_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        folder.mkdir()
        (folder / "orthanc.json").write_text(
            json.dumps(
                {
                    "Name": "archive",
                    "StorageDirectory": str(folder / "storage"),
                    "IndexDirectory": str(folder / "storage"),
                    "DicomAet": "ORTHANC",
                    "DicomPort": self.dicom_port,
                    "HttpPort": self.http_port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomAlwaysAllowStore": True,
                    "DicomAlwaysAllowEcho": True,
                    "DicomModalities": {"node": ["REBRAIN", "127.0.0.1", node_port]},
                    "Plugins": [str(plugin) for plugin in plugins],
                    **settings,
                }
            )
        )

    @contextmanager
    def running(self, *, kill=False):
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [ORTHANC, str(self.folder / "orthanc.json")],
                env={**os.environ, "TCP_NODELAY": "1"},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        try:
            wait_for(self.answers, 30, (self.folder / "log").read_text)
            yield self
        finally:
            process.kill() if kill else process.terminate()
            process.wait(timeout=30)

    def answers(self):
        try:
            self.get("/system")
        except OSError:
            return False
        return True

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=20) as answer:
            return json.loads(answer.read())

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, data=body.encode(), method="POST")
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def forward_study(self):
        """Let Orthanc send its one study to the node."""
        (study,) = self.get("/studies")
        self.post("/modalities/node/store", study)

    def series(self):
        """Description and number of instances of each series of the one study."""
        (study,) = self.get("/studies")
        found = self.get(f"/studies/{study}/series")
        return sorted(
            (s["MainDicomTags"].get("SeriesDescription", ""), len(s["Instances"])) for s in found
        )

    def delete(self, path):
        request = urllib.request.Request(self.url + path, method="DELETE")
        with urllib.request.urlopen(request, timeout=20) as answer:
            answer.read()
