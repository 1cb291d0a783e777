"""Transport guard: what a peer may cost before it is known, and afterwards.

pynetdicom waits without limit for the rest of a PDU, believes any length, collects a message
without end and starts a thread for every event report; a dozen half-open connections lock it out.
Here every PDU has a size and a deadline, every message a sum, every address a share. Limits are
in docs/receiving.md; each has a test with a real socket.
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
from dataclasses import dataclass
from typing import Any, Final, cast

from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

#: largest A-ASSOCIATE PDU taken, bytes; 128 contexts with 20 transfer syntaxes each take 60 000
MAXIMUM_ASSOCIATE_BYTES: Final = 65_536
#: maximum length of P-DATA PDUs, offered in the negotiation and enforced, bytes (PS3.8 D.1)
MAXIMUM_PDU_BYTES: Final = 131_072
#: largest command set, bytes; real ones are below 1 000
MAXIMUM_COMMAND_BYTES: Final = 16_384
#: answer to a C-STORE request whose command set lacks something, e.g. the SOP Instance UID
INCOMPLETE_COMMAND: Final = 0xC110
#: connections the kernel holds until they are accepted
BACKLOG: Final = 128
#: an association that is silent so long is aborted, s
IDLE_TIMEOUT_S: Final = 120.0

# Its own log lines cost more than the reading and may quote what a patient is called.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)

#: longest time between two looks at timers and at what the peer may have asked for, s
_LOOK_S: Final = 0.01
_CLOSING = "Sta13"  # we have said A-ABORT or A-ASSOCIATE-RJ (PS3.8 table 9-10)
#: read on after our last word so that the peer gets to see it, bytes
_MAXIMUM_DRAINED_BYTES = 262_144
_LOCAL_LIMIT_EXCEEDED = b"\x03\x00\x00\x00\x00\x04\x00\x02\x03\x02"  # A-ASSOCIATE-RJ, transient
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GuardLimits:
    """What the site decides about the transport."""

    maximum_unassociated: int
    maximum_unassociated_per_address: int
    maximum_message_bytes: int
    pdu_timeout_s: float  #: whole PDU, once associated
    association_timeout_s: float  #: whole association request


class MonotonicTimer(Timer):
    """pynetdicom's timer on the monotonic clock: setting the clock neither ends nor stops it."""

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
        """What ``select`` waits for; negative once closed."""
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
        """Give the descriptor back."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)


class WakingQueue(queue.Queue[Any]):
    """A queue of what is to be sent; something new ends the wait of the thread that sends."""

    def __init__(self, wake_up: WakeSignal) -> None:
        super().__init__()
        self._wake_up = wake_up

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add and wake."""
        super().put(item, block, timeout)
        self._wake_up.set()


