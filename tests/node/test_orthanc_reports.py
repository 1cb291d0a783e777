"""The reports in a real archive show that the audit log of the node was cut."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from pydicom import dcmread
from typer.testing import CliRunner

from rebrain_node.cli import program
from tests.node.test_orthanc import Orthanc, pytestmark
from tests.support.audited_node import COPIES, DATABASE, REPORTS, audited_node

__all__ = ["pytestmark"]  # skips where there is no Orthanc


def put(orthanc: Orthanc, path: Path, modality: str = "SR") -> None:
    report = dcmread(path)
    report.Modality = modality
    if modality != "SR":
        report.SOPInstanceUID = report.SeriesInstanceUID = "1.2.3.4"
    report.save_as(path.with_suffix(".sent"))
    content = path.with_suffix(".sent").read_bytes()
    request = urllib.request.Request(f"{orthanc.url}/instances", data=content, method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200


def test_reports_are_retrieved_from_the_archive_and_compared(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    with audited_node(state):
        pass
    with Orthanc(tmp_path / "orthanc", node_port=1).running() as orthanc:
        paths = sorted((state / REPORTS).glob("*.dcm"))
        for path in paths:
            put(orthanc, path)
        put(orthanc, paths[0], "PR")  # of another kind: not asked for
        config = tmp_path / "node.toml"
        config.write_text(
            f"[storage]\nfolder = {str(state)!r}\n[[destinations]]\nname = 'pacs'\n"
            f"ae_title = 'ORTHANC'\nhost = '127.0.0.1'\nport = {orthanc.dicom_port}\n"
        )
        verify = ["audit", "verify", "--json", "--config", str(config), "--against-sr", "pacs"]

        found = CliRunner().invoke(program, verify)
        assert found.exit_code == 0, (found.output, found.exception)
        assert json.loads(found.stdout)["reports"]["compared"] == len(paths)

        old = state / COPIES / "early"
        for path in old.iterdir():
            (state / path.name).write_bytes(path.read_bytes())
        assert (old / DATABASE).exists()
        found = CliRunner().invoke(program, verify)
        answer = json.loads(found.stdout)
        assert found.exit_code == 1
        assert answer["intact"] is True  # an old copy of everything is whole in itself
        kinds = {each["kind"] for each in answer["differences"]}
        assert kinds == {"report"}
