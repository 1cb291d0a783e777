"""The receiver: who may send, what is taken, and what each sender is told.

Default deny: a peer is known by its AE title and the network it calls from, together. An
instance is acknowledged when its structure is sound, its four identities agree (presentation
context, command, data set, file meta information) and it is durable on disk and in the ledger.
docs/receiving.md lists every status a sender can see.
"""

from __future__ import annotations

import logging
import struct
import threading
from io import BytesIO
from types import TracebackType
from typing import Final, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE

from rebrain_node import settings
from rebrain_node.domain.audit import Event as AuditEvent
from rebrain_node.domain.marks import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from rebrain_node.domain.statuses import STATUSES
from rebrain_node.errors import InstanceError, OutOfResourcesError, RebrainError
from rebrain_node.instance.codecs import decodable_transfer_syntaxes
from rebrain_node.instance.scan import (
    ScannedInstance,
    require_class,
    require_instance,
    scan_data_set,
)
from rebrain_node.network.admission import (
    AUDIT_EVERY_S,
    REJECTIONS,
    Caller,
    RateLimiter,
    Reason,
    accepted_contexts,
    refusal,
)
from rebrain_node.network.commitment import Recorder, answer_report, commitment_context
from rebrain_node.network.pynetdicom_hardening import MAXIMUM_PDU_BYTES, GuardedServer
from rebrain_node.ports import AuditLog, JsonValue
from rebrain_node.reception.inbox import Spool

#: an association that is silent so long is aborted, s
IDLE_TIMEOUT_S: Final = 120.0
_PREAMBLE: Final = bytes(128) + b"DICM"
_VERSION: Final = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01"
#: longest Error Comment (0000,0902), VR LO
_COMMENT_LENGTH = 64

_LOG = logging.getLogger(__name__)


