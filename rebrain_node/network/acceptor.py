"""Associations that peers request of us (PS3.8 chapter 9, PS3.7 annex D), each in one thread.

TLS is agreed on in that thread too, so that no handshake keeps others from being accepted.
The bytes of a data set go from the buffer of the stream straight to whoever takes the message;
nothing of it is kept here. Presentation contexts are negotiated by pynetdicom.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, Protocol

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from rebrain_node.domain.marks import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from rebrain_node.network.admission import Caller, UnassociatedPool
from rebrain_node.network.certificates import PeerCertificate
from rebrain_node.network.handshake import HandshakeError, shake_hands
from rebrain_node.network.messages import (
    COMMAND,
    LAST,
    Answer,
    Command,
    CommandError,
    answer_pdus,
    read_command,
)
from rebrain_node.network.pdu_stream import (
    P_DATA,
    RELEASE_RESPONSE,
    PduStream,
    StreamEndError,
    StreamLimits,
    abort,
)
from rebrain_node.network.tls import TlsContext
from rebrain_node.settings import Receiver as ReceiverSettings

#: connections that wait to be accepted, in the kernel
BACKLOG: Final = 128
#: pause after a connection could not be accepted, e.g. for want of descriptors, s
_RETRY_S = 0.1
#: longest wait for the threads of connections when listening ends, s
_JOIN_S = 5.0
_APPLICATION_CONTEXT = UID("1.2.840.10008.3.1.1.1")
#: association requests whose answer is kept; each is at most as long as ``associate_bytes``
_REMEMBERED_REQUESTS = 32
_REJECT = struct.Struct(">BxIxBBB")  # A-ASSOCIATE-RJ (PS3.8 9.3.4)
_LOCAL_LIMIT_EXCEEDED = b"\x03\x00\x00\x00\x00\x04\x00\x02\x03\x02"  # A-ASSOCIATE-RJ, transient
_LOG = logging.getLogger(__name__)

#: result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21)
Rejection = tuple[int, int, int]


class DataSetTarget(Protocol):
    """Takes the data set of one message as it comes."""

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes; the memory is used again afterwards."""

    def finish(self) -> Answer:
        """Answer the request; the data set is whole."""

    def discard(self) -> None:
        """Forget the data set; the association ends before it is whole."""


class AssociationHandler(Protocol):
    """What the node does with associations and messages."""

    def admit(self, connection: Connection) -> Rejection | None:
        """Say how the association is rejected; None lets it be negotiated."""

    def begin(
        self, caller: Caller, context: PresentationContext, command: Command
    ) -> DataSetTarget:
        """Take a request whose data set follows."""

    def answered(self) -> None:
        """Prepare for the next request while the peer does; an answer has just been sent."""

    def ended(self, connection: Connection, end: StreamEndError) -> None:
        """Note that a connection ended otherwise than by release or rejection."""

    def not_secured(self, connection: Connection, error: HandshakeError) -> None:
        """Note that there was no TLS with a peer of the TLS port."""


