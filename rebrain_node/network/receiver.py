"""The receiver: who may send, what is taken, and what each sender is told.

Default deny: a peer is known by its AE title, the network it calls from and, where the settings
name one, the certificate it presents, together. An
instance is acknowledged when its structure is sound, its four identities agree (presentation
context, command, data set, file meta information) and it is durable on disk and in the ledger.
docs/receiving.md lists every status a sender can see.
"""

from __future__ import annotations

import logging
import struct
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, NoReturn

from pynetdicom.presentation import PresentationContext

from rebrain_node import settings
from rebrain_node.domain.audit import Event as AuditEvent
from rebrain_node.domain.marks import IMPLEMENTATION_CLASS_UID
from rebrain_node.domain.statuses import STATUSES
from rebrain_node.domain.text import utc
from rebrain_node.errors import (
    InstanceError,
    MalformedInstanceError,
    OutOfResourcesError,
    RebrainError,
    SettingsError,
)
from rebrain_node.instance.codecs import decodable_transfer_syntaxes
from rebrain_node.instance.scan import require_class, require_instance, scan_data_set
from rebrain_node.network.acceptor import AssociationServer, Connection, DataSetTarget, Rejection
from rebrain_node.network.admission import (
    AUDIT_EVERY_S,
    REJECTIONS,
    Caller,
    RateLimiter,
    Reason,
    accepted_contexts,
    refusal,
)
from rebrain_node.network.certificates import PeerCertificate, ends_in, fingerprints
from rebrain_node.network.commitment import PUSH_MODEL, Recorder, answer_report, commitment_context
from rebrain_node.network.handshake import HandshakeError
from rebrain_node.network.messages import C_ECHO, C_STORE, Answer, Command, is_uid
from rebrain_node.network.pdu_stream import StreamEndError, StreamLimits
from rebrain_node.network.tls import TlsContext, receiver_context
from rebrain_node.ports import AuditLog, JsonValue
from rebrain_node.reception.inbox import IncomingInstance, Spool

_PREAMBLE: Final = bytes(128) + b"DICM"
_VERSION: Final = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01"
_SUCCESS: Final = Answer(status=0x0000)
_DAY_S: Final = 86_400.0
_LOG = logging.getLogger(__name__)


