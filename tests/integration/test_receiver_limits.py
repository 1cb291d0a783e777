"""What an unknown sender can make the receiver hold: limits turned down, streams from a seed."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.presentation import build_context

from rebrain_node.network.acceptor import AssociationServer
from rebrain_node.network.messages import Answer, Command, answer_pdus, read_command
from rebrain_node.network.pdu_stream import StreamLimits
from tests.support.dicom_peers import (
    Listening,
    associate_request,
    associated,
    connect,
    echo,
    instance,
    listening,
    raw_association,
    receiver_settings,
    send,
    settles,
    size_of,
    store_request,
)

LIMIT = 1024
SMALL = StreamLimits(associate_bytes=LIMIT, pdu_bytes=LIMIT, command_bytes=512, report_bytes=LIMIT)
#: for what happens at once on a machine that is not busy with other tests, s
PATIENCE_S = 60.0
#: deadline whose end a test waits for, s
HASTY_S = 0.5
#: A-ABORT of the provider, its reason in the last byte (PS3.8 9.3.8)
ABORTED = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02"


@contextlib.contextmanager
def small_node(
    folder: Path, *, association_timeout_s: float = PATIENCE_S, pdu_timeout_s: float = PATIENCE_S
) -> Iterator[Listening]:
    with listening(
        folder,
        limits=SMALL,
        maximum_message_bytes=2 * LIMIT,
        association_timeout_s=association_timeout_s,
        pdu_timeout_s=pdu_timeout_s,
        maximum_unassociated_per_address=30,
    ) as found:
        yield found


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Listening]:
    with small_node(tmp_path) as found:
        yield found


RELEASE = b"\x05\x00\x00\x00\x00\x04" + bytes(4)


def header(kind: int, length: int) -> bytes:
    return struct.pack(">BxI", kind, length)


def answer_to(connection: socket.socket, content: bytes) -> bytes:
    """All that the node sends until it closes the connection."""
    connection.settimeout(PATIENCE_S)
    answer = b""
    with contextlib.suppress(ConnectionError):
        connection.sendall(content)
        while part := connection.recv(4096):
            answer += part
    return answer


def reasons(node: Listening) -> list[object]:
    return [details["reason"] for details in node.audit.of("association.aborted")]


@pytest.mark.parametrize("length", [0, 67, LIMIT + 1])
def test_the_length_of_a_request_is_checked_before_it_is_read(node: Listening, length: int) -> None:
    assert answer_to(connect(node), header(1, length)) == ABORTED + b"\x06"
    assert settles(lambda: reasons(node) == ["PDU-LENGTH"])


@pytest.mark.parametrize("kind", [0, 2, 3, 4, 5, 6, 8, 255])
def test_before_an_association_only_its_request_is_read(node: Listening, kind: int) -> None:
    behind = header(1, LIMIT + 1)
    answer = answer_to(connect(node), header(kind, 4) + behind)
    assert answer[:9] == ABORTED
    assert settles(lambda: reasons(node) == ["PDU-TYPE"]), "nothing is searched for behind it"


@pytest.mark.parametrize(
    ("kind", "length", "reason"),
    [
        (4, LIMIT + 1, "PDU-LENGTH"),
        (4, 5, "PDU-LENGTH"),
        (5, 5, "PDU-LENGTH"),
        (1, 100, "PDU-TYPE"),
        (6, 4, "PDU-TYPE"),
        (9, 4, "PDU-TYPE"),
    ],
)
def test_the_length_of_a_pdu_is_checked_before_it_is_read(
    node: Listening, kind: int, length: int, reason: str
) -> None:
    assert answer_to(raw_association(node), header(kind, length))[:9] == ABORTED
    assert settles(lambda: reasons(node) == [reason])
    assert node.audit.of("association.aborted")[0]["address"] == "127.0.0.1"


def test_a_broken_request_of_a_known_sender_is_aborted_and_of_an_unknown_one_rejected(
    node: Listening,
) -> None:
    whole = associate_request()
    broken = whole[:-20] + bytes(20)
    assert answer_to(connect(node), broken)[:9] == ABORTED
    assert settles(lambda: reasons(node) == ["PDU-CONTENT"])
    unknown = broken.replace(b"PACS            ", b"UNKNOWN         ")
    assert answer_to(connect(node), unknown) == b"\x03\0\0\0\0\x04\0\x01\x01\x03"
    assert reasons(node) == ["PDU-CONTENT"], "nothing of it is read but its AE titles"


def test_a_request_that_is_repeated_is_negotiated_once() -> None:
    class Nobody:
        """Is asked nothing: no connection is made."""

        admit = begin = ended = None

    offered = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    server = AssociationServer(receiver_settings(), offered, Nobody(), SMALL)  # type: ignore[arg-type]
    try:
        first = server.agree(associate_request())
        assert list(first.contexts) == [1]
        assert first.answer[0] == 2, "A-ASSOCIATE-AC"
        assert server.agree(associate_request()) is first
        other = server.agree(associate_request(abstract_syntax=b"1.2.840.10008.1.1"))
        assert list(other.contexts) == []
    finally:
        server.stop()


def test_a_value_longer_than_its_pdu_ends_the_association(node: Listening) -> None:
    content = header(4, 8) + struct.pack(">IBB", 5, 1, 3) + b"\0\0"
    assert answer_to(raw_association(node), content)[:9] == ABORTED
    assert settles(lambda: reasons(node) == ["PDU-CONTENT"])


def test_a_message_above_the_sum_ends_the_association(node: Listening) -> None:
    connection = raw_association(node)
    request = store_request(bytes(3 * LIMIT), LIMIT)
    assert answer_to(connection, request)[:9] == ABORTED
    assert settles(lambda: reasons(node) == ["MESSAGE-LENGTH"])
    assert settles(lambda: node.files() == []), "what had come is removed"


def test_a_message_of_the_sum_is_taken(node: Listening) -> None:
    with associated(node.port) as association:
        assert send(association, instance(1))[0] == 0x0000


def test_unfinished_instances_of_all_associations_have_a_sum(tmp_path: Path) -> None:
    with listening(tmp_path, maximum_pending_bytes=4096) as node:
        stalled = raw_association(node)
        stalled.sendall(store_request(bytes(4000), LIMIT)[: -2 * LIMIT])
        assert settles(lambda: any(size_of(path) > 1000 for path in node.files()))
        with associated(node.port) as association:
            status, comment = send(association, instance(1) + bytes(4096))
            assert (status, comment[:13]) == (0xA700, "PENDING-BYTES")
            stalled.close()
            assert settles(lambda: node.files() == [])
            assert send(association, instance(1))[0] == 0x0000


def command(**elements: bytes) -> bytes:
    """A C-STORE request with elements of its own choice, as one P-DATA, and an empty data set."""
    values = {
        0x0002: b"1.2.840.10008.5.1.4.1.1.2\0",
        0x0100: b"\x01\x00",
        0x0110: b"\x07\x00",
        0x0800: b"\x01\x00",
        0x1000: b"1.2.3.4.1\0",
    } | {int(name[1:], 16): value for name, value in elements.items()}
    body = b"".join(struct.pack("<HHI", 0, t, len(v)) + v for t, v in sorted(values.items()))
    value = struct.pack(">IBB", len(body) + 2, 1, 3) + body
    data = struct.pack(">IBB", 4, 1, 2) + b"\0\0"
    return header(4, len(value)) + value + header(4, len(data)) + data


@pytest.mark.parametrize(
    ("elements", "status", "reason"),
    [
        ({"x1000": b"1.2.3.x\0"}, 0xC107, b"UID:"),
        ({"x1000": b"1." * 33}, 0xC107, b"UID:"),
        ({"x1000": b"\xff\xfe"}, 0xC107, b"UID:"),
        ({"x1000": b""}, 0xC110, b"INCOMPLETE-COMMAND:"),
        ({"x0002": b"CT"}, 0xC107, b"UID:"),
        ({"x0002": b""}, 0xC110, b"INCOMPLETE-COMMAND:"),
    ],
)
def test_a_command_without_a_uid_gets_its_documented_status(
    node: Listening, elements: dict[str, bytes], status: int, reason: bytes
) -> None:
    connection = raw_association(node)
    connection.sendall(command(**elements))
    connection.settimeout(PATIENCE_S)
    answer = connection.recv(4096)
    assert struct.pack("<HHIH", 0, 0x0900, 2, status) in answer
    assert reason in answer
    assert b"\x07\x00" in answer, "the message ID of the request"
    connection.sendall(RELEASE)
    assert connection.recv(4096)[0] == 6, "the association goes on"
    (told,) = node.audit.of("instance.refused")
    assert told["status"] == f"{status:04X}"


@pytest.mark.parametrize(
    "elements", [{"x0100": b"\x20\x00"}, {"x0100": b""}, {"x0110": b""}, {"x0800": b"\x01"}]
)
def test_a_command_of_no_service_ends_its_association(
    node: Listening, elements: dict[str, bytes]
) -> None:
    assert answer_to(raw_association(node), command(**elements))[:9] == ABORTED
    assert settles(lambda: reasons(node) == ["COMMAND"])


def test_an_answer_fits_into_the_pdus_that_the_peer_takes() -> None:
    request = Command(
        field=1, message_id=7, has_data_set=True, sop_class_uid="1.2", sop_instance_uid="1.2.3"
    )
    pdus = answer_pdus(request, 3, Answer(status=0xA700, comment="a\\b"), 20)
    body, at = b"", 0
    while at < len(pdus):
        kind, length = struct.unpack_from(">BxI", pdus, at)
        assert (kind, length <= 20) == (4, True)
        body += pdus[at + 12 : at + 6 + length]
        at += 6 + length
    assert (
        read_command(
            body.replace(b"\x01\x80", b"\x01\x00").replace(b"\x20\x01", b"\x10\x01")
        ).message_id
        == 7
    )
    assert b"a/b" in body


def test_no_message_to_a_peer_holds_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    with listening(tmp_path) as node, associated(node.port) as association:
        monkeypatch.setattr("rebrain_node.blobs.os.write", full)
        status, comment = send(association, instance(1))
        assert (status, comment) == (0xA700, "DISK: the disk gave an error; try again later")


def held() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _clean(node: Listening) -> socket.socket:
    connection = raw_association(node)
    connection.sendall(RELEASE)
    return connection


def _late_before_association(node: Listening) -> socket.socket:
    return connect(node)


def _late_inside_a_pdu(node: Listening) -> socket.socket:
    connection = raw_association(node)
    connection.sendall(store_request(bytes(LIMIT), LIMIT)[:LIMIT])
    return connection


def _aborted(node: Listening) -> socket.socket:
    connection = raw_association(node)
    connection.sendall(header(7, 4) + bytes(4))
    return connection


def _reset(node: Listening) -> socket.socket:
    connection = raw_association(node)
    connection.sendall(store_request(bytes(LIMIT), LIMIT)[:LIMIT])
    reset(connection)
    return connection


def _refused(node: Listening) -> socket.socket:
    connection = connect(node)
    connection.sendall(associate_request(b"REBRAIN".ljust(16) + b"UNKNOWN-AE".ljust(16)))
    return connection


#: kinds whose end is a deadline, which is short then
LATE = {
    _late_before_association: {"association_timeout_s": HASTY_S},
    _late_inside_a_pdu: {"pdu_timeout_s": HASTY_S},
}


@pytest.mark.parametrize(
    "kind",
    [_clean, _late_before_association, _late_inside_a_pdu, _aborted, _reset, _refused],
    ids=lambda kind: kind.__name__[1:],
)
@pytest.mark.parametrize("count", [pytest.param(60), pytest.param(1000, marks=pytest.mark.full)])
def test_nothing_survives_its_connection(
    tmp_path: Path, kind: Callable[[Listening], socket.socket], count: int
) -> None:
    with small_node(tmp_path, **LATE.get(kind, {})) as node:
        before = held()
        for _ in range(count // 20):
            opened = [kind(node) for _ in range(20)]
            for connection in opened:
                if connection.fileno() >= 0:
                    connection.settimeout(PATIENCE_S)
                    with contextlib.suppress(ConnectionError):
                        connection.recv(4096)
                    connection.close()
            node.connections.clear()
            assert settles(lambda: held() <= before, PATIENCE_S), f"{held()} of {before}"
        assert node.files() == []
        assert node.receiver.is_listening


def test_streams_from_a_seed_leave_nothing_and_are_survived(node: Listening) -> None:
    generator = random.Random(15)
    whole = associate_request() + store_request(bytes(LIMIT), LIMIT) + RELEASE
    before = held()
    for _ in range(200):
        stream = bytearray(whole)
        for _ in range(generator.randint(1, 8)):
            stream[generator.randrange(len(stream))] = generator.randrange(256)
        with contextlib.closing(connect(node)) as connection, contextlib.suppress(OSError):
            connection.sendall(stream)
            connection.shutdown(socket.SHUT_WR)
            answer_to(connection, b"")
        node.connections.clear()
    assert settles(lambda: held() <= before, PATIENCE_S)
    assert echo(node.port) == 0x0000