class Connection:
    """One connection and, once admitted, its association."""

    def __init__(
        self,
        connection: socket.socket,
        address: str,
        acceptor: AssociationServer,
        context: TlsContext | None = None,
    ) -> None:
        """Serve a connection that was accepted; over TLS where there is a context."""
        self._socket = connection
        self._context = context
        self._replacing = threading.Lock()  # the socket, by that of TLS
        self._last_pdu: bytes | None = None
        self._acceptor = acceptor
        self.address = address
        self.certificate: PeerCertificate | None = None  #: what the peer has presented
        self.caller: Caller | None = None  #: who asked for an association
        self.associated = False
        self._stream = self._new_stream()
        self._contexts: Mapping[int, PresentationContext] = {}
        self._maximum_pdu_bytes = 0
        self.thread = threading.Thread(target=self._run, name=f"from {address}", daemon=True)

    @property
    def waiting(self) -> bool:
        """Whether it is open and has no association: not yet, or it was rejected."""
        return not self.associated and self.thread.is_alive()

    def hang_up(self, last_pdu: bytes) -> None:
        """End the connection from another thread; over TLS its own thread sends the last PDU."""
        with self._replacing, contextlib.suppress(OSError):
            if self._context is None:
                with contextlib.suppress(OSError):
                    self._socket.send(last_pdu, socket.MSG_DONTWAIT)
            elif self.associated and self._last_pdu is None:
                self._last_pdu = last_pdu
                socket.socket.shutdown(self._socket, socket.SHUT_RD)
                return
            # that of ssl would go on in plain text
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            if self._context is not None:
                self._secure(self._context)
            self._serve()
        except HandshakeError as error:
            self._acceptor.service.not_secured(self, error)
        except StreamEndError as end:
            if self._last_pdu is not None:
                self._stream.send_last(self._last_pdu, peer_closes=False)
            elif end.reason not in {"PEER-GONE", "PEER-ABORTED"}:
                self._stream.send_last(abort(end.reason), peer_closes=False)
            self._acceptor.service.ended(self, end)
        except Exception:  # noqa: BLE001 - a defect ends this connection and no other
            _LOG.exception("connection not served")
            self._stream.send_last(abort("STOPPED"), peer_closes=False)
        finally:
            self.associated = False
            self._socket.close()
            self._acceptor.forget(self)

    def _new_stream(self) -> PduStream:
        settings = self._acceptor.settings
        return PduStream(
            self._socket,
            self._acceptor.limits,
            associate_s=settings.association_timeout_s,
            pdu_s=settings.pdu_timeout_s,
        )

    def _secure(self, context: TlsContext) -> None:
        """Agree on TLS.

        Raises
        ------
        HandshakeError
            There is no agreement within the limit.
        """
        tls, settings = context.current(), self._acceptor.settings.tls
        assert settings is not None  # noqa: S101 - for the type checker: there is a context
        with self._replacing:
            secured = tls.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
            self._socket = secured
        self.certificate = shake_hands(secured, settings.handshake_timeout_s)
        self._stream = self._new_stream()

    def _serve(self) -> None:
        content = self._stream.association_request()
        called, calling = (content[at : at + 16].decode("ascii", "replace") for at in (10, 26))
        self.caller = Caller.of(calling, called, self.address, self.certificate)
        rejection = self._acceptor.service.admit(self)
        if rejection is not None:
            self._stream.send_last(_REJECT.pack(3, 4, *rejection))
            return
        self.associated = True
        try:
            agreement = self._acceptor.agree(content)
        except Exception as error:
            raise StreamEndError("PDU-CONTENT", "the association request is broken") from error
        self._contexts, self._maximum_pdu_bytes = agreement.contexts, agreement.maximum_pdu_bytes
        self._stream.send(agreement.answer)
        self._receive()

    def _receive(self) -> None:
        """Take messages until the peer releases the association."""
        message = _Message(self)
        try:
            while True:
                kind, body = self._stream.receive()
                if kind != P_DATA:
                    message.require_none()
                    self._stream.send_last(RELEASE_RESPONSE)
                    return
                for context_id, control, fragment in self._stream.values(body):
                    message.add(context_id, control, fragment)
        finally:
            message.discard()

    def begin(self, context_id: int, command: Command) -> DataSetTarget:
        """Take a request whose data set follows."""
        assert self.caller is not None  # noqa: S101 - for the type checker: it has associated
        return self._acceptor.service.begin(self.caller, self._contexts[context_id], command)

    def answer(self, context_id: int, command: Command, answer: Answer) -> None:
        """Send the answer to a request."""
        self._stream.send(answer_pdus(command, context_id, answer, self._maximum_pdu_bytes))
        self._acceptor.service.answered()

    def has_context(self, context_id: int) -> bool:
        """Whether the presentation context was accepted."""
        return context_id in self._contexts

    @property
    def maximum_command_bytes(self) -> int:
        """Largest command set, bytes."""
        return self._acceptor.limits.command_bytes

    @property
    def maximum_message_bytes(self) -> int:
        """Largest message, command and data set together, bytes."""
        return self._acceptor.settings.maximum_message_bytes


