"""What a sender gets to see: taken, refused by name, or not let in."""

import hashlib
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, MRImageStorage
from pynetdicom.dimse_primitives import C_STORE

from rebrain_node.domain.audit import Event
from rebrain_node.domain.job import Job
from rebrain_node.errors import AlteredBytesError, OutOfResourcesError, StoreUnavailableError
from rebrain_node.network.receiver import Receiver
from rebrain_node.reception.inbox import InboxFolder, Spool
from rebrain_node.settings import Peer, load_settings
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.ledger import Ledger
from tests.support.data_sets import ct, element, encode
from tests.support.dicom_peers import (
    associate,
    associated,
    echo,
    instance,
    listening,
    pause_reactor,
    receiver_settings,
    send,
    series,
)

WAIT_S = 20.0


def wait_until(condition: object, timeout_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.01)
    assert condition()  # type: ignore[operator]


def test_an_echo_is_answered(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        assert echo(node.port) == 0x0000


def test_an_instance_is_stored_as_it_came(tmp_path: Path) -> None:
    content = instance(1)
    with listening(tmp_path) as node, associated(node.port) as association:
        assert send(association, content) == (0x0000, "")
        (stored,) = node.ledger.received
        assert (stored.sop_instance_uid, stored.calling_ae_title) == ("1.2.3.4.1", "PACS")
        path = node.folder / stored.path
        kept = path.read_bytes()
    assert kept.endswith(content)
    assert hashlib.sha256(kept).hexdigest() == stored.sha256 == path.name
    assert len(kept) == stored.size_bytes
    assert path.stat().st_mode & 0o777 == 0o600
    read = dcmread(BytesIO(kept))
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID == "1.2.3.4.1"
    assert read.file_meta.MediaStorageSOPClassUID == CTImageStorage
    assert read.file_meta.FileMetaInformationGroupLength == len(kept) - len(content) - 144


def test_the_same_bytes_again_are_acknowledged_and_change_nothing(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        for calling in ("PACS", "PACS"):
            with associated(node.port, calling=calling) as association:
                assert send(association, instance(1))[0] == 0x0000
        assert len(node.ledger.received) == 1
        assert len(node.files()) == 1


def test_other_bytes_under_a_known_uid_are_refused_and_kept_apart(tmp_path: Path) -> None:
    with listening(tmp_path) as node, associated(node.port) as association:
        send(association, instance(1))
        changed = ct(instance="1.2.3.4.1")
        changed[0x00100010] = ("PN", b"C^D ")
        status, comment = send(association, encode(changed))
        assert status == 0x0117
        assert comment.startswith("SAME-UID-OTHER-BYTES")
        assert len(node.ledger.received) == len(node.ledger.quarantined) == 1
        assert len(node.files()) == 2


@pytest.mark.parametrize(
    ("status", "reason", "content"),
    [
        (0xC104, "LENGTH", instance(1)[:-5]),
        (0xC10A, "PIXEL-MISSING", encode({k: v for k, v in ct().items() if k != 0x7FE00010})),
        (0xC101, "DUP-TAG", instance(1) + element(0x7FE00010, "OW", bytes(48))),
        (0xC10F, "SOP-INSTANCE", instance(2)),
        (0xA900, "SOP-CLASS", instance(1, sop_class=MRImageStorage)),
        (0xC104, "LENGTH", b"\x00"),
    ],
)  # fmt: skip
def test_a_broken_instance_is_refused_with_its_reason(
    tmp_path: Path, status: int, reason: str, content: bytes
) -> None:
    with listening(tmp_path) as node, associated(node.port) as association:
        answer, comment = send(association, content)
        assert answer == status
        assert comment.startswith(reason)
        assert not node.ledger.received
        assert not node.files()
        (told,) = node.audit.of("instance.refused")
        assert (told["reason"], told["status"]) == (reason, f"{status:04X}")
        assert send(association, instance(1))[0] == 0x0000, "the association goes on"


def test_context_command_and_data_set_must_agree(tmp_path: Path) -> None:
    with listening(tmp_path) as node, associated(node.port) as association:
        through_mr = send(association, instance(1), context=MRImageStorage)
        as_mr = send(association, instance(1), sop_class=MRImageStorage)
        assert [through_mr[0], as_mr[0]] == [0xA900, 0xA900]
        assert not node.ledger.received


def test_a_request_without_sop_instance_is_answered(tmp_path: Path) -> None:
    with listening(tmp_path) as node, associated(node.port) as association:
        assert send(association, instance(1), instance=None)[0] == 0xC110
        assert send(association, instance(1))[0] == 0x0000


def test_an_mr_instance_is_accepted_and_counted(tmp_path: Path) -> None:
    with listening(tmp_path) as node, associated(node.port) as association:
        content = instance(1, sop_class=MRImageStorage)
        status, _ = send(association, content, sop_class=MRImageStorage, context=MRImageStorage)
        assert status == 0x0000
        assert [each.sop_class_uid for each in node.ledger.received] == [MRImageStorage]


def test_nobody_is_let_in_by_default(tmp_path: Path) -> None:
    with listening(tmp_path, peers=()) as node:
        association = associate(node.port)
        assert association.is_rejected
        answer = association.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, 3)


@pytest.mark.parametrize(
    ("caller", "reason", "rejection"),
    [
        ({"called": "OTHER"}, "CALLED-AE", (1, 1, 7)),
        ({"calling": "UNKNOWN"}, "UNKNOWN-AE", (1, 1, 3)),
        ({"calling": "pacs"}, "UNKNOWN-AE", (1, 1, 3)),
        ({"bind": "127.0.0.2"}, "UNKNOWN-ADDRESS", (1, 1, 3)),
    ],
)
def test_an_unknown_peer_is_rejected_and_audited(
    tmp_path: Path, caller: dict[str, str], reason: str, rejection: tuple[int, int, int]
) -> None:
    with listening(tmp_path) as node:
        for _ in range(3):
            association = associate(node.port, **caller)
            assert association.is_rejected
        answer = association.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == rejection
        (told,) = node.audit.of("association.refused")
        assert told["reason"] == reason, "told once, not three times"
        assert told["address"] == caller.get("bind", "127.0.0.1")


def test_a_refused_sender_leaves_one_line_of_log_with_title_address_and_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(tmp_path) as node:
        for _ in range(3):
            associate(node.port, calling="UNKNOWN")
    (line,) = [text for text in caplog.messages if "refused" in text]
    assert line.startswith("sender UNKNOWN at 127.0.0.1 refused: UNKNOWN-AE")
    assert "rebrain-node peers unknown" in line


def test_the_line_that_would_admit_an_unknown_peer_admits_it(tmp_path: Path) -> None:
    unknown = {"calling": 'A "B', "bind": "127.0.0.3"}
    with listening(tmp_path) as node:
        associate(node.port, **unknown)
        (told,) = node.audit.of("association.refused")
    config = tmp_path / "node.toml"
    config.write_text(str(told["would_admit"]))
    peers = load_settings(config).receiver.peers
    assert peers == (Peer(ae_title='A "B', addresses=("127.0.0.3/32",)),)
    with listening(tmp_path, peers=peers) as node:
        assert echo(node.port, **unknown) == 0x0000


def test_one_association_too_many_is_rejected_for_now(tmp_path: Path) -> None:
    with listening(tmp_path, maximum_associations=2) as node:
        first, second, third = (associate(node.port) for _ in range(3))
        assert third.is_rejected
        answer = third.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        first.release()
        second.release()
        wait_until(lambda: _echoes(node.port))


def _echoes(port: int) -> bool:
    association = associate(port)
    established = association.is_established
    if established:
        association.release()
    return established


def test_an_aborted_association_leaves_what_was_acknowledged(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        association = associate(node.port)
        assert [send(association, content, instance=f"1.2.3.4.{n}")[0]
                for n, content in enumerate(series(3), 1)] == [0, 0, 0]  # fmt: skip
        request = C_STORE()
        request.MessageID, request.Priority = 4, 2
        request.AffectedSOPClassUID = CTImageStorage
        request.AffectedSOPInstanceUID = "1.2.3.4.4"
        request.DataSet = BytesIO(instance(4))
        message = list(_fragments(request, association))
        association.dul.send_pdu(message[0])  # the command, and never the data set
        association.abort()
        pause_reactor(association).end()
        wait_until(lambda: node.audit.of("association.aborted"))
        assert len(node.ledger.received) == len(node.files()) == 3


def _fragments(request: C_STORE, association: object) -> list[object]:
    from pynetdicom.dimse_messages import C_STORE_RQ

    message = C_STORE_RQ()
    message.primitive_to_message(request)
    context = association.accepted_contexts[1].context_id  # type: ignore[attr-defined]
    return list(message.encode_msg(context, 16384))


def test_a_disk_at_its_hard_mark_refuses_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        listening(tmp_path, hard_mark_bytes=1_000_000) as node,
        associated(node.port) as association,
    ):
        assert send(association, instance(1))[0] == 0x0000
        with monkeypatch.context() as patch:
            full = SimpleNamespace(f_bavail=200, f_frsize=4096)
            patch.setattr("rebrain_node.reception.inbox.os.statvfs", lambda _: full)
            status, comment = send(association, instance(2), instance="1.2.3.4.2")
            assert status == 0xA700
            assert comment.startswith("DISK-HARD-MARK")
            answer = associate(node.port).acceptor.primitive
            assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 1)
        assert send(association, instance(2), instance="1.2.3.4.2")[0] == 0x0000
        assert len(node.ledger.received) == 2


