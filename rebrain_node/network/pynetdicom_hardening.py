"""All that the node changes in pynetdicom; no other module overrides or reads its private members.

Each change says what happens without it and which issue of github.com/pydicom/pynetdicom knows of
that. ``tests/integration/test_pynetdicom_hardening.py`` takes each away and shows the symptom on
a real socket: a change whose symptom is gone in a newer pynetdicom can be deleted.

An association of pynetdicom has two threads. The DUL thread moves PDUs between the socket and
queues; the reactor thread takes messages from a queue and serves them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import socket
import socketserver
import threading
import time
from collections.abc import Sequence
from ssl import SSLContext
from typing import Any, Final, cast

import pynetdicom
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_EVENT_REPORT
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.timer import Timer
from pynetdicom.transport import (
    AddressInformation,
    AssociationServer,
    AssociationSocket,
    RequestHandler,
)

from rebrain_node.domain.statuses import STATUSES
from rebrain_node.errors import RebrainError
from rebrain_node.network.admission import UnassociatedPool
from rebrain_node.settings import Receiver

#: the only version whose private members are known to be as this module needs them
TESTED_VERSION: Final = "3.0.4"
if pynetdicom.__version__ != TESTED_VERSION:
    raise RebrainError(
        f"pynetdicom {pynetdicom.__version__} is installed, the node works with pynetdicom "
        f"{TESTED_VERSION} only because it replaces internal parts of it; install that version: "
        f"pip install pynetdicom=={TESTED_VERSION}"
    )

#: largest A-ASSOCIATE PDU accepted, bytes; 128 contexts with 20 transfer syntaxes take 60 000
MAXIMUM_ASSOCIATE_BYTES: Final = 65_536
#: maximum length of P-DATA PDUs, offered in the negotiation and enforced, bytes (PS3.8 D.1)
MAXIMUM_PDU_BYTES: Final = 131_072
#: largest command set, bytes; real ones are below 1 000
MAXIMUM_COMMAND_BYTES: Final = 16_384
#: connections that wait to be accepted, in the kernel
BACKLOG: Final = 128

# Without: pynetdicom's log quotes what a patient is called, and costs more than the reading.
# Upstream: #911.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)

# Without: a file is decoded and encoded again before it is sent, without its group lengths.
# Upstream: a documented switch.
_config.STORE_SEND_CHUNKED_DATASET = True

#: longest wait of either thread until it looks at its timers, s
WAIT_S: Final = 0.01
_CLOSING = "Sta13"  # we have sent A-ABORT or A-ASSOCIATE-RJ (PS3.8 table 9-10)
#: read on after our last PDU so that the peer gets to see it, bytes
_MAXIMUM_DRAINED_BYTES = 262_144
_LOCAL_LIMIT_EXCEEDED = b"\x03\x00\x00\x00\x00\x04\x00\x02\x03\x02"  # A-ASSOCIATE-RJ, transient
_LOG = logging.getLogger(__name__)


class MonotonicTimer(Timer):
    """Timer on the monotonic clock.

    Without: the wall clock set forward aborts every association; set back, it keeps silent ones.
    Upstream: no issue known.
    """

    @property
    def remaining(self) -> float:
        """Seconds until expiry; 1 if the timer never expires."""
        if self.timeout is None:
            return 1.0
        if self._start_time is None:
            return self.timeout
        until = time.monotonic() if self._end_time is None else self._end_time
        return self.timeout - (until - self._start_time)

    def start(self) -> None:
        """Start, or start again."""
        self._start_time, self._end_time = time.monotonic(), None

    def stop(self) -> None:
        """Stop."""
        self._end_time = time.monotonic()


class WakeSignal:
    """Ends a wait of ``select`` from another thread.

    The lock keeps a late call from touching a descriptor that already serves another purpose.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Descriptor that ``select`` waits for; negative once closed."""
        return self._descriptor

    def set(self) -> None:
        """End the wait, or the next one."""
        with self._lock:
            if self._descriptor >= 0:
                os.eventfd_write(self._descriptor, 1)

    def clear(self) -> None:
        """Let the next wait be one."""
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._descriptor >= 0:
                os.eventfd_read(self._descriptor)

    def close(self) -> None:
        """Close the descriptor."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)