class Receiver:
    """Listens for associations, in threads of this process, between ``start`` and ``stop``."""

    def __init__(
        self,
        listening: settings.Receiver,
        spool: Spool,
        audit: AuditLog,
        commit: Recorder,
        limits: StreamLimits | None = None,
        certificate_days: int = 30,
    ) -> None:
        """Listen as ``listening`` says; ``commit`` records answers to storage commitment.

        Parameters
        ----------
        certificate_days
            A certificate of a sender that ends within so many days is recorded, once a day.
        """
        self._listening = listening
        self._spool = spool
        self._audit = audit
        self._commit = commit
        self._limits = limits or StreamLimits()
        self._limiter = RateLimiter(AUDIT_EVERY_S)
        self._certificate_days = certificate_days
        self._daily = RateLimiter(_DAY_S)
        self._context: TlsContext | None = None
        self._admitting = threading.Lock()
        self._acceptor: AssociationServer | None = None

    @property
    def port(self) -> int:
        """TCP port of plain DICOM.

        Raises
        ------
        RuntimeError
            It does not listen there.
        """
        return self._port(encrypted=False)

    @property
    def tls_port(self) -> int:
        """TCP port of DICOM over TLS.

        Raises
        ------
        RuntimeError
            It does not listen there.
        """
        return self._port(encrypted=True)

    def _port(self, *, encrypted: bool) -> int:
        found = None if self._acceptor is None else self._acceptor.port(encrypted=encrypted)
        if found is None:
            raise RuntimeError("the receiver does not listen on that port")
        return found

    @property
    def is_listening(self) -> bool:
        """Whether the thread that accepts connections is alive."""
        return self._acceptor is not None and self._acceptor.is_listening

    def take_peers(self, peers: tuple[settings.Peer, ...]) -> bool:
        """Admit these peers from the next association on; false where they are those before."""
        if peers == self._listening.peers:
            return False
        self._listening = self._listening.model_copy(update={"peers": peers})
        return True

    def start(self) -> None:
        """Listen; transfer syntaxes that fail the decoder's self-test are not offered.

        Raises
        ------
        OSError
            The address is in use or not of this machine.
        SettingsError
            A file of `receiver.tls` cannot be used.
        """
        offered = [*accepted_contexts(decodable_transfer_syntaxes()), commitment_context()]
        tls = self._listening.tls
        if tls is not None:
            self._context = TlsContext(
                lambda: receiver_context(tls), tls.files.values(), self._certificates_read
            )
            self._certificates_read(None)
        self._acceptor = AssociationServer(
            self._listening, offered, self, self._limits, self._context
        )

    def reload_certificates(self) -> None:
        """Read the files of `receiver.tls` again; without them nothing happens."""
        if self._context is not None:
            self._context.reload()

    def _certificates_read(self, error: SettingsError | None) -> None:
        """Record that the certificate of the node was read, or that the one before stays."""
        tls = self._listening.tls
        if tls is None:
            return
        if error is not None:
            self._record(AuditEvent.CERTIFICATE_NOT_READ, "receiver.tls", {"reason": str(error)})
            return
        details: dict[str, JsonValue] = {
            "ends": utc(ends_in(tls.certificate)[0]),
            "fingerprints": sorted(fingerprints(tls.certificate)),
        }
        self._record(AuditEvent.CERTIFICATE_READ, "receiver.tls", details)

    def stop(self) -> None:
        """Stop listening and abort what is open; what was acknowledged stays."""
        if self._acceptor is not None:
            acceptor, self._acceptor = self._acceptor, None
            acceptor.stop()
        self._spool.close()

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

    def admit(self, connection: Connection) -> Rejection | None:
        """Let an association be negotiated, or reject it; whatever fails here rejects it."""
        reason: Reason = "RESOURCES"
        try:
            caller = _caller(connection)
            refused = refusal(caller, self._listening.ae_title, self._listening.peers)
            refused = refused or self._lack_of_room(connection)
            if refused is None:
                self._watch_end(caller.certificate)
                return None
            reason = refused
            self._record_association_refused(caller, reason)
        except Exception as error:  # noqa: BLE001 - nobody gets in because a check failed
            _LOG.warning("association refused: %s", type(error).__name__)
        return REJECTIONS[reason][0]

    def begin(
        self, caller: Caller, context: PresentationContext, command: Command
    ) -> DataSetTarget:
        """Take a request whose data set follows, if it has one.

        Raises
        ------
        StreamEndError
            The request has no place in its presentation context.
        """
        if command.field == C_ECHO:
            return _Ignored(_SUCCESS)
        if command.field == C_STORE:
            return _Store(self, caller, context, command)
        if context.abstract_syntax != PUSH_MODEL:
            raise StreamEndError("COMMAND", "an event report outside of storage commitment")
        return _Report(self._commit, command, context, self._limits.report_bytes)

    def answered(self) -> None:
        """Open the file of the next instance."""
        self._spool.open_ahead()

    def ended(self, connection: Connection, end: StreamEndError) -> None:
        """Record an association that was not released, and a connection that broke a limit."""
        if connection.caller is None and end.reason == "PEER-GONE":
            return  # port scans and health checks connect and go
        caller = connection.caller or Caller.of("", "", connection.address)
        suppressed = self._limiter.due((caller, end.reason))
        if suppressed is None:
            return
        _LOG.warning("association with %s aborted: %s", caller.address, end)
        details: dict[str, JsonValue] = {
            "address": caller.address,
            "reason": end.reason,
            "not_told": suppressed,
        }
        self._record(AuditEvent.ASSOCIATION_ABORTED, caller.calling_ae_title, details)

    def not_secured(self, connection: Connection, error: HandshakeError) -> None:
        """Record that there was no TLS with a peer of the TLS port."""
        if error.reason == "PEER-GONE":
            return  # port scans and health checks connect and go
        caller = Caller.of("", "", connection.address)
        suppressed = self._limiter.due((caller.address, error.reason))
        if suppressed is None:
            return
        _LOG.warning("no TLS with %s: %s", caller.address, error)
        details: dict[str, JsonValue] = {
            "address": caller.address,
            "reason": error.reason,
            "sentence": str(error),
            "not_told": suppressed,
        }
        self._record(AuditEvent.HANDSHAKE_REFUSED, caller.address, details)

    def _watch_end(self, certificate: PeerCertificate | None) -> None:
        """Record once a day that a sender's certificate ends soon."""
        if certificate is None:
            return
        days = (certificate.ends - datetime.now(UTC)).days
        if days >= self._certificate_days or self._daily.due(certificate.fingerprint) is None:
            return
        details: dict[str, JsonValue] = {"ends": utc(certificate.ends), "days": days}
        subject = f"certificate of a sender: {certificate.label}"
        self._record(AuditEvent.CERTIFICATE_EXPIRING, subject, details)

    def _lack_of_room(self, connection: Connection) -> Reason | None:
        try:
            self._spool.require_room()
        except OutOfResourcesError:
            return "RESOURCES"
        with self._admitting:
            acceptor = self._acceptor
            if acceptor is None:
                return "RESOURCES"
            if acceptor.associations() >= self._listening.maximum_associations:
                return "ASSOCIATIONS"
            connection.associated = True
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
        remedy = ""
        if caller.certificate is not None:
            details["certificate"] = caller.certificate.fingerprint
            details["certificate_subject"] = caller.certificate.label
        if reason in {"UNKNOWN-AE", "UNKNOWN-ADDRESS", "UNKNOWN-CERTIFICATE"}:
            details["would_admit"] = caller.admitting_settings(reason)
            remedy = "; `rebrain-node peers unknown` prints the settings that admit it"
        self._audit.record(AuditEvent.ASSOCIATION_REFUSED, caller.calling_ae_title, details)
        _LOG.warning(
            "sender %s at %s refused: %s, %d more since the last such line%s",
            caller.calling_ae_title, caller.address, reason, suppressed, remedy,
        )  # fmt: skip

    def store(
        self,
        caller: Caller,
        context: PresentationContext,
        command: Command,
        arrival: IncomingInstance,
    ) -> Answer:
        """Take one instance that has come whole; what its sender is answered."""
        try:
            with arrival.data_set() as (content, start):
                scanned = scan_data_set(content, context.transfer_syntax[0], start=start)
            require_class(scanned, str(context.abstract_syntax), by="presentation context")
            require_class(scanned, command.sop_class_uid, by="command")
            require_instance(scanned, command.sop_instance_uid, by="command")
            self._spool.take(arrival, scanned, calling_ae_title=caller.calling_ae_title)
        except Exception as error:  # noqa: BLE001 - every failure is answered with a status
            return self.refuse(caller, command, error)
        return _SUCCESS

    def arrival(self, command: Command, transfer_syntax_uid: str) -> IncomingInstance:
        """Open the file of an instance that is about to come.

        Raises
        ------
        MalformedInstanceError
            The command names no instance.
        OutOfResourcesError
            There is no room.
        """
        for what, uid in (
            ("SOP class", command.sop_class_uid),
            ("SOP instance", command.sop_instance_uid),
        ):
            if not uid or not command.has_data_set:
                _refuse("INCOMPLETE-COMMAND", "a required element is missing")
            if not is_uid(uid):
                _refuse("UID", f"the {what} UID of the command is not a UID")
        header = file_header(command.sop_class_uid, command.sop_instance_uid, transfer_syntax_uid)
        return self._spool.begin(header)

    def refuse(self, caller: Caller, command: Command, error: Exception) -> Answer:
        """Record that an instance was not taken; what its sender is answered."""
        if not isinstance(error, InstanceError):
            _LOG.error("C-STORE failed", exc_info=error)
            return Answer(
                status=STATUSES["DEFECT"].status, comment="DEFECT: the node's log says more"
            )
        details: dict[str, JsonValue] = {
            "reason": error.reason,
            "status": f"{error.status:04X}",
            "sentence": str(error),
            "calling_ae_title": caller.calling_ae_title,
            "address": caller.address,
        }
        uid = command.sop_instance_uid
        self._record(AuditEvent.INSTANCE_REFUSED, uid if is_uid(uid) else "no UID", details)
        said = _FOR_PEERS.get(error.reason) or str(error)
        return Answer(status=error.status, comment=f"{error.reason}: {said}")

    def _record(self, event: AuditEvent, subject: str, details: dict[str, JsonValue]) -> None:
        try:
            self._audit.record(event, subject, details)
        except RebrainError as failure:
            _LOG.error("audit log unavailable: %s", failure)