class _Message:
    """The message that a peer is sending."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._encoded = bytearray()
        self._bytes = 0
        self._context_id: int | None = None
        self._command: Command | None = None
        self._sink: DataSetTarget | None = None

    def add(self, context_id: int, control: int, fragment: memoryview) -> None:
        """Take one fragment (PS3.8 annex E).

        Raises
        ------
        StreamEndError
            It does not belong here, or the message is too long.
        """
        if self._context_id is None:
            if not self._connection.has_context(context_id):
                raise StreamEndError("COMMAND", f"context {context_id} was not accepted")
            self._context_id = context_id
        is_command, last = bool(control & COMMAND), bool(control & LAST)
        if context_id != self._context_id or is_command != (self._command is None):
            raise StreamEndError("COMMAND", "a fragment of another message")
        self._bytes += len(fragment)
        if self._bytes > self._connection.maximum_message_bytes:
            raise StreamEndError(
                "MESSAGE-LENGTH",
                f"a message of more than {self._connection.maximum_message_bytes} bytes, the "
                "largest that receiver.maximum_message_bytes allows",
            )
        if is_command:
            self._add_command(fragment, last)
        elif self._sink is not None:
            self._sink.write(fragment)
            if last:
                self._answer(self._sink.finish())

    def require_none(self) -> None:
        """Refuse a release in the middle of a message.

        Raises
        ------
        StreamEndError
            A message is incomplete.
        """
        if self._context_id is not None:
            raise StreamEndError("COMMAND", "a release in the middle of a message")

    def discard(self) -> None:
        """Forget what has come of an incomplete message."""
        if self._sink is not None:
            self._sink.discard()
        self._encoded, self._sink, self._command = bytearray(), None, None
        self._context_id, self._bytes = None, 0

    def _add_command(self, fragment: memoryview, last: bool) -> None:
        self._encoded += fragment
        if len(self._encoded) > self._connection.maximum_command_bytes:
            raise StreamEndError(
                "COMMAND",
                f"a command set of more than {self._connection.maximum_command_bytes} bytes",
            )
        if not last:
            return
        try:
            self._command = read_command(bytes(self._encoded))
        except CommandError as error:
            raise StreamEndError("COMMAND", str(error)) from error
        assert self._context_id is not None  # noqa: S101 - for the type checker: set in ``add``
        self._sink = self._connection.begin(self._context_id, self._command)
        if not self._command.has_data_set:
            self._answer(self._sink.finish())

    def _answer(self, answer: Answer) -> None:
        assert self._context_id is not None and self._command is not None  # noqa: S101,PT018 - as above
        context_id, command = self._context_id, self._command
        self._sink = None
        self.discard()
        self._connection.answer(context_id, command, answer)


@dataclass(frozen=True)
class _ListeningSocket:
    """One port; over TLS where there is a context."""

    socket: socket.socket
    context: TlsContext | None

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])


class AssociationServer:
    """Listens, and serves each connection in a thread of its own, between construction and stop."""

    def __init__(
        self,
        settings: ReceiverSettings,
        offered: Sequence[PresentationContext],
        service: AssociationHandler,
        limits: StreamLimits,
        context: TlsContext | None = None,
    ) -> None:
        """Listen at address and ports of the settings; ``context`` is that of the TLS port.

        Raises
        ------
        OSError
            An address is in use or not of this machine; ``filename`` holds the port.
        """
        self.settings = settings
        self.service = service
        self.limits = limits
        by_class = {str(each.abstract_syntax): each for each in offered}
        #: what an association request leads to; a sender repeats the same one for every study
        self.agree = lru_cache(_REMEMBERED_REQUESTS)(
            partial(_agreement, offered=by_class, pdu_bytes=limits.pdu_bytes)
        )
        self._pool: UnassociatedPool[Connection] = UnassociatedPool(settings)
        self._open: set[Connection] = set()
        self._changing = threading.Lock()
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._listeners: list[_ListeningSocket] = []
        if settings.port is not None:
            self._listeners.append(_listener(settings, settings.port))
        if settings.tls is not None and context is not None:
            try:
                self._listeners.append(_listener(settings, settings.tls.port, context))
            except OSError:
                self.stop()
                raise
        self._threads = [
            threading.Thread(target=self._listen, args=(each,), name="receiver", daemon=True)
            for each in self._listeners
        ]
        for thread in self._threads:
            thread.start()

    def port(self, *, encrypted: bool) -> int | None:
        """TCP port of plain DICOM or of TLS; None where it does not listen so."""
        ports = [one.port for one in self._listeners if (one.context is not None) == encrypted]
        return ports[0] if ports else None

    @property
    def is_listening(self) -> bool:
        """Whether every thread that accepts connections is alive."""
        return all(each.is_alive() for each in self._threads)

    def stop(self) -> None:
        """Stop listening and abort what is open."""
        self._stopped = True
        for each in self._listeners:
            with contextlib.suppress(OSError):
                each.socket.shutdown(socket.SHUT_RDWR)  # ends the wait in accept
        for thread in self._threads:
            thread.join()
        for each in self._listeners:
            each.socket.close()
        with self._changing:
            remaining = tuple(self._open)
        for connection in remaining:
            connection.hang_up(abort("STOPPED") if connection.associated else b"")
        deadline = time.monotonic() + _JOIN_S
        for connection in remaining:
            connection.thread.join(max(deadline - time.monotonic(), 0))
        for connection in remaining:
            if connection.thread.is_alive():
                connection.hang_up(b"")

    def associations(self) -> int:
        """Count the associations that are open now."""
        with self._changing:
            return sum(each.associated for each in self._open)

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is closed."""
        with self._changing:
            self._open.discard(connection)

    def _listen(self, listener: _ListeningSocket) -> None:
        while not self._stopped:
            try:
                accepted, address = listener.socket.accept()
            except OSError as error:
                if not self._stopped:
                    _LOG.error("connection not accepted: %s", error.strerror)
                    time.sleep(_RETRY_S)
                continue
            try:
                self._start(accepted, address[0], listener.context)
            except Exception:  # noqa: BLE001 - a defect ends this connection and no other
                _LOG.exception("connection not served")
                accepted.close()

    def _start(self, accepted: socket.socket, address: str, context: TlsContext | None) -> None:
        with self._changing:
            displaced = self._pool.make_room(address)
        if displaced is not None:
            displaced.hang_up(_LOCAL_LIMIT_EXCEEDED if displaced.caller is None else b"")
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(accepted, address, self, context)
        with self._changing:
            self._open.add(connection)
        try:
            connection.thread.start()
        except BaseException:
            self.forget(connection)
            raise
        with self._changing:
            self._pool.add(connection)


