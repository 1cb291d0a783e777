"""The sender against a real dcmtk peer and against peers that answer every class of status."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    ParametricMapStorage,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.events import Event

from rebrain_node.domain.job import DerivedInstance
from rebrain_node.errors import DeliveryError, PermanentDeliveryError
from rebrain_node.network.sender import PacsDestination, SentFile, echo, send_files, status_class
from rebrain_node.settings import DestinationSettings
from tests.support import dcmtk

Answer = Callable[[int], int | None]


def instance(n: int, sop_class: UID = MRImageStorage) -> DerivedInstance:
    """A small object with a private element of unknown VR, which a careless writer changes."""
    uid = f"2.25.{1000 + n}"
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid
    dataset.PatientName = "Test^Sender"
    dataset.add_new(0x00091001, "UN", b"\x00\x01\x02\x03")
    dataset.add_new(0x7FE00010, "OW", bytes(range(256)) * 64)
    return DerivedInstance(
        kind="MR",
        sop_class_uid=sop_class,
        sop_instance_uid=uid,
        series_instance_uid="2.25.1",
        content=encoded(dataset, ExplicitVRLittleEndian),
    )


def encoded(dataset: Dataset, transfer_syntax: UID) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


class Peer:
    """What a test peer got, as it came over the network."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.received: list[tuple[str, UID, bytes]] = []
        self.contexts: list[tuple[UID, list[UID]]] = []
        self.calling: list[str] = []

    def store(self, event: Event) -> int:
        status = self.answer(len(self.received) + 1)
        if status is None:
            event.assoc.abort()
            return 0x0000
        self.received.append(
            (
                event.request.AffectedSOPInstanceUID,
                event.context.transfer_syntax,
                event.request.DataSet.getvalue(),
            )
        )
        return status

    def asked(self, event: Event) -> None:
        requestor = event.assoc.requestor
        self.calling.append(requestor.ae_title)
        self.contexts = [
            (one.abstract_syntax, list(one.transfer_syntax)) for one in requestor.requested_contexts
        ]


@contextmanager
def a_peer(
    answer: Answer = lambda _: 0x0000,
    sop_classes: Sequence[UID] = (MRImageStorage, CTImageStorage),
    handlers: Sequence[tuple[object, Callable[[Event], None]]] = (),
    **options: bool,
) -> Iterator[tuple[Peer, DestinationSettings]]:
    peer, entity = Peer(answer), AE(ae_title="PACS")
    for sop_class in sop_classes:
        entity.add_supported_context(
            sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless]
        )
    for name, value in options.items():
        setattr(entity, name, value)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, peer.store), (evt.EVT_ESTABLISHED, peer.asked), *handlers],
    )
    try:
        yield peer, settings_for(server.server_address[1])
    finally:
        server.shutdown()


def settings_for(port: int, **changes: object) -> DestinationSettings:
    return DestinationSettings(
        **{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "timeout_s": 5.0}
        | changes
    )


def data_set(content: bytes) -> bytes:
    """The bytes behind the file meta information (PS3.10 section 7.1)."""
    (length,) = (dcmread(BytesIO(content)).file_meta.FileMetaInformationGroupLength,)
    return content[128 + 4 + 12 + length :]


def test_the_stored_bytes_travel_unchanged_in_order_over_one_association() -> None:
    instances = [instance(n) for n in (3, 1, 2)]
    with a_peer() as (peer, destination):
        taken = PacsDestination(destination, "REBRAIN").send(instances)
    assert [one.sop_instance_uid for one in taken] == [one.sop_instance_uid for one in instances]
    assert all(one.verified for one in taken)
    assert [got[0] for got in peer.received] == [one.sop_instance_uid for one in instances]
    assert [got[2] for got in peer.received] == [data_set(one.content) for one in instances]
    assert peer.calling == ["REBRAIN"]


def test_contexts_are_proposed_for_what_is_sent_and_nothing_else() -> None:
    with a_peer() as (peer, destination):
        PacsDestination(destination, "REBRAIN").send([instance(1), instance(2)])
    assert peer.contexts == [(MRImageStorage, [ExplicitVRLittleEndian])]