#: what a peer is told where the sentence for the site would name paths or the database
_FOR_PEERS: Final = {
    "DISK": "the disk gave an error; try again later",
    "DISK-HARD-MARK": "the disk is full; try again later",
    "DATABASE": "the database cannot take it; try again later",
}


class _Ignored:
    """Takes a data set that changes nothing, and answers."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def write(self, fragment: memoryview) -> None:
        """Drop it."""

    def finish(self) -> Answer:
        """Answer."""
        return self._answer

    def discard(self) -> None:
        """Hold nothing."""


class _Store:
    """Takes the data set of one C-STORE into the spool."""

    def __init__(
        self, receiver: Receiver, caller: Caller, context: PresentationContext, command: Command
    ) -> None:
        self._receiver = receiver
        self._caller = caller
        self._context = context
        self._command = command
        self._arrival: IncomingInstance | None = None
        self._failure: Exception | None = None
        try:
            self._arrival = receiver.arrival(command, context.transfer_syntax[0])
        except Exception as error:  # noqa: BLE001 - answered when the data set has come
            self._failure = error

    def write(self, fragment: memoryview) -> None:
        """Write it to the file; after a failure the rest is dropped."""
        if self._arrival is None:
            return
        try:
            self._arrival.write(fragment)
        except Exception as error:  # noqa: BLE001 - answered when the data set has come
            self._failure = error
            self.discard()

    def finish(self) -> Answer:
        """Take the instance, or refuse it."""
        try:
            if self._arrival is None:
                failure = self._failure or RuntimeError("no file")
                return self._receiver.refuse(self._caller, self._command, failure)
            return self._receiver.store(self._caller, self._context, self._command, self._arrival)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the file, unless the spool has taken it."""
        if self._arrival is not None:
            self._arrival.close()
        self._arrival = None


