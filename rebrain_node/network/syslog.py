"""Audit messages to a collector: syslog (RFC 5424) in frames over TLS (RFC 5425), or loopback TCP.

Syslog has no acknowledgement. So each batch has a connection of its own, which the node closes for
writing: the collector has read everything before it answers with its own end (RFC 5425 section
4.4). Only then is a batch taken; a connection that breaks before is one that failed, and the batch
is sent again.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import ssl
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Final

from rebrain_node import __version__
from rebrain_node.errors import DeliveryError, UnreachableError
from rebrain_node.network.tls import client_context, end_of_peer, fault_of
from rebrain_node.settings import AuditCollectorSettings

#: facility 10 (security), severity 5 (notice): PS3.15 A.6
_PRIORITY: Final = 10 * 8 + 5
_MESSAGE_ID: Final = "DICOM+RFC3881"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_UNFIT: Final = re.compile(r"[^\x21-\x7e]")
_READ_BYTES: Final = 4096


def syslog_message(content: bytes, at: datetime, host: str) -> bytes:
    """Write the header of RFC 5424 before an XML document in UTF-8."""
    stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    name = _UNFIT.sub("?", host)[:255] or "-"
    origin = f'[origin software="rebrain-node" swVersion="{__version__}"]'
    header = (
        f"<{_PRIORITY}>1 {stamp} {name} rebrain-node {os.getpid()} {_MESSAGE_ID} {origin} "
    ).encode("ascii")
    return header + _BYTE_ORDER_MARK + content


def framed(message: bytes) -> bytes:
    """Write the length of a message before it (RFC 5425 section 4.3)."""
    return str(len(message)).encode("ascii") + b" " + message


class SyslogCollector:
    """One collector of audit messages (port ``AuditCollector``)."""

    def __init__(self, settings: AuditCollectorSettings) -> None:
        self._settings = settings

    @property
    def name(self) -> str:
        """Name in the settings."""
        return self._settings.name

    @property
    def _where(self) -> str:
        return f"{self._settings.role} {self.name} ({self._settings.host}:{self._settings.port})"

    def send(self, messages: Sequence[bytes]) -> None:
        """Send a batch, and wait until the collector has read all of it.

        Raises
        ------
        UnreachableError
            There is no connection: nothing was sent.
        DeliveryError
            The connection broke, or did not end in time.
        """
        with self._connected() as connection:
            try:
                for message in messages:
                    connection.sendall(framed(message))
                self._end(connection)
            except (OSError, ssl.SSLError) as error:
                raise DeliveryError(
                    f"{self._where} did not confirm that it has read the messages: "
                    f"{fault_of(error)}; they are sent again"
                ) from error

    def check(self) -> datetime | None:
        """Connect and close; return when its certificate ends, None without TLS.

        Raises
        ------
        DeliveryError
            It cannot be reached, or does not end the connection.
        """
        with self._connected() as connection:
            end = end_of_peer(connection)
            try:
                self._end(connection)
            except (OSError, ssl.SSLError) as error:
                raise DeliveryError(
                    f"{self._where} did not end the connection: {fault_of(error)}"
                ) from error
        return end

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        settings = self._settings
        try:
            connection = socket.create_connection(
                (settings.host, settings.port), settings.timeout_s
            )
        except OSError as error:
            raise UnreachableError(f"{self._where} cannot be reached: {fault_of(error)}") from error
        with connection:
            if settings.protocol == "tcp":
                yield connection
                return
            context = client_context(
                settings.certificate_authority, settings.client_certificate, settings.client_key
            )
            try:
                secure = context.wrap_socket(connection, server_hostname=settings.host)
            except (OSError, ssl.SSLError) as error:
                raise UnreachableError(
                    f"{self._where} cannot be reached: {fault_of(error)}"
                ) from error
            with secure:
                yield secure

    def _end(self, connection: socket.socket) -> None:
        """Say that no more comes, wait for the end of the collector, and see that it has read all.

        A collector that closes with something unread resets the connection, and what reaches it
        after its close is not acknowledged by TCP.

        Raises
        ------
        TimeoutError
            It did not end in time.
        ConnectionError
            It broke, or not everything was read.
        """
        deadline = time.monotonic() + self._settings.timeout_s
        if isinstance(connection, ssl.SSLSocket):
            with suppress(ssl.SSLEOFError):  # it may end without a word of TLS
                connection = connection.unwrap()
        with suppress(OSError):  # it has ended already
            connection.shutdown(socket.SHUT_WR)
        while connection.recv(_READ_BYTES):
            if time.monotonic() > deadline:
                raise TimeoutError
        unread = int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        if unread > 1:  # the node's own end counts as one
            raise ConnectionError(f"it ended the connection with {unread} bytes unread")