class WakingQueue(queue.Queue[Any]):
    """Queue of what is to be sent; a new item ends the wait of the thread that sends.

    Without: every answer waits until the DUL thread's wait for the peer ends. Upstream: no issue
    known; pynetdicom polls instead (#650, #651, #120).
    """

    def __init__(self, wake_up: WakeSignal) -> None:
        super().__init__()
        self._wake_up = wake_up

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item and wake the DUL thread."""
        super().put(item, block, timeout)
        self._wake_up.set()


class LeakFreeSocket(AssociationSocket):
    """Socket that is closed also when ``shutdown`` fails because the peer closed or reset first."""

    def _shutdown_socket(self) -> None:
        """Shut down and close.

        Without: the descriptor stays open until Python collects cyclic garbage. Upstream: #979,
        #806; #999 does not help where ``shutdown`` raises.
        """
        connection = self.socket
        super()._shutdown_socket()
        if connection is not None:
            connection.close()


class GuardedSocket(LeakFreeSocket):
    """Reads PDUs of bounded size in bounded time, and not faster than they are served."""

    def __init__(self, association: Association, connection: socket.socket, limits: Receiver):
        super().__init__(association, client_socket=connection)
        self._limits = limits
        self._deadline = 0.0
        self._in_pdu = False
        self._drained = 0
        self.wake_up = WakeSignal()

    @property
    def ready(self) -> bool:
        """Wait for a PDU, or for something to be sent; whether a PDU is to be read now.

        Without: a sender that does not wait for answers fills the memory (here nothing is read
        while a message waits to be served), and the thread polls 1000 times a second. Upstream:
        no issue known for the first, #60 and #650 for the second.
        """
        connection = self.socket
        if connection is None or self._drained > _MAXIMUM_DRAINED_BYTES:
            return False
        watched: list[WakeSignal | socket.socket] = [self.wake_up]
        if self.assoc.dimse.msg_queue.empty():
            watched.append(connection)
        try:
            wait_s = WAIT_S if self.event_queue.empty() else 0.0
            readable, _, _ = select.select(watched, [], [], wait_s)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False
        self.wake_up.clear()
        return connection in readable

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly so many bytes: first the header of a PDU, then its rest.

        Without: a PDU may claim 4 GB and is collected, and the rest of a PDU is awaited without
        limit, also after A-ABORT. Upstream: #272 for the wait, no issue known for the size.

        Raises
        ------
        ConnectionError
            The PDU is too long or too slow, or the peer is gone.
        """
        if not self._in_pdu:
            self._deadline = time.monotonic() + self._time_allowed_s()
        elif nr_bytes > self._bytes_allowed():
            self.event_queue.put("Evt19")  # invalid PDU: A-ABORT (PS3.8 9.2.3)
            raise ConnectionError(f"a PDU claims {nr_bytes} bytes, {self._bytes_allowed()} allowed")
        content = self._read(nr_bytes)
        if self.assoc.dul.state_machine.current_state == _CLOSING:
            self._drained += nr_bytes
        self._in_pdu = not self._in_pdu
        return content

    def _shutdown_socket(self) -> None:
        """Close, and end the wait of the reactor thread for an association request.

        Without: the reactor thread outlives its connection until the deadline of the request, so
        that a storm of connections leaves a storm of threads. Upstream: no issue known.
        """
        super()._shutdown_socket()
        self.wake_up.close()
        if self.assoc.requestor.primitive is None:
            self.assoc.dul.to_user_queue.put(cast(Any, None))

    def _time_allowed_s(self) -> float:
        if self.assoc.is_established:
            return self._limits.pdu_timeout_s
        return self._limits.association_timeout_s

    def _bytes_allowed(self) -> int:
        return MAXIMUM_PDU_BYTES if self.assoc.is_established else MAXIMUM_ASSOCIATE_BYTES

    def _read(self, nr_bytes: int) -> bytearray:
        connection = self.socket
        if connection is None:
            raise ConnectionError("closed")
        content = bytearray(nr_bytes)
        view, filled = memoryview(content), 0
        while filled < nr_bytes:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0:
                raise ConnectionError("the peer took too long over a PDU")
            connection.settimeout(left_s)
            count = connection.recv_into(view[filled:])
            if count == 0:
                raise ConnectionError("the peer is gone")
            filled += count
        connection.settimeout(None)
        return content


