"""A sender of test instances, and a node's receiving side, both real, on loopback."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from weakref import WeakKeyDictionary

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.presentation import build_context

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import CommitmentReport
from rebrain_node.domain.ledger import ReceivedInstance, Reception
from rebrain_node.errors import InstanceConflictError
from rebrain_node.network.pdu_stream import StreamLimits
from rebrain_node.network.pynetdicom_hardening import ReactorPause, Requestor
from rebrain_node.network.receiver import Receiver
from rebrain_node.ports import JsonValue
from rebrain_node.reception.inbox import MAXIMUM_PENDING_BYTES, Spool
from rebrain_node.settings import Peer
from rebrain_node.settings import Receiver as ReceiverSettings
from tests.support.data_sets import ct, encode

CONTEXTS = [
    build_context("1.2.840.10008.1.1"),
    build_context(CTImageStorage, ExplicitVRLittleEndian),
    build_context(MRImageStorage, ExplicitVRLittleEndian),
]


class MemoryLedger:
    """The twin of the ledger: the same answers, forgotten with the process."""

    def __init__(self) -> None:
        self.received: list[ReceivedInstance] = []
        self.quarantined: list[ReceivedInstance] = []
        self._lock = threading.Lock()

    def record_received(
        self, received: ReceivedInstance, same_content: Callable[[str], bool]
    ) -> Reception:
        with self._lock:
            for known in self.received:
                if known.sop_instance_uid == received.sop_instance_uid:
                    if known.sha256 == received.sha256 or same_content(known.sha256):
                        return "same"
                    self.quarantined.append(received)
                    raise InstanceConflictError(
                        "known with other bytes", status=0x0117, reason="SAME-UID-OTHER-BYTES"
                    )
            self.received.append(received)
            return "new"


class MemoryAudit:
    """The twin of the audit log."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Mapping[str, JsonValue]]] = []

    def record(self, event: str, subject: str, details: Mapping[str, JsonValue]) -> None:
        documented = set(re.findall(r"\w+", Event(event).details))
        assert set(details) <= documented, f"{event}: keys that docs/audit-events.md lacks"
        self.events.append((event, subject, details))

    def of(self, event: str) -> list[Mapping[str, JsonValue]]:
        return [details for name, _, details in self.events if name == event]


class MemoryReports:
    """Takes answers to storage commitment of the transactions in ``known``."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.taken: list[CommitmentReport] = []

    def take(self, report: CommitmentReport) -> bool:
        self.taken.append(report)
        return report.transaction_uid in self.known


@dataclass(kw_only=True)
class Listening:
    """A receiver with everything around it."""

    receiver: Receiver
    ledger: MemoryLedger
    audit: MemoryAudit
    reports: MemoryReports
    folder: Path
    connections: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.receiver.port

    def files(self) -> list[Path]:
        """Files of instances, whole or not; the empty one that waits for the next is none."""
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        return [each for each in found if each.suffix != ".writing" or size_of(each)]


def size_of(path: Path) -> int:
    """Size in bytes; 0 where the file has just been removed."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def receiver_settings(**changes: object) -> ReceiverSettings:
    values: dict[str, object] = {
        "ae_title": "REBRAIN",
        "port": 1,
        "peers": (Peer(ae_title="PACS"),),
    }
    small: dict[str, object] = {"port": 0}  # below what a site may set
    if "maximum_message_bytes" in changes:
        small["maximum_message_bytes"] = int(str(changes.pop("maximum_message_bytes")))
    made = ReceiverSettings(**(values | changes))
    if made.tls is not None:
        small["tls"] = made.tls.model_copy(update={"port": 0})
    return made.model_copy(update=small)


@contextmanager
def listening(
    folder: Path,
    *,
    hard_mark_bytes: int = 0,
    maximum_pending_bytes: int = MAXIMUM_PENDING_BYTES,
    limits: StreamLimits | None = None,
    take: Callable[[CommitmentReport], bool] | None = None,
    **changes: object,
) -> Iterator[Listening]:
    """Listen; ``take`` records answers to storage commitment instead of `MemoryReports`."""
    ledger, audit, reports = MemoryLedger(), MemoryAudit(), MemoryReports()
    spool = Spool(
        folder / "inbox",
        ledger,
        hard_mark_bytes=hard_mark_bytes,
        maximum_pending_bytes=maximum_pending_bytes,
    )
    settings = receiver_settings(**changes)
    with Receiver(settings, spool, audit, take or reports.take, limits) as receiver:
        node = Listening(
            receiver=receiver, ledger=ledger, audit=audit, reports=reports, folder=folder / "inbox"
        )
        try:
            yield node
        finally:
            for connection in node.connections:
                connection.close()