def test_nothing_to_send_needs_no_association() -> None:
    assert PacsDestination(settings_for(1), "REBRAIN").send([]) == ()


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007])
def test_a_warning_is_taken_but_not_verified(status: int) -> None:
    with a_peer(lambda n: status if n == 2 else 0x0000) as (_, destination):
        taken = PacsDestination(destination, "REBRAIN").send([instance(n) for n in (1, 2, 3)])
    assert [one.status for one in taken] == [0x0000, status, 0x0000]
    assert [one.verified for one in taken] == [True, False, True]


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(0xA700, False), (0xA701, False), (0x0110, False), (0x0210, False),
     (0xA900, True), (0xC000, True), (0xC211, True), (0x0117, True),
     (0x0122, True), (0x0124, True)],
)  # fmt: skip
def test_a_failure_stops_the_set_and_says_what_was_taken(status: int, permanent: bool) -> None:
    with (
        a_peer(lambda n: status if n == 2 else 0x0000) as (peer, destination),
        pytest.raises(DeliveryError, match=f"0x{status:04X}") as caught,
    ):
        PacsDestination(destination, "REBRAIN").send([instance(n) for n in (1, 2, 3)])
    assert isinstance(caught.value, PermanentDeliveryError) is permanent
    assert [one.sop_instance_uid for one in caught.value.taken] == [instance(1).sop_instance_uid]
    assert instance(2).sop_instance_uid in str(caught.value)
    assert len(peer.received) == 2


def test_every_status_has_exactly_one_meaning() -> None:
    meanings = [status_class(status) for status in range(0x10000)]
    assert meanings.count("success") == 1
    assert {s for s in range(0x10000) if meanings[s] == "warning"} == {
        0x0001, 0x0107, 0x0116, *range(0xB000, 0xC000),
    }  # fmt: skip
    assert all(meanings[s] == "retryable" for s in range(0xA700, 0xA800))
    assert all(meanings[s] == "refused" for s in [*range(0xA900, 0xAA00), *range(0xC000, 0xD000)])


def test_a_sop_class_the_peer_does_not_take_is_named_before_anything_is_sent() -> None:
    with (
        a_peer() as (peer, destination),
        pytest.raises(PermanentDeliveryError, match="Parametric Map Storage") as caught,
    ):
        PacsDestination(destination, "REBRAIN").send(
            [instance(1), instance(2, ParametricMapStorage)]
        )
    assert ParametricMapStorage in str(caught.value)
    assert peer.received == []


def test_an_association_ended_in_the_middle_is_retried_from_there() -> None:
    with (
        a_peer(lambda n: None if n == 2 else 0x0000) as (_, destination),
        pytest.raises(DeliveryError, match="ended the association") as caught,
    ):
        PacsDestination(destination, "REBRAIN").send([instance(n) for n in (1, 2, 3)])
    assert not isinstance(caught.value, PermanentDeliveryError)
    assert len(caught.value.taken) == 1


def test_an_association_ended_between_two_files_is_noticed_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.dcm" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_bytes(instance(n).content)

    def end_soon(event: Event) -> None:
        threading.Timer(0.1, event.assoc.abort).start()

    begun = time.monotonic()
    with a_peer(handlers=[(evt.EVT_DIMSE_SENT, end_soon)]) as (_, destination):
        patient = destination.model_copy(update={"timeout_s": 60.0})
        results = send_files(patient, "CT1", paths, lambda _: time.sleep(0.4))
    assert [one.taken for one in results] == [True, False, False]
    assert "ended the association" in results[1].sentence
    assert time.monotonic() - begun < 30.0, "not at the timeout"


def test_a_peer_that_is_down_is_named_with_host_port_and_remedy() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(DeliveryError) as caught:
        PacsDestination(settings_for(port), "REBRAIN").send([instance(1)])
    assert not isinstance(caught.value, PermanentDeliveryError)
    for part in ("pacs", "PACS", f"127.0.0.1:{port}", "Connection refused", "firewall"):
        assert part in str(caught.value)


