"""What sending costs: 40 MR instances to a default dcmtk peer, ms an instance.

Run: ``python -m tests.benchmarks.send``. The peer runs as it comes (Nagle's algorithm on); beside
ours, pynetdicom as it comes sends the same instances to the same peer. Wanted: at most 25 ms.
The delivery loop adds the outbox, its transactions and the questions to the destination: it is
measured with the confirmation `none` and `query`, against storescp, which accepts no C-FIND, and
`query` also against a peer that does.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE

from rebrain_node.benchmark import dcmtk
from rebrain_node.domain.delivery import Confirmation
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.network.sender import PacsDestination
from rebrain_node.settings import DestinationSettings
from tests.support.outbox_node import outbox_node
from tests.support.scripted_pacs import a_peer, settings_for
from tests.support.store_cases import accept, derived_set, received

INSTANCES = 40
ROWS, COLUMNS = 256, 208


def main(repeats: int = 5) -> None:
    instances = [_instance(n) for n in range(INSTANCES)]
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        environment = {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"}
        program = dcmtk.program("storescp")
        if program is None:
            raise SystemExit("dcmtk is not installed (Debian package dcmtk)")
        peer = subprocess.Popen(
            [program, "--ignore", "-aet", "PACS", "-od", folder, str(port)], env=environment
        )
        try:
            time.sleep(1.0)
            destination = PacsDestination(
                DestinationSettings(name="pacs", ae_title="PACS", host="127.0.0.1", port=port),
                "REBRAIN",
            )
            ours = _median_ms(lambda: destination.send(instances), repeats)
            plain = _median_ms(lambda: _plain(instances, port), repeats)
            none = _delivered_ms(port, "none", repeats)
            query = _delivered_ms(port, "query", repeats)
        finally:
            peer.terminate()
            peer.wait(10)
    held = [one.sop_instance_uid for one in instances]
    with a_peer(images=held) as (_, settings):
        answered = _delivered_ms(settings.port, "query", repeats)
    sys.stdout.write(
        f"{INSTANCES} MR of {len(instances[0].content) / 1000:.0f} kB to dcmtk storescp as it "
        f"comes: ours {ours:.1f} ms an instance, plain pynetdicom {plain:.1f} ms "
        f"(medians of {repeats}, association included)\n"
        f"delivery loop, storescp: confirmation none {none:.1f} ms an instance, query {query:.1f} "
        f"ms; query, a pynetdicom peer with C-FIND {answered:.1f} ms\n"
    )


def _median_ms(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds) / INSTANCES * 1000.0


def _delivered_ms(port: int, confirmation: Confirmation, repeats: int) -> float:
    """Deliver sets of the same size from an outbox; the median for an instance, ms."""
    seconds = []
    for _ in range(repeats):
        with outbox_node() as node:
            node.ledger.record_received(received(1))
            job = accept(node.ledger)
            instances = tuple(_instance(n) for n in range(INSTANCES))
            node.outbox.put(replace(derived_set(job), instances=instances), ["pacs"], job)
            loop = node.loop(settings_for(port), confirmation=confirmation)
            begun = time.perf_counter()
            assert loop.deliver_next()
            seconds.append(time.perf_counter() - begun)
            assert node.ledger.series()[0].state == "published"
    return statistics.median(seconds) / INSTANCES * 1000.0


def _plain(instances: list[DerivedInstance], port: int) -> None:
    entity = AE(ae_title="REBRAIN")
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="PACS")
    for one in instances:
        assert association.send_c_store(dcmread(BytesIO(one.content))).Status == 0x0000
    association.release()


def _instance(n: int) -> DerivedInstance:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, f"2.25.{1000 + n}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.1", "2.25.2"
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = ROWS, COLUMNS, 16
    noise = np.random.default_rng(n).integers(0, 4096, (ROWS, COLUMNS))
    dataset.add_new(0x7FE00010, "OW", noise.astype("<u2").tobytes())
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return DerivedInstance(
        kind="MR",
        sop_class_uid=MRImageStorage,
        sop_instance_uid=dataset.SOPInstanceUID,
        series_instance_uid="2.25.2",
        content=stream.getvalue(),
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