def associate(
    port: int,
    *,
    calling: str = "PACS",
    called: str = "REBRAIN",
    bind: str = "127.0.0.1",
    tls: tuple[ssl.SSLContext, str] | None = None,
) -> Association:
    """Request an association; ``tls`` is the context and the name of the node's certificate."""
    entity = Requestor(ae_title=calling)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = 60
    return entity.associate(
        "127.0.0.1",
        port,
        contexts=CONTEXTS,
        ae_title=called,
        bind_address=(bind, 0),
        tls_args=tls,
    )


_PAUSES: WeakKeyDictionary[Association, ReactorPause] = WeakKeyDictionary()


def pause_reactor(association: Association) -> ReactorPause:
    """Keep pynetdicom's reactor from taking answers, as the node's own sender does."""
    if association not in _PAUSES:
        _PAUSES[association] = ReactorPause(association)
    return _PAUSES[association]


@contextmanager
def associated(port: int, **options: str) -> Iterator[Association]:
    association = associate(port, **options)
    assert association.is_established
    pause = pause_reactor(association)
    try:
        yield association
        if association.is_established:
            association.release()
    finally:
        pause.end()


def send(association: Association, data_set: bytes, **command: object) -> tuple[int, str]:
    """Send encoded bytes as they are; status and error comment of the answer."""
    request = C_STORE()
    request.MessageID = 1
    request.Priority = 2
    request.AffectedSOPClassUID = command.get("sop_class", CTImageStorage)
    request.AffectedSOPInstanceUID = command.get("instance", "1.2.3.4.1")
    request.DataSet = BytesIO(data_set)
    contexts = {c.abstract_syntax: c.context_id for c in association.accepted_contexts}
    context_id = contexts[command.get("context", CTImageStorage)]
    pause_reactor(association)
    association.dimse.send_msg(request, context_id)
    _, answer = association.dimse.get_msg(block=True)
    assert answer is not None, "no answer"
    return answer.Status, str(answer.ErrorComment or "")


def instance(number: int, **changes: object) -> bytes:
    return encode(ct(instance=f"1.2.3.4.{number}", **changes))


def series(count: int, **changes: object) -> Sequence[bytes]:
    return [instance(number, **changes) for number in range(1, count + 1)]


def echo(port: int, **options: str) -> int | None:
    with associated(port, **options) as association:
        answer: Dataset = association.send_c_echo()
        return answer.get("Status")


def connect(node: Listening, address: str = "127.0.0.1", port: int | None = None) -> socket.socket:
    """A connection to the node from one of the addresses of this machine; closed with the node."""
    where = ("127.0.0.1", node.port if port is None else port)
    connection = socket.create_connection(where, 5, source_address=(address, 0))
    node.connections.append(connection)
    return connection


def associate_request(
    titles: bytes = b"REBRAIN".ljust(16) + b"PACS".ljust(16),
    abstract_syntax: bytes = b"1.2.840.10008.5.1.4.1.1.2",
) -> bytes:
    """An A-ASSOCIATE-RQ for CT in Explicit VR Little Endian by default (PS3.8 9.3.2)."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(content)) + content

    context = b"\x01\0\0\0" + item(0x30, abstract_syntax)
    context += item(0x40, b"1.2.840.10008.1.2.1")
    user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3")
    body = struct.pack(">HH", 1, 0) + titles + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context) + item(0x50, user)
    return struct.pack(">BBI", 1, 0, len(body)) + body


def raw_association(node: Listening) -> socket.socket:
    connection = connect(node)
    connection.sendall(associate_request())
    assert connection.recv(4096)[0] == 2, "A-ASSOCIATE-AC"
    return connection


def settles(condition: Callable[[], bool], timeout_s: float = 20) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def store_request(
    data_set: bytes, maximum_pdu_bytes: int = 65536, *, sop_instance_uid: str = "1.2.3.4.1"
) -> bytes:
    """A C-STORE request in the CT context of ``associate_request``, as P-DATA PDUs."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID = CTImageStorage
    request.AffectedSOPInstanceUID = sop_instance_uid
    request.DataSet = BytesIO(data_set)
    message, encoded = C_STORE_RQ(), b""
    message.primitive_to_message(request)
    for primitive in message.encode_msg(1, maximum_pdu_bytes):
        pdu = P_DATA_TF()
        pdu.from_primitive(primitive)
        encoded += pdu.encode()
    return encoded


def send_all(connection: socket.socket, content: bytes, patience_s: float) -> int:
    """Bytes of the content that the peer and the buffers on the way take."""
    connection.settimeout(patience_s)
    taken = 0
    with contextlib.suppress(OSError):
        while taken < len(content):
            taken += connection.send(content[taken : taken + 65536])
    return taken