class Receiver:
    """Listens for associations, in threads of this process, between ``start`` and ``stop``."""

    def __init__(
        self, listening: settings.Receiver, spool: Spool, audit: AuditLog, commit: Recorder
    ) -> None:
        """Listen as ``listening`` says; ``commit`` records answers to storage commitment."""
        self._listening = listening
        self._spool = spool
        self._audit = audit
        self._commit = commit
        self._limiter = RateLimiter(AUDIT_EVERY_S)
        self._admitted: list[Association] = []
        self._admitting = threading.Lock()
        self._server: GuardedServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """TCP port it listens on.

        Raises
        ------
        RuntimeError
            It does not listen.
        """
        if self._server is None:
            raise RuntimeError("the receiver is not started")
        return int(self._server.server_address[1])

    @property
    def is_listening(self) -> bool:
        """Whether the thread that accepts connections is alive."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listen; transfer syntaxes that fail the decoder's self-test are not offered.

        Raises
        ------
        OSError
            The address is in use or not of this machine.
        """
        listening = self._listening
        entity = AE(ae_title=listening.ae_title)
        entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = MAXIMUM_PDU_BYTES
        entity.acse_timeout = listening.association_timeout_s
        entity.network_timeout = IDLE_TIMEOUT_S
        entity.maximum_associations = 1 << 30  # counted in _room_for, without half-open ones
        server = entity.make_server(
            (listening.address, listening.port),
            contexts=[
                *accepted_contexts(decodable_transfer_syntaxes()),
                commitment_context(),
            ],
            server_class=GuardedServer,
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_request),
                (evt.EVT_C_STORE, self._on_store),
                (evt.EVT_N_EVENT_REPORT, self._on_report),
                (evt.EVT_ABORTED, self._on_abort),
            ],
            limits=listening,
        )
        self._server = cast(GuardedServer, server)
        self._thread = threading.Thread(
            target=server.serve_forever, args=(0.1,), name="receiver", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and abort what is open; what was acknowledged stays."""
        if self._server is None or self._thread is None:
            return
        server, self._server = self._server, None
        server.shutdown()
        self._thread.join()

    def __enter__(self) -> Receiver:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def _on_request(self, event: Event) -> None:
        """Let an association be negotiated, or reject it; whatever fails here rejects it."""
        association = event.assoc
        reason: Reason = "RESOURCES"
        try:
            caller = _caller(association)
            refused = refusal(caller, self._listening.ae_title, self._listening.peers)
            refused = refused or self._lack_of_room(association)
            if refused is None:
                return
            reason = refused
            self._record_association_refused(caller, reason)
        except Exception as error:  # noqa: BLE001 - pynetdicom would negotiate after an exception
            _LOG.warning("association refused: %s", type(error).__name__)
        rejection, _ = REJECTIONS[reason]
        association.acse.send_reject(*rejection)
        association.kill()

    def _lack_of_room(self, association: Association) -> Reason | None:
        try:
            self._spool.require_room()
        except OutOfResourcesError:
            return "RESOURCES"
        with self._admitting:
            self._admitted = [each for each in self._admitted if each.is_alive()]
            if len(self._admitted) >= self._listening.maximum_associations:
                return "ASSOCIATIONS"
            self._admitted.append(association)
        return None

    def _record_association_refused(self, caller: Caller, reason: Reason) -> None:
        suppressed = self._limiter.due((caller, reason))
        if suppressed is None:
            return
        details: dict[str, JsonValue] = {
            "reason": reason,
            "address": caller.address,
            "called_ae_title": caller.called_ae_title,
            "not_told": suppressed,
        }
        if reason in {"UNKNOWN-AE", "UNKNOWN-ADDRESS"}:
            details["would_admit"] = caller.settings_line
        self._audit.record(AuditEvent.ASSOCIATION_REFUSED, caller.calling_ae_title, details)

    def _on_report(self, event: Event) -> tuple[int, None]:
        """Take the answer to a request for storage commitment."""
        try:
            return answer_report(event, self._commit)
        except Exception:  # noqa: BLE001 - pynetdicom would answer without a reason
            _LOG.exception("N-EVENT-REPORT failed")
            return 0x0110, None

    def _on_store(self, event: Event) -> int | Dataset:
        """Take one instance; the DIMSE status the sender gets."""
        try:
            return self._take(event)
        except InstanceError as error:
            self._record_instance_refused(event, error)
            return _status(error.status, f"{error.reason}: {error}")
        except Exception:  # noqa: BLE001 - pynetdicom would answer C211
            _LOG.exception("C-STORE failed")
            return _status(STATUSES["DEFECT"].status, "DEFECT: the node's log says more")

    def _take(self, event: Event) -> int:
        request, context = cast(C_STORE, event.request), event.context
        data_set = cast(BytesIO, request.DataSet).getvalue()
        scanned = scan_data_set(data_set, context.transfer_syntax)
        require_class(scanned, context.abstract_syntax, by="presentation context")
        require_class(scanned, str(request.AffectedSOPClassUID), by="command")
        require_instance(scanned, str(request.AffectedSOPInstanceUID), by="command")
        self._spool.take(
            file_of(data_set, scanned),
            scanned,
            calling_ae_title=_caller(event.assoc).calling_ae_title,
        )
        return 0x0000

    def _record_instance_refused(self, event: Event, error: InstanceError) -> None:
        caller = _caller(event.assoc)
        uid = UID(str(cast(C_STORE, event.request).AffectedSOPInstanceUID))
        details: dict[str, JsonValue] = {
            "reason": error.reason,
            "status": f"{error.status:04X}",
            "sentence": str(error),
            "calling_ae_title": caller.calling_ae_title,
            "address": caller.address,
        }
        try:
            self._audit.record(
                AuditEvent.INSTANCE_REFUSED, uid if uid.is_valid else "no UID", details
            )
        except RebrainError as failure:
            _LOG.error("audit log unavailable: %s", failure)

    def _on_abort(self, event: Event) -> None:
        caller = _caller(event.assoc)
        suppressed = self._limiter.due((caller, "ABORT"))
        if suppressed is not None:
            self._audit.record(
                AuditEvent.ASSOCIATION_ABORTED,
                caller.calling_ae_title,
                {"address": caller.address, "not_told": suppressed},
            )


def file_of(data_set: bytes, scanned: ScannedInstance) -> bytes:
    """Return the DICOM file of a data set, whose bytes stay as they came (PS3.10 7.1).

    The header depends on nothing but the instance and its transfer syntax, so that the same data
    set always makes the same file, whoever sends it and whatever version receives it.
    """
    meta = _VERSION + b"".join(
        _uid_element(element, value)
        for element, value in (
            (0x0002, scanned.sop_class_uid),
            (0x0003, scanned.sop_instance_uid),
            (0x0010, scanned.transfer_syntax_uid),
            (0x0012, IMPLEMENTATION_CLASS_UID),
        )
    )
    length = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(meta))
    return b"".join((_PREAMBLE, length, meta, data_set))


def _uid_element(element: int, value: str) -> bytes:
    padded = value.encode("ascii") + b"\x00" * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, b"UI", len(padded)) + padded


def _caller(association: Association) -> Caller:
    request: A_ASSOCIATE | None = association.requestor.primitive
    return Caller.of(
        str(request.calling_ae_title if request else ""),
        str(request.called_ae_title if request else ""),
        association.requestor.address,
    )


def _status(status: int, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status = status
    answer.ErrorComment = comment.replace("\\", "/")[:_COMMENT_LENGTH]
    return answer