class GuardedDimse(DIMSEServiceProvider):
    """Collects messages of bounded size; knows C-STORE, C-ECHO and N-EVENT-REPORT only."""

    def __init__(self, association: Association, maximum_message_bytes: int) -> None:
        super().__init__(association)
        self._maximum_message_bytes = maximum_message_bytes
        self._message_bytes = 0
        self._command_bytes = 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Add one P-DATA to the message; a complete one waits to be served (PS3.8 annex E).

        Without: a message grows without limit, and each N-EVENT-REPORT starts a thread. Upstream:
        no issue known for the first, #379 chose the second.
        """
        try:
            self._receive(primitive)
        except Exception as error:  # noqa: BLE001 - whatever the bytes do, this association ends
            _LOG.warning("message refused: %s", type(error).__name__)
            self.message = None
            self.dul.event_queue.put("Evt19")

    def _receive(self, primitive: P_DATA) -> None:
        for _, fragment in primitive.presentation_data_value_list:
            self._message_bytes += len(fragment)
            self._command_bytes += len(fragment) if fragment[0] & 1 else 0
        if self._message_bytes > self._maximum_message_bytes:
            raise OverflowError
        if self._command_bytes > MAXIMUM_COMMAND_BYTES:
            raise OverflowError
        if self.message is None:
            self.message = DIMSEMessage()
        if not self.message.decode_msg(primitive, self.assoc):
            return
        message, self.message = self.message, None
        self._message_bytes = self._command_bytes = 0
        request = message.message_to_primitive()
        if not isinstance(request, C_STORE | C_ECHO | N_EVENT_REPORT) or request.MessageID is None:
            raise TypeError
        self.msg_queue.put((cast(int, message.context_id), request))

    def get_msg(self, block: bool = False) -> tuple[Any, Any]:  # noqa: ARG002 - pynetdicom's signature
        """Return the next message; an incomplete C-STORE request is answered here.

        Without: a request without SOP Instance UID is dropped and its sender waits for an answer
        until its timeout. Upstream: no issue known.
        """
        self._discard_wake_up()
        try:
            context_id, request = self.msg_queue.get(timeout=WAIT_S)
        except queue.Empty:
            return None, None
        cast(GuardedSocket, self.dul.socket).wake_up.set()
        if context_id is None or not isinstance(request, C_STORE) or request.is_valid_request:
            return context_id, request
        answer = C_STORE()
        answer.MessageIDBeingRespondedTo = request.MessageID
        answer.AffectedSOPClassUID = request.AffectedSOPClassUID
        answer.AffectedSOPInstanceUID = request.AffectedSOPInstanceUID
        answer.Status = STATUSES["INCOMPLETE-COMMAND"].status
        comment = "INCOMPLETE-COMMAND: a required element is missing"
        answer.ErrorComment = cast(None, comment)  # pynetdicom annotates None
        self.send_msg(answer, context_id)
        return None, None

    def _discard_wake_up(self) -> None:
        """Drop the None of ``_shutdown_socket`` where the request came at the same moment."""
        waiting = self.dul.to_user_queue
        if not waiting.empty() and self.dul.peek_next_pdu() is None:
            waiting.get_nowait()


class GuardedHandler(RequestHandler):
    """Makes a guarded association of a connection."""

    server: GuardedServer

    def _create_association(self) -> Association:
        """Replace the parts of an association by the guarded ones.

        Without: none of the classes above is in use. Upstream: no way to choose them; the
        millisecond that ``_run_loop_delay`` adds to each answer is known as #650, #651, #120.
        """
        association = super()._create_association()
        dul, limits = association.dul, self.server.limits
        association.dimse = GuardedDimse(association, limits.maximum_message_bytes)
        dul.socket = connection = GuardedSocket(association, self.request, limits)
        dul.event_queue.get_nowait()  # the socket that is replaced announced the connection too
        dul.to_provider_queue = WakingQueue(connection.wake_up)
        dul._run_loop_delay = 0.0  # noqa: SLF001 - GuardedSocket.ready waits instead
        dul.artim_timer = MonotonicTimer(association.acse_timeout)
        dul._idle_timer = MonotonicTimer(association.network_timeout)  # noqa: SLF001 - no public way
        association.bind(evt.EVT_REQUESTED, _support_what_is_asked_for, [self.server.offered])
        self.server.unassociated.add(association)
        return association


class GuardedServer(AssociationServer):
    """Accepts connections; those that do not associate share a bounded number of places."""

    #: Without: the kernel keeps 5 connections and lets the others wait for a second SYN.
    #: Upstream: no issue known.
    request_queue_size = BACKLOG

    def __init__(self, entity: AE, *arguments: Any, limits: Receiver, **keywords: Any) -> None:
        """Take the contexts out of reach of ``RequestHandler``.

        Without: all contexts are copied for each connection, which takes 25 ms. Upstream: #16.
        """
        self.limits = limits
        self.unassociated = UnassociatedPool(limits)
        keywords["request_handler"] = GuardedHandler
        super().__init__(entity, *arguments, **keywords)
        self.offered, self.contexts = self.contexts, []

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - socketserver's signature
        """Close the connection that gives way to a new one, where the places are taken.

        Without: connections that never associate exhaust the threads. Upstream: no issue known.
        """
        displaced = self.unassociated.make_room(client_address[0])
        if displaced is not None:
            _hang_up(displaced, _LOCAL_LIMIT_EXCEEDED)
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        """Note that a connection could not be served; it is closed.

        Without: socketserver prints a traceback past the log. Upstream: no issue known.
        """
        _LOG.exception("connection not served")

    def shutdown(self) -> None:
        """Stop accepting and close every connection.

        Without: ``ValueError``, because ``AE.make_server`` does not enter the server into the list
        that it is removed from, and open associations go on. Upstream: no issue known.
        """
        socketserver.TCPServer.shutdown(self)
        self.server_close()
        for association in self.active_associations:
            if association.is_established:
                association.abort()
            else:
                _hang_up(association)
        for association in self.active_associations:
            association.join(timeout=5)


def _hang_up(association: Association, last_pdu: bytes = b"") -> None:
    """Close a connection from outside its threads; they notice and end."""
    connection = association.dul.socket
    if connection is not None and connection.socket is not None:
        with contextlib.suppress(OSError):
            connection.socket.send(last_pdu, socket.MSG_DONTWAIT)
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)


def _support_what_is_asked_for(event: Event, offered: Sequence[PresentationContext]) -> None:
    """Support, of all contexts offered, those that this peer asks for."""
    request = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
    asked = {each.abstract_syntax for each in request.presentation_context_definition_list}
    event.assoc.acceptor.supported_contexts = [
        each for each in offered if each.abstract_syntax in asked
    ]


class Requestor(AE):
    """Application entity that requests associations through ``LeakFreeSocket``."""

    def _create_socket(
        self,
        assoc: Association,
        address: AddressInformation,
        tls_args: tuple[SSLContext, str] | None,
    ) -> AssociationSocket:
        """Without: see ``LeakFreeSocket``. Upstream: no way to choose the class."""
        connection = LeakFreeSocket(assoc, address=address)
        connection.tls_args = tls_args
        return connection


class ReactorPause(threading.Event):
    """Keeps the reactor thread of an association that we requested from taking answers.

    Without: the reactor now and then takes an answer that ``send_c_store`` waits for, which then
    ends in a timeout: pynetdicom pauses the reactor for each request (#351, #435), but believes a
    flag of the pause before. Here the pause begins once and lasts until ``end``.
    """

    def __init__(self, association: Association) -> None:
        """Wait until the reactor stands still, or has ended."""
        super().__init__()
        self._reached = threading.Event()
        association._reactor_checkpoint = self  # noqa: SLF001 - no public way
        while not self._reached.wait(0.01) and association.is_alive():
            pass

    def wait(self, timeout: float | None = None) -> bool:
        """Stand still: called by the reactor at its checkpoint."""
        self._reached.set()
        return super().wait(timeout)

    def set(self) -> None:
        """Do nothing: called by pynetdicom after each request."""

    def end(self) -> None:
        """Let the reactor go on, to its end."""
        super().set()