def _listener(
    settings: ReceiverSettings, port: int, context: TlsContext | None = None
) -> _ListeningSocket:
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    try:
        made = socket.create_server((settings.address, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(port)) from error
    return _ListeningSocket(made, context)


@dataclass(frozen=True, kw_only=True)
class _Agreement:
    """What an association agreed on."""

    contexts: Mapping[int, PresentationContext]  #: accepted ones by their ID
    maximum_pdu_bytes: int  #: longest P-DATA that the peer takes; 0: any
    answer: bytes  #: the A-ASSOCIATE-AC


def _agreement(
    content: bytes, *, offered: Mapping[str, PresentationContext], pdu_bytes: int
) -> _Agreement:
    """Answer an A-ASSOCIATE-RQ; pynetdicom raises all kinds of errors where it is broken."""
    pdu = A_ASSOCIATE_RQ()
    pdu.decode(content)
    request = pdu.to_primitive()
    contexts, roles = _negotiated(request, offered)
    accepted = A_ASSOCIATE_AC()
    accepted.from_primitive(_accepted(request, contexts, roles, pdu_bytes))
    return _Agreement(
        contexts={
            each.context_id: each
            for each in contexts
            if each.result == 0 and each.context_id is not None
        },
        maximum_pdu_bytes=request.maximum_length_received or 0,
        answer=bytes(accepted.encode()),
    )


def _negotiated(
    request: A_ASSOCIATE, offered: Mapping[str, PresentationContext]
) -> tuple[list[PresentationContext], list[SCP_SCU_RoleSelectionNegotiation]]:
    """Agree on presentation contexts; those that were not asked for would only take time."""
    asked = request.presentation_context_definition_list
    named = {str(each.abstract_syntax) for each in asked}
    roles = {
        item.sop_class_uid: (item.scu_role, item.scp_role)
        for item in request.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation) and item.sop_class_uid is not None
    }
    return negotiate_as_acceptor(asked, [offered[uid] for uid in named if uid in offered], roles)


def _accepted(
    request: A_ASSOCIATE,
    contexts: list[PresentationContext],
    roles: list[SCP_SCU_RoleSelectionNegotiation],
    maximum_pdu_bytes: int,
) -> A_ASSOCIATE:
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    version = ImplementationVersionNameNotification()
    length.maximum_length_received = maximum_pdu_bytes
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    answer = A_ASSOCIATE()
    answer.application_context_name = _APPLICATION_CONTEXT
    answer.calling_ae_title = request.calling_ae_title
    answer.called_ae_title = request.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = contexts
    answer.user_information = [length, implementation, version, *roles]
    return answer
