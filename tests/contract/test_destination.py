"""A destination (port ``Destination``) against every storage SCP that a test can start."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from rebrain_node.benchmark import dcmtk
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.errors import DeliveryError
from rebrain_node.network.mini_pacs import MiniPacs
from rebrain_node.network.sender import PacsDestination
from rebrain_node.ports import Destination
from rebrain_node.settings import DestinationSettings

#: a SOP class that no storage SCP of these tests accepts: Verification is not storage
UNKNOWN_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.4.999"


def _instance(number: int, sop_class: str = MRImageStorage) -> DerivedInstance:
    """Return a small MR instance with a private element of unknown VR."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, f"2.25.{1000 + number}"
    dataset.PatientName = "Test^Destination"
    dataset.add_new(0x00091001, "UN", b"\x00\x01\x02\x03")
    dataset.add_new(0x7FE00010, "OW", bytes(range(256)) * 64)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return DerivedInstance(
        kind="MR",
        sop_class_uid=sop_class,
        sop_instance_uid=dataset.SOPInstanceUID,
        series_instance_uid="2.25.1",
        content=stream.getvalue(),
    )


@dataclass
class Archive:
    """A destination and the folder in which the SCP behind it keeps what it receives."""

    destination: Destination
    folder: Path

    def kept(self) -> dict[str, Dataset]:
        """Return every kept instance by its SOP Instance UID."""
        kept = [dcmread(path) for path in self.folder.iterdir() if path.is_file()]
        return {str(dataset.SOPInstanceUID): dataset for dataset in kept}


def _destination(port: int) -> Destination:
    settings = DestinationSettings(
        name="pacs", ae_title="ARCHIVE", host="127.0.0.1", port=port, timeout_s=5.0
    )
    return PacsDestination(settings, "REBRAIN")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _mini_pacs(folder: Path) -> Iterator[Archive]:
    with MiniPacs("ARCHIVE", folder) as archive:
        yield Archive(_destination(archive.port), folder)


@contextmanager
def _storescp(folder: Path) -> Iterator[Archive]:
    program = dcmtk.program("storescp")
    if program is None:
        pytest.skip("dcmtk's storescp is not installed")
    folder.mkdir()
    port = _free_port()
    process = subprocess.Popen(
        [program, "--aetitle", "ARCHIVE", "--output-directory", str(folder), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_listening(port)
        yield Archive(_destination(port), folder)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait_until_listening(port: int, timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0):
                return
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")


@pytest.fixture(params=[_mini_pacs, _storescp], ids=["mini-pacs", "storescp"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    with request.param(tmp_path / "kept") as archive:
        yield archive


def test_every_instance_is_taken_in_order_and_kept_unchanged(archive: Archive) -> None:
    sent = [_instance(number) for number in (3, 1, 2)]
    taken = archive.destination.send(sent)
    assert [one.sop_instance_uid for one in taken] == [one.sop_instance_uid for one in sent]
    assert {one.outcome for one in taken} == {"taken"}
    kept = archive.kept()
    assert set(kept) == {one.sop_instance_uid for one in sent}
    for one in sent:
        original = dcmread(BytesIO(one.content))
        assert kept[one.sop_instance_uid].PixelData == original.PixelData
        assert kept[one.sop_instance_uid].PatientName == original.PatientName


def test_nothing_to_send_is_taken_at_once(archive: Archive) -> None:
    assert archive.destination.send([]) == ()
    assert archive.kept() == {}


def test_an_instance_may_be_sent_again(archive: Archive) -> None:
    for _ in range(2):
        (taken,) = archive.destination.send([_instance(1)])
        assert taken.sop_instance_uid == _instance(1).sop_instance_uid
    assert len(archive.kept()) == 1


def test_a_sop_class_that_is_not_accepted_is_refused_before_anything_is_sent(
    archive: Archive,
) -> None:
    answers = archive.destination.send([_instance(1), _instance(2, UNKNOWN_SOP_CLASS)])
    assert [one.outcome for one in answers] == ["refused", "refused"]
    assert all(UNKNOWN_SOP_CLASS in str(one.reason) for one in answers)
    assert archive.kept() == {}


def test_the_name_is_the_one_of_the_settings(archive: Archive) -> None:
    assert archive.destination.name == "pacs"


def test_a_destination_that_does_not_listen_fails_and_may_be_tried_again() -> None:
    with pytest.raises(DeliveryError):
        _destination(_free_port()).send([_instance(1)])
