"""A sender of test instances, and a node's receiving side, both real, on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context

from rebrain_node.domain.ledger import ReceivedInstance, Reception
from rebrain_node.errors import InstanceConflictError
from rebrain_node.network.association import _Parking, _Requestor
from rebrain_node.network.receiver import Receiver
from rebrain_node.ports import JsonValue
from rebrain_node.reception.inbox import Spool
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
        self.events.append((event, subject, details))

    def of(self, event: str) -> list[Mapping[str, JsonValue]]:
        return [details for name, _, details in self.events if name == event]


@dataclass(kw_only=True)
class Listening:
    """A receiver with everything around it."""

    receiver: Receiver
    ledger: MemoryLedger
    audit: MemoryAudit
    folder: Path

    @property
    def port(self) -> int:
        return self.receiver.port

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


def receiver_settings(**changes: object) -> ReceiverSettings:
    values: dict[str, object] = {
        "ae_title": "REBRAIN",
        "port": 1,
        "peers": (Peer(ae_title="PACS"),),
    }
    return ReceiverSettings(**(values | changes)).model_copy(update={"port": 0})


@contextmanager
def listening(folder: Path, *, hard_mark_bytes: int = 0, **changes: object) -> Iterator[Listening]:
    ledger, audit = MemoryLedger(), MemoryAudit()
    spool = Spool(folder / "inbox", ledger, hard_mark_bytes=hard_mark_bytes)
    with Receiver(receiver_settings(**changes), spool, audit) as receiver:
        yield Listening(receiver=receiver, ledger=ledger, audit=audit, folder=folder / "inbox")


def associate(
    port: int, *, calling: str = "PACS", called: str = "REBRAIN", bind: str = "127.0.0.1"
) -> Association:
    entity = _Requestor(ae_title=calling)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = 60
    return entity.associate(
        "127.0.0.1", port, contexts=CONTEXTS, ae_title=called, bind_address=(bind, 0)
    )


def park(association: Association) -> _Parking:
    """Keep pynetdicom's reactor from swallowing answers, as the node's own sender does."""
    parking = association._reactor_checkpoint
    if not isinstance(parking, _Parking):
        parking = _Parking()
        parking.take(association)
    return parking


@contextmanager
def associated(port: int, **options: str) -> Iterator[Association]:
    association = associate(port, **options)
    assert association.is_established
    parking = park(association)
    try:
        yield association
        if association.is_established:
            association.release()
    finally:
        parking.leave()


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
    park(association)
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