class GuardedSocket(AssociationSocket):
    """Reads PDUs of bounded size within a bounded time, and not faster than they are served."""

    def __init__(self, association: Association, connection: socket.socket, limits: GuardLimits):
        super().__init__(association, client_socket=connection)
        self._limits = limits
        self._deadline = 0.0
        self._in_pdu = False
        self._drained = 0
        self.wake_up = WakeSignal()

    @property
    def ready(self) -> bool:
        """Wait for a PDU, or for something to be sent, and say whether a PDU should be read now.

        A message that waits to be served holds the peer up: nothing more is read.
        """
        connection = self.socket
        if connection is None or self._drained > _MAXIMUM_DRAINED_BYTES:
            return False
        held_up = not self.assoc.dimse.msg_queue.empty()
        watched: list[WakeSignal | socket.socket] = [self.wake_up]
        if not held_up:
            watched.append(connection)
        try:
            found, _, _ = select.select(watched, [], [], _LOOK_S)
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed
            return False
        self.wake_up.clear()
        return connection in found

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly so many bytes: first the header of a PDU, then its rest.

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
        """Close, also when the peer was faster, and end a wait for its association request.

        Without that a descriptor leaks, and the association's thread outlives its connection.
        """
        connection = self.socket
        super()._shutdown_socket()
        if connection is not None:
            connection.close()
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
    """Collects messages of bounded size and knows C-STORE and C-ECHO only."""

    def __init__(self, association: Association, maximum_message_bytes: int) -> None:
        super().__init__(association)
        self._maximum_message_bytes = maximum_message_bytes
        self._message_bytes = 0
        self._command_bytes = 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Add one P-DATA to the message; a complete one waits to be served (PS3.8 annex E)."""
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
        if not isinstance(request, C_STORE | C_ECHO) or request.MessageID is None:
            raise TypeError
        self.msg_queue.put((cast(int, message.context_id), request))

    def get_msg(self, block: bool = False) -> tuple[Any, Any]:  # noqa: ARG002 - pynetdicom's signature
        """Return the next message; an incomplete C-STORE request is answered here.

        pynetdicom drops a request without SOP Instance UID and lets the sender wait.
        """
        self._forget_wake_up()
        try:
            context_id, request = self.msg_queue.get(timeout=_LOOK_S)
        except queue.Empty:
            return None, None
        cast(GuardedSocket, self.dul.socket).wake_up.set()
        if context_id is None or not isinstance(request, C_STORE) or request.is_valid_request:
            return context_id, request
        answer = C_STORE()
        answer.MessageIDBeingRespondedTo = request.MessageID
        answer.AffectedSOPClassUID = request.AffectedSOPClassUID
        answer.AffectedSOPInstanceUID = request.AffectedSOPInstanceUID
        answer.Status = INCOMPLETE_COMMAND
        self.send_msg(answer, context_id)
        return None, None

    def _forget_wake_up(self) -> None:
        """Drop a wake-up that came when the association had just been requested."""
        waiting = self.dul.to_user_queue
        if not waiting.empty() and self.dul.peek_next_pdu() is None:
            waiting.get_nowait()


class GuardedHandler(RequestHandler):
    """Makes a guarded association of a connection."""

    server: GuardedServer

    def _create_association(self) -> Association:
        association = super()._create_association()
        association.dimse = GuardedDimse(association, self.server.limits.maximum_message_bytes)
        connection = GuardedSocket(association, self.request, self.server.limits)
        association.dul.socket = connection
        association.dul.event_queue.get_nowait()  # the first socket announced the connection too
        association.dul.to_provider_queue = WakingQueue(connection.wake_up)
        association.dul._run_loop_delay = 0.0  # noqa: SLF001 - the socket waits instead
        association.bind(evt.EVT_REQUESTED, _offer, [self.server.offered])
        association.dul.artim_timer = MonotonicTimer(association.acse_timeout)
        association.dul._idle_timer = MonotonicTimer(association.network_timeout)  # noqa: SLF001 - no public way
        self.server.admitted(association)
        return association


class GuardedServer(AssociationServer):
    """Accepts connections; those that do not associate share a bounded number of places.

    When the places are taken, the longest waiting connection of the address that holds most
    gives way: a flood displaces itself, and a sender that associates at once is served.
    """

    request_queue_size = BACKLOG

    def __init__(
        self, entity: ApplicationEntity, *arguments: Any, limits: GuardLimits, **keywords: Any
    ) -> None:
        self.limits = limits
        self._waiting: list[Association] = []  # oldest first
        keywords["request_handler"] = GuardedHandler
        super().__init__(entity, *arguments, **keywords)
        # pynetdicom copies all of them for each connection, which takes 25 ms
        self.offered, self.contexts = self.contexts, []

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - socketserver's signature
        """Make a place for one more connection that has not associated."""
        self._waiting = [each for each in self._waiting if _is_waiting(each)]
        address = client_address[0]
        same = [each for each in self._waiting if _address(each) == address]
        if len(same) >= self.limits.maximum_unassociated_per_address:
            self._displace(same[0])
        elif len(self._waiting) >= self.limits.maximum_unassociated:
            self._displace(self._oldest_of_the_busiest_address())
        return True

    def admitted(self, association: Association) -> None:
        """Count a new connection."""
        self._waiting.append(association)

    def stop(self) -> None:
        """Stop listening and close every connection."""
        self.shutdown()
        for association in self.active_associations:
            if association.is_established:
                association.abort()
            else:
                _hang_up(association)
        for association in self.active_associations:
            association.join(timeout=5)

    def shutdown(self) -> None:
        """Stop accepting (pynetdicom's own also asks its entity to forget the server)."""
        socketserver.TCPServer.shutdown(self)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        """Note that a connection could not be served; it is closed."""
        _LOG.exception("connection not served")

    def _oldest_of_the_busiest_address(self) -> Association:
        held: dict[str, list[Association]] = {}
        for each in self._waiting:
            held.setdefault(_address(each), []).append(each)
        return max(held.values(), key=len)[0]

    def _displace(self, association: Association) -> None:
        self._waiting.remove(association)
        _hang_up(association, _LOCAL_LIMIT_EXCEEDED)


def _hang_up(association: Association, last_word: bytes = b"") -> None:
    """Close a connection from outside its threads; they notice and end."""
    connection = association.dul.socket
    if connection is not None and connection.socket is not None:
        with contextlib.suppress(OSError):
            connection.socket.send(last_word, socket.MSG_DONTWAIT)
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)


def _offer(event: Event, offered: Sequence[PresentationContext]) -> None:
    """Support, of all contexts offered, those that this peer asks for."""
    request = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
    asked = {each.abstract_syntax for each in request.presentation_context_definition_list}
    event.assoc.acceptor.supported_contexts = [
        each for each in offered if each.abstract_syntax in asked
    ]


def _is_waiting(association: Association) -> bool:
    return association.is_alive() and association.requestor.primitive is None


def _address(association: Association) -> str:
    return str(association.requestor.address)
