"""The sender against a real dcmtk peer and against peers that answer every class of status."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    ParametricMapStorage,
    RLELossless,
)
from pynetdicom import evt
from pynetdicom.events import Event

from rebrain_node.benchmark import dcmtk
from rebrain_node.errors import DeliveryError, UnreachableError
from rebrain_node.network.sender import PacsDestination, SentFile, echo, send_files
from rebrain_node.settings import DestinationSettings
from tests.support.scripted_pacs import a_peer, encoded, instance, settings_for


def data_set(content: bytes) -> bytes:
    """The bytes behind the file meta information (PS3.10 section 7.1)."""
    (length,) = (dcmread(BytesIO(content)).file_meta.FileMetaInformationGroupLength,)
    return content[128 + 4 + 12 + length :]


def test_the_stored_bytes_travel_unchanged_in_order_over_one_association() -> None:
    instances = [instance(n) for n in (3, 1, 2)]
    with a_peer() as (peer, destination):
        taken = PacsDestination(destination, "REBRAIN").send(instances)
    assert [one.sop_instance_uid for one in taken] == [one.sop_instance_uid for one in instances]
    assert {one.outcome for one in taken} == {"taken"}
    assert [got[0] for got in peer.received] == [one.sop_instance_uid for one in instances]
    assert [got[2] for got in peer.received] == [data_set(one.content) for one in instances]
    assert peer.calling == ["REBRAIN"]


def test_contexts_are_proposed_for_what_is_sent_and_nothing_else() -> None:
    with a_peer() as (peer, destination):
        PacsDestination(destination, "REBRAIN").send([instance(1), instance(2)])
    assert peer.contexts == [(MRImageStorage, [ExplicitVRLittleEndian])]


def test_nothing_to_send_needs_no_association() -> None:
    assert PacsDestination(settings_for(1), "REBRAIN").send([]) == ()


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(0xB000, "warning"), (0x0111, "duplicate"), (0xA700, "retry"), (0x0110, "retry"),
     (0xA900, "refused"), (0xC000, "refused"), (0x0122, "refused")],
)  # fmt: skip
def test_the_other_slices_are_sent_whatever_one_is_answered(status: int, outcome: str) -> None:
    with a_peer(lambda n: status if n == 2 else 0x0000) as (peer, destination):
        answers = PacsDestination(destination, "REBRAIN").send([instance(n) for n in (1, 2, 3)])
    assert [one.outcome for one in answers] == ["taken", outcome, "taken"]
    assert [one.status for one in answers] == [0x0000, status, 0x0000]
    assert [one.reason is None for one in answers] == [True, False, True]
    for part in (f"0x{status:04X}", instance(2).sop_instance_uid, "pacs"):
        assert part in str(answers[1].reason)
    assert len(peer.received) == 3


@pytest.mark.parametrize("status", [0xA700, 0xC000])
def test_companions_wait_until_every_slice_is_accepted(status: int) -> None:
    sent = [instance(1), instance(2), instance(3, CTImageStorage, "SC")]
    with a_peer(lambda n: status if n == 1 else 0x0000) as (peer, destination):
        answers = PacsDestination(destination, "REBRAIN").send(sent)
    assert len(answers) == len(peer.received) == 2


def test_a_kind_that_is_not_accepted_is_left_out_by_name_once_the_slices_are_there() -> None:
    sent = [instance(1), instance(2, ParametricMapStorage, "PM"), instance(3, CTImageStorage, "SC")]
    with a_peer() as (peer, destination):
        answers = PacsDestination(destination, "REBRAIN").send(sent)
    assert [one.outcome for one in answers] == ["taken", "unsupported", "taken"]
    assert "Parametric Map Storage" in str(answers[1].reason)
    assert len(peer.received) == 2


@pytest.mark.parametrize("kind", ["strict companions", "MR"])
def test_nothing_is_sent_where_a_needed_kind_is_not_accepted(kind: str) -> None:
    companion = instance(2, ParametricMapStorage, "MR" if kind == "MR" else "PM")
    with a_peer() as (peer, destination):
        strict = destination.model_copy(update={"companions": "strict"})
        answers = PacsDestination(destination if kind == "MR" else strict, "REBRAIN").send(
            [instance(1), companion]
        )
    assert [one.outcome for one in answers] == ["refused", "refused"]
    assert all(ParametricMapStorage in str(one.reason) for one in answers)
    assert peer.received == []


def test_an_association_ended_in_the_middle_leaves_the_rest_undecided() -> None:
    with a_peer(lambda n: None if n == 2 else 0x0000) as (_, destination):
        answers = PacsDestination(destination, "REBRAIN").send([instance(n) for n in (1, 2, 3)])
    assert [one.outcome for one in answers] == ["taken", "retry"]
    assert "ended the association" in str(answers[1].reason)


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
    for part in ("pacs", "PACS", f"127.0.0.1:{port}", "Connection refused", "firewall"):
        assert part in str(caught.value)


def test_a_peer_that_accepts_no_kind_of_object_is_named_with_the_kinds() -> None:
    with (
        a_peer(sop_classes=(CTImageStorage,)) as (_, settings),
        pytest.raises(UnreachableError, match="accepts none of MR Image Storage; allow"),
    ):
        PacsDestination(settings, "REBRAIN").send([instance(1)])


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
        pytest.raises(DeliveryError, match=f"AE title {said}"),
    ):
        PacsDestination(destination.model_copy(update={"ae_title": "ANOTHER"}), "REBRAIN").send(
            [instance(1)]
        )


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
