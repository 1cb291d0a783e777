"""Each limit of the transport, met by a real socket, while an honest sender is served."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pynetdicom.dimse_primitives import C_STORE, N_EVENT_REPORT

from rebrain_node.network.pdu_stream import StreamLimits
from tests.support.dicom_peers import (
    Listening,
    associate,
    associate_request,
    associated,
    connect,
    echo,
    instance,
    listening,
    raw_association,
    send,
    settles,
    store_request,
)

#: deadline of a silent connection where the test asks who is served meanwhile, s
PATIENT_S = 60.0
#: deadline of a silent connection where the test waits for its end, s
HASTY_S = 2.0
#: how late a thing that happens at once may come on a machine that is busy with other tests, s:
#: far below the patient deadline, so that a sender served in time did not wait for that
LATE_S = 20.0
REJECTED_FOR_NOW = b"\x03\x00\x00\x00\x00\x04\x00\x02\x03\x02"


@contextlib.contextmanager
def small_node(folder: Path, deadline_s: float) -> Iterator[Listening]:
    with listening(
        folder,
        maximum_unassociated=12,
        maximum_unassociated_per_address=4,
        association_timeout_s=deadline_s,
        pdu_timeout_s=deadline_s,
    ) as found:
        yield found


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Listening]:
    with small_node(tmp_path, PATIENT_S) as found:
        yield found


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Listening]:
    with small_node(tmp_path, HASTY_S) as found:
        yield found


def assert_served(node: Listening) -> None:
    """An honest sender associates, is answered and releases while the attack goes on."""
    begun = time.monotonic()
    assert echo(node.port) == 0x0000
    assert time.monotonic() - begun < LATE_S


def closed_after_s(connection: socket.socket) -> float:
    """How long the peer keeps the connection open."""
    begun = time.monotonic()
    connection.settimeout(2 * LATE_S)
    with contextlib.suppress(ConnectionError):
        while connection.recv(4096):
            pass
    return time.monotonic() - begun


def threads_now() -> int:
    return threading.active_count()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9"])
def test_silent_connections_lock_nobody_out(node: Listening, address: str) -> None:
    before = threads_now()
    silent = [connect(node, address) for _ in range(40)]
    for each in silent[-4:]:
        each.sendall(b"\x01\x00\x00")  # half a header
    assert_served(node)
    assert threads_now() - before <= 2 * (4 + 1) + 2
    for each in silent:
        each.close()
    assert settles(lambda: threads_now() <= before + 1)


@pytest.mark.parametrize("beginning", [b"", b"\x01\x00\x00"], ids=["nothing", "half a header"])
def test_a_silent_connection_is_closed_at_its_deadline(hasty: Listening, beginning: bytes) -> None:
    connection = connect(hasty)
    connection.sendall(beginning)
    assert 0.8 * HASTY_S < closed_after_s(connection) < LATE_S


def test_many_addresses_together_have_a_cap_too(node: Listening) -> None:
    before = threads_now()
    silent = [connect(node, f"127.0.1.{number}") for number in range(1, 61)]
    assert_served(node)
    assert threads_now() - before <= 2 * (12 + 1) + 2
    assert silent[0].recv(100) == REJECTED_FOR_NOW, "the oldest gave way, told to try again"
    for each in silent:
        each.close()


def test_a_storm_of_connections_leaves_no_thread_behind(node: Listening) -> None:
    before = threads_now()
    for number in range(100):
        with connect(node) as connection:
            if number % 3:
                connection.sendall(b"\xffnonsense" if number % 3 == 1 else associate_request()[:40])
    assert_served(node)
    assert settles(lambda: threads_now() <= before + 1)


def test_a_request_in_drips_has_one_deadline(hasty: Listening) -> None:
    connection, request = connect(hasty), associate_request()
    begun = time.monotonic()
    with contextlib.suppress(OSError):
        for byte in request:
            connection.sendall(bytes((byte,)))
            time.sleep(0.1)
            if time.monotonic() - begun > LATE_S:
                pytest.fail("dripped on and on")
    assert 0.8 * HASTY_S < time.monotonic() - begun < LATE_S
    assert_served(hasty)


def test_a_slow_but_timely_request_is_served(node: Listening) -> None:
    connection, request = connect(node), associate_request()
    for at in range(0, len(request), 40):
        connection.sendall(request[at : at + 40])
        time.sleep(0.02)
    assert connection.recv(4096)[0] == 2
    connection.close()


@pytest.mark.parametrize(
    ("maximum_pdu_bytes", "kind_of_answer"),
    [(StreamLimits.pdu_bytes, 4), (StreamLimits.pdu_bytes + 1, 7)],
)
def test_the_longest_pdu_offered_is_answered_and_a_longer_one_aborts(
    node: Listening, maximum_pdu_bytes: int, kind_of_answer: int
) -> None:
    connection = raw_association(node)
    with contextlib.suppress(ConnectionError):
        connection.sendall(store_request(bytes(200_000), maximum_pdu_bytes))
    connection.settimeout(LATE_S)
    assert connection.recv(1) == bytes((kind_of_answer,)), "P-DATA or A-ABORT"


def test_a_pdu_that_stalls_after_association_is_cut(hasty: Listening) -> None:
    connection = raw_association(hasty)
    connection.sendall(struct.pack(">BBI", 4, 0, 1000) + bytes(10))
    assert 0.8 * HASTY_S < closed_after_s(connection) < LATE_S


def test_a_pdu_that_stalls_holds_nobody_else_up(node: Listening) -> None:
    connection = raw_association(node)
    connection.sendall(struct.pack(">BBI", 4, 0, 1000) + bytes(10))
    assert_served(node)


def test_a_message_longer_than_its_limit_is_cut(tmp_path: Path) -> None:
    with listening(tmp_path, maximum_message_bytes=1_048_576) as node:
        connection = raw_association(node)
        with associated(node.port) as fine:
            assert send(fine, instance(1))[0] == 0x0000
        with contextlib.suppress(ConnectionError):
            connection.sendall(store_request(bytes(2_100_000)))
        connection.settimeout(LATE_S)
        assert connection.recv(100)[0] == 7, "A-ABORT"
        assert_served(node)
        assert len(node.ledger.received) == 1


def test_a_command_without_end_is_cut_early(node: Listening) -> None:
    connection = raw_association(node)
    fragment = struct.pack(">BBI", 4, 0, 8006) + struct.pack(">IBB", 8002, 1, 0x01) + bytes(8000)
    for _ in range(3):
        connection.sendall(fragment)
    connection.settimeout(LATE_S)
    assert connection.recv(100)[0] == 7
    assert_served(node)


def test_event_reports_start_no_thread(node: Listening) -> None:
    association = associate(node.port)
    before = threads_now()
    report = N_EVENT_REPORT()
    report.MessageID = 1
    report.AffectedSOPClassUID = "1.2.840.10008.1.20.1"
    report.AffectedSOPInstanceUID = "1.2.840.10008.1.20.1.1"
    report.EventTypeID = 1
    for _ in range(50):
        association.dimse.send_msg(report, association.accepted_contexts[0].context_id)
        assert threads_now() <= before
    assert_served(node)
    association.abort()


def test_who_does_not_wait_for_answers_holds_nobody_up_and_loses_nothing(
    node: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    record = node.ledger.record_received

    def slow(*arguments: object) -> str:
        gate.wait(60)
        return record(*arguments)

    monkeypatch.setattr(node.ledger, "record_received", slow)
    with associated(node.port) as association:
        for number in range(1, 31):
            request = C_STORE()
            request.MessageID, request.Priority = number, 2
            request.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
            request.AffectedSOPInstanceUID = f"1.2.3.4.{number}"
            request.DataSet = BytesIO(instance(number))
            association.dimse.send_msg(request, association.accepted_contexts[1].context_id)
        assert_served(node)
        assert not node.ledger.received
        gate.set()
        answers = [association.dimse.get_msg(block=True)[1] for _ in range(30)]
    assert [answer.MessageIDBeingRespondedTo for answer in answers] == list(range(1, 31))
    assert len(node.ledger.received) == 30


def test_nonsense_messages_end_their_association_only(node: Listening) -> None:
    for content in (b"", b"\x00" * 40, b"\xff" * 40):
        connection = raw_association(node)
        value = struct.pack(">IBB", len(content) + 2, 1, 0x03) + content
        connection.sendall(struct.pack(">BBI", 4, 0, len(value)) + value)
        assert closed_after_s(connection) < LATE_S
        assert_served(node)