class _Report:
    """Takes an N-EVENT-REPORT, the answer to a request for storage commitment."""

    def __init__(
        self, commit: Recorder, command: Command, context: PresentationContext, maximum: int
    ) -> None:
        self._commit = commit
        self._command = command
        self._transfer_syntax_uid = context.transfer_syntax[0]
        self._maximum_bytes = maximum
        self._content = bytearray()

    def write(self, fragment: memoryview) -> None:
        """Keep it.

        Raises
        ------
        StreamEndError
            The report is too long.
        """
        if len(self._content) + len(fragment) > self._maximum_bytes:
            raise StreamEndError(
                "MESSAGE-LENGTH", f"a report of more than {self._maximum_bytes} bytes"
            )
        self._content += fragment

    def finish(self) -> Answer:
        """Record the report."""
        try:
            status = answer_report(
                self._command.sop_class_uid,
                bytes(self._content),
                self._transfer_syntax_uid,
                self._commit,
            )
        except Exception:  # noqa: BLE001 - every failure is answered with a status
            _LOG.exception("N-EVENT-REPORT failed")
            status = 0x0110
        return Answer(status=status)

    def discard(self) -> None:
        """Forget it."""
        self._content = bytearray()


def file_header(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return what stands before the data set in the DICOM file of an instance (PS3.10 7.1).

    It depends on nothing but the instance and its transfer syntax, so that the same data set
    always makes the same file, whoever sends it and whatever version receives it.
    """
    meta = _VERSION + b"".join(
        _uid_element(element, value)
        for element, value in (
            (0x0002, sop_class_uid),
            (0x0003, sop_instance_uid),
            (0x0010, transfer_syntax_uid),
            (0x0012, IMPLEMENTATION_CLASS_UID),
        )
    )
    length = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(meta))
    return b"".join((_PREAMBLE, length, meta))


def _uid_element(element: int, value: str) -> bytes:
    padded = value.encode("ascii") + b"\x00" * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, b"UI", len(padded)) + padded


def _caller(connection: Connection) -> Caller:
    if connection.caller is None:
        raise RuntimeError("not associated")
    return connection.caller


def _refuse(reason: str, sentence: str) -> NoReturn:
    raise MalformedInstanceError(sentence, status=STATUSES[reason].status, reason=reason)
