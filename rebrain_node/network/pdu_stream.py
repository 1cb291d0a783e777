"""The PDUs of one peer (PS3.8 9.3): framing, limits and deadlines of what it sends, in one place.

The length of a PDU is held against the limit of its type before a byte of it is read, whatever
came before. A PDU that breaks a rule ends the stream: nothing is searched for behind it. One
buffer as long as the longest PDU is all the memory that a connection takes here.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

#: what ended an association that was not released; the audit event names it
EndReason = Literal[
    "PEER-ABORTED", "PEER-GONE", "SILENT", "SLOW-PDU", "PDU-TYPE", "PDU-LENGTH", "PDU-CONTENT",
    "COMMAND", "MESSAGE-LENGTH", "STOPPED",
]  # fmt: skip

ASSOCIATE_RQ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 1, 4, 5, 6, 7
RELEASE_RESPONSE: Final = struct.pack(">BxIxxxx", RELEASE_RP, 4)
_HEADER = struct.Struct(">BxI")
_VALUE_HEADER = struct.Struct(">IBB")
_SHORT_PDU_BYTES = 4  # A-RELEASE and A-ABORT are exactly so long
#: read on after our last PDU so that the peer gets to see it, bytes and s
_DRAINED_BYTES, _DRAINED_S = 262_144, 1.0
#: reason of an A-ABORT of the provider (PS3.8 table 9-26)
_ABORT_REASONS: Final = {"PDU-TYPE": 1, "PDU-LENGTH": 6, "PDU-CONTENT": 6, "COMMAND": 6}


@dataclass(frozen=True, kw_only=True)
class StreamLimits:
    """How much and how long one peer may send."""

    #: largest A-ASSOCIATE PDU, bytes; 128 contexts with 20 transfer syntaxes take 60 000
    associate_bytes: int = 65_536
    #: longest P-DATA PDU, offered in the negotiation and enforced, bytes (PS3.8 D.1)
    pdu_bytes: int = 131_072
    #: largest command set, bytes; real ones are below 1 000
    command_bytes: int = 16_384
    #: largest report of a storage commitment, bytes; 10 000 instances take 1 500 000
    report_bytes: int = 2_097_152
    #: an association that is silent so long is aborted, s
    idle_s: float = 120.0


class StreamEndError(Exception):
    """The stream of PDUs is over; ``reason`` says why."""

    def __init__(self, reason: EndReason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason: EndReason = reason


class PduStream:
    """What one peer sends, PDU by PDU.

    Parameters
    ----------
    connection
        Closed by `close` and by nobody else.
    associate_s, pdu_s
        Time for the whole association request, and for one PDU afterwards, s.
    """

    def __init__(
        self, connection: socket.socket, limits: StreamLimits, *, associate_s: float, pdu_s: float
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._associate_s = associate_s
        self._pdu_s = pdu_s
        self._buffer = bytearray(max(limits.associate_bytes, limits.pdu_bytes))
        self._header = bytearray(_HEADER.size)
        self._deadline = 0.0
        self._associated = False
        self._between_pdus = True

    def association_request(self) -> bytes:
        """Read the A-ASSOCIATE-RQ, header included; other PDUs are read from now on.

        Raises
        ------
        StreamEndError
            It did not come whole, in time and within its limit.
        """
        self._deadline = time.monotonic() + self._associate_s
        kind, body = self._pdu({ASSOCIATE_RQ: range(68, self._limits.associate_bytes + 1)})
        self._associated = True
        return _HEADER.pack(kind, len(body)) + body

    def receive(self) -> tuple[int, memoryview]:
        """Read the next PDU of an association: its type and its content, valid until the next.

        Raises
        ------
        StreamEndError
            It breaks a rule or a limit, did not come in time, or the peer is gone.
        """
        self._deadline = time.monotonic() + self._limits.idle_s
        short = range(_SHORT_PDU_BYTES, _SHORT_PDU_BYTES + 1)
        return self._pdu({P_DATA: range(6, self._limits.pdu_bytes + 1), RELEASE_RQ: short})

    def values(self, body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
        """Split the content of a P-DATA into (context, control header, fragment) (PS3.8 9.3.5).

        Raises
        ------
        StreamEndError
            The values do not fill the PDU exactly.
        """
        at, end = 0, len(body)
        while at < end:
            if at + _VALUE_HEADER.size > end:
                raise StreamEndError("PDU-CONTENT", "a presentation data value is cut")
            length, context, control = _VALUE_HEADER.unpack_from(body, at)
            stop = at + 4 + length
            if length < 2 or stop > end:
                raise StreamEndError(
                    "PDU-CONTENT", f"a presentation data value claims {length} of {end - at} bytes"
                )
            yield context, control, body[at + _VALUE_HEADER.size : stop]
            at = stop

    def send(self, pdus: bytes) -> None:
        """Send whole PDUs.

        Raises
        ------
        StreamEndError
            The peer does not take them in time, or is gone.
        """
        try:
            self._connection.settimeout(self._pdu_s)
            self._connection.sendall(pdus)
        except OSError as error:
            raise StreamEndError("PEER-GONE", "the peer takes no answer") from error

    def send_last(self, pdu: bytes, *, peer_closes: bool = True) -> None:
        """Send the last PDU and read on until the peer closes, so that it gets to see the PDU.

        Where no orderly peer is to be expected, our end is closed at once.
        """
        with contextlib.suppress(OSError):
            self._connection.settimeout(_DRAINED_S)
            self._connection.sendall(pdu)
            if not peer_closes:
                socket.socket.shutdown(self._connection, socket.SHUT_WR)
            deadline, drained = time.monotonic() + _DRAINED_S, 0
            while drained < _DRAINED_BYTES and time.monotonic() < deadline:
                count = self._connection.recv_into(self._buffer)
                if count == 0:
                    break
                drained += count

    def _pdu(self, allowed: dict[int, range]) -> tuple[int, memoryview]:
        self._between_pdus = True
        self._read(memoryview(self._header))
        kind, length = _HEADER.unpack(self._header)
        if kind == ABORT:
            raise StreamEndError("PEER-ABORTED", "the peer aborted the association")
        if kind not in allowed:
            raise StreamEndError("PDU-TYPE", f"a PDU of type {kind} where none belongs")
        if length not in allowed[kind]:
            raise StreamEndError(
                "PDU-LENGTH",
                f"a PDU of type {kind} claims {length} bytes, "
                f"{allowed[kind].start} to {allowed[kind].stop - 1} are allowed",
            )
        body = memoryview(self._buffer)[:length]
        self._read(body)
        return kind, body

    def _read(self, target: memoryview) -> None:
        """Fill the target; a PDU of an association has its deadline from its first byte on.

        Raises
        ------
        StreamEndError
            It did not come in time, or the peer is gone.
        """
        filled, end = 0, len(target)
        while filled < end:
            left_s = self._deadline - time.monotonic()
            try:
                self._connection.settimeout(max(left_s, 0))  # 0: what is there, without waiting
                count = self._connection.recv_into(target[filled:])
            except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
                if self._associated and self._between_pdus:
                    raise StreamEndError("SILENT", "the peer was silent too long") from None
                raise StreamEndError("SLOW-PDU", "the peer took too long over a PDU") from None
            except OSError as error:
                raise StreamEndError("PEER-GONE", "the connection is gone") from error
            if count == 0:
                raise StreamEndError("PEER-GONE", "the peer closed the connection")
            if self._between_pdus and self._associated:
                self._deadline = time.monotonic() + self._pdu_s
            elif left_s <= 0:
                raise StreamEndError("SLOW-PDU", "the peer took too long over a PDU")
            self._between_pdus = False
            filled += count


def abort(reason: EndReason) -> bytes:
    """Encode the A-ABORT of the provider that tells a peer why (PS3.8 9.3.8)."""
    return struct.pack(">BxIxxBB", ABORT, _SHORT_PDU_BYTES, 2, _ABORT_REASONS.get(reason, 0))