def test_a_host_nobody_knows_is_said() -> None:
    with pytest.raises(DeliveryError, match=r"nowhere\.invalid.*not known"):
        echo(settings_for(104, host="nowhere.invalid"), "REBRAIN")


def test_a_peer_that_says_nothing_is_given_up_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(DeliveryError, match=r"did not answer.*TLS"):
            echo(settings_for(silent.getsockname()[1], timeout_s=0.5), "REBRAIN")
    assert time.monotonic() - begun < 20.0


@pytest.mark.parametrize(
    ("requirement", "said"),
    [({"require_called_aet": True}, "ANOTHER"), ({"require_calling_aet": ["SOMEBODY"]}, "REBRAIN")],
)
def test_a_rejected_association_says_which_title_is_not_known(
    requirement: dict[str, bool], said: str
) -> None:
    with (
        a_peer(**requirement) as (_, destination),
        pytest.raises(DeliveryError, match=f"AE title {said}") as caught,
    ):
        PacsDestination(destination.model_copy(update={"ae_title": "ANOTHER"}), "REBRAIN").send(
            [instance(1)]
        )
    assert not isinstance(caught.value, PermanentDeliveryError)


def test_files_go_in_their_own_transfer_syntax_and_each_has_an_answer(tmp_path: Path) -> None:
    paths = []
    for n, syntax in enumerate((ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless)):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"2.25.{n}"
        dataset.PatientID = "test"
        paths.append(tmp_path / f"{n}.dcm")
        paths[-1].write_bytes(encoded(dataset, syntax))
    paths.append(tmp_path / "letter.txt")
    paths[-1].write_text("Dear colleague")
    paths.append(tmp_path / "map.dcm")
    paths[-1].write_bytes(instance(9, ParametricMapStorage).content)
    told: list[SentFile] = []
    with a_peer(lambda n: 0xC000 if n == 2 else 0x0000) as (peer, destination):
        results = send_files(destination, "CT1", paths, told.append)
    assert told == list(results)
    assert [one.taken for one in results] == [True, False, True, False, False]
    assert [one.status for one in results] == [0x0000, 0xC000, 0x0000, None, None]
    assert results[3].sentence == "not a DICOM file"
    assert "Parametric Map Storage" in results[4].sentence
    assert [got[1] for got in peer.received] == [
        ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless,
    ]  # fmt: skip
    assert [got[2] for got in peer.received] == [data_set(path.read_bytes()) for path in paths[:3]]


def test_files_that_are_not_dicom_need_no_association(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear colleague")
    (result,) = send_files(settings_for(1), "CT1", [tmp_path / "letter.txt"])
    assert not result.taken


@contextmanager
def storescp(folder: Path) -> Iterator[DestinationSettings]:
    """A dcmtk storage SCP as it comes, Nagle's algorithm on."""
    program = dcmtk.program("storescp")
    if program is None:
        pytest.skip("dcmtk is not installed (Debian package dcmtk)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"}
    process = subprocess.Popen(
        [program, "+B", "-aet", "PACS", "-od", folder, str(port)], env=environment
    )
    destination = settings_for(port)
    try:
        for _ in range(100):
            try:
                echo(destination, "REBRAIN")
                break
            except DeliveryError:
                time.sleep(0.05)
        yield destination
    finally:
        process.terminate()
        process.wait(10)


def test_dcmtk_keeps_what_was_stored_bit_for_bit(tmp_path: Path) -> None:
    instances = [instance(n) for n in range(5)]
    with storescp(tmp_path) as destination:
        assert 0.0 < echo(destination, "REBRAIN") < 5.0
        taken = PacsDestination(destination, "REBRAIN").send(instances)
    assert [one.status for one in taken] == [0x0000] * 5
    kept = {dcmread(path).SOPInstanceUID: path.read_bytes() for path in tmp_path.iterdir()}
    for one in instances:
        assert data_set(kept[one.sop_instance_uid]) == data_set(one.content)