def test_an_error_of_fsync_is_neither_acknowledged_nor_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(tmp_path) as node, associated(node.port) as association:
        calls = []

        def failing(descriptor: int) -> None:
            calls.append(descriptor)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr("rebrain_node.blobs.os.fsync", failing)
        status, comment = send(association, instance(1))
        assert (status, len(calls)) == (0xA700, 1)
        assert comment.startswith("DISK")
        assert not node.ledger.received
        assert not node.files()


def test_a_ledger_that_is_down_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise OutOfResourcesError("locked", status=0xA700, reason="DATABASE")

    with listening(tmp_path) as node, associated(node.port) as association:
        monkeypatch.setattr(node.ledger, "record_received", down)
        assert send(association, instance(1))[0] == 0xA700


def test_a_defect_of_ours_is_never_answered_with_c211(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with listening(tmp_path) as node, associated(node.port) as association:
        monkeypatch.setattr(node.ledger, "record_received", broken)
        assert send(association, instance(1))[0] == 0xC1FF


def test_without_an_audit_log_unknown_peers_stay_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise StoreUnavailableError("locked")

    with listening(tmp_path) as node:
        monkeypatch.setattr(node.audit, "record", down)
        association = associate(node.port, calling="UNKNOWN")
        assert association.is_rejected


def test_the_real_ledger_takes_what_comes_and_the_inbox_reads_it(tmp_path: Path) -> None:
    with Database.open(f"sqlite:///{tmp_path}/node.sqlite") as database:
        ledger, audit = Ledger(database), AuditLog(database)
        spool = Spool(tmp_path / "inbox", ledger, hard_mark_bytes=0)
        with (
            Receiver(receiver_settings(), spool, audit, lambda _: False) as receiver,
            associated(receiver.port) as association,
        ):
            for number in (3, 1, 2, 1):
                status, _ = send(association, instance(number), instance=f"1.2.3.4.{number}")
                assert status == 0x0000
            assert send(association, instance(9)[:-1], instance="1.2.3.4.9")[0] == 0xC104
        inbox = InboxFolder(tmp_path / "inbox", ledger)
        job = Job(study_instance_uid="1.2.3", series_instance_uid="1.2.3.4")
        read = inbox.read(job)
        assert [each.SOPInstanceUID[-1] for each in read] == ["3", "1", "2"]
        assert len(inbox.read_study("1.2.3")) == 3
        digests = sorted(each.sha256 for each in ledger.instances(series="1.2.3.4"))
        joined = hashlib.sha256("".join(digests).encode()).hexdigest()
        assert inbox.input_digest(job) == joined
        assert [event.event for event in audit.events(limit=10)].count("instance.refused") == 1
        for row in audit.events(limit=10):
            assert all(key in Event(row.event).details for key in row.details), row.event
        held = ledger.instances(series="1.2.3.4")[0]
        path = tmp_path / "inbox" / held.path
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
        with pytest.raises(AlteredBytesError, match="was altered"):
            inbox.read(job)
        path.unlink()
        with pytest.raises(AlteredBytesError, match="restore it"):
            inbox.read(job)


def test_the_file_of_the_next_instance_is_open_before_it_comes(tmp_path: Path) -> None:
    def opened() -> list[str]:
        return [path.name for path in (tmp_path / "inbox").rglob("*.writing")]

    with listening(tmp_path) as node:
        with associated(node.port) as association:
            assert send(association, instance(1), instance="1.2.3.4.1")[0] == 0x0000
            wait_until(lambda: len(opened()) == 1)
            (first,) = opened()
            assert send(association, instance(2), instance="1.2.3.4.2")[0] == 0x0000
            wait_until(lambda: len(opened()) == 1 and opened() != [first])
        assert len(node.files()) == len(node.ledger.received) == 2
    assert len(list((tmp_path / "inbox").rglob("*"))) > 0
    assert opened() == []


def test_an_intake_loads_no_engine() -> None:
    program = (
        "import sys; import rebrain_node.network.receiver, rebrain_node.reception.inbox,"
        "rebrain_node.reception.completeness;"
        "print([m for m in ('torch', 'openvino', 'highdicom', 'SimpleITK', 'scipy', 'dbos')"
        " if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"
