"""TLS contexts of the node: 1.2 or later, suites of RFC 9325, files that may change while it runs.

References
----------
PS3.15 B.12 (BCP 195, RFC 8996 and RFC 9325, Secure Transport Connection Profile).
"""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeVar

from rebrain_node.errors import RebrainError, SettingsError
from rebrain_node.network.certificates import revocation_list_end
from rebrain_node.settings import ReceiverTlsSettings, RemoteTlsSettings

#: suites of TLS 1.2: ephemeral keys, authenticated encryption (RFC 9325 4.2); 112 bits at least
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
_LOG = logging.getLogger(__name__)
Report = Callable[[SettingsError | None], None]
AnyContext = TypeVar("AnyContext", bound=ssl.SSLContext)


class TlsSocket(ssl.SSLSocket):
    """Socket of TLS that tells records with data from others, and keeps the error of TLS."""

    failure: OSError | None = None  #: why there is no TLS
    _ahead: bytes | None = None  #: read to see whether there is data

    def do_handshake(self, block: bool = False) -> None:
        """Keep the error.

        Raises
        ------
        OSError
            There is no agreement.
        """
        try:
            super().do_handshake(block)
        except OSError as error:
            self.failure = error
            raise

    def has_data(self) -> bool:
        """Whether `recv` would return at once."""
        if self._ahead is None:
            limit_s = self.gettimeout()
            self.settimeout(0)
            try:
                self._ahead = super().recv(1)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError as error:  # in TLS 1.3 a refusal of our certificate comes so late
                self.failure, self._ahead = error, b""
            finally:
                self.settimeout(limit_s)
        return True

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Read, first what `has_data` has read; nothing once the connection has failed."""
        ahead, self._ahead = self._ahead, b"" if self.failure is not None else None
        return super().recv(buflen, flags) if ahead is None else ahead


class TlsContext:
    """A context made of files: made again once one has changed, kept where it cannot be."""

    def __init__(
        self, make: Callable[[], ssl.SSLContext], files: Iterable[Path], report: Report
    ) -> None:
        """Make it; ``report`` is called after each later attempt, with the error if it failed.

        Raises
        ------
        SettingsError
            A file cannot be used.
        """
        self._make = make
        self._files = tuple(files)
        self._report = report
        self._changing = threading.Lock()
        self._seen = self._look()
        self._context = make()

    def current(self) -> ssl.SSLContext:
        """Return the context for a new connection; those that are open keep theirs."""
        if self._look() != self._seen:
            self._read(forced=False)
        return self._context

    def reload(self) -> None:
        """Make it again, changed or not."""
        self._read(forced=True)

    def _read(self, *, forced: bool) -> None:
        with self._changing:
            seen = self._look()
            if seen == self._seen and not forced:
                return  # another connection was first
            failure: SettingsError | None = None
            try:
                self._context = self._make()
                _LOG.info("certificate files read again")
            except Exception as error:  # noqa: BLE001 - whatever is in them, the one before stays
                failure = (
                    error
                    if isinstance(error, SettingsError)
                    else SettingsError(f"a certificate file cannot be read ({error})")
                )
                _LOG.error("certificate files not read again, the ones before stay: %s", failure)
            self._seen = seen
        try:
            self._report(failure)
        except RebrainError as error:
            _LOG.error("audit log unavailable: %s", error)

    def _look(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(_mark(path) for path in self._files)


def _mark(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def receiver_context(tls: ReceiverTlsSettings) -> ssl.SSLContext:
    """Make the context in which the receiver takes connections.

    Raises
    ------
    SettingsError
        A file cannot be used.
    """
    context = restricted(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    context.num_tickets = 0  # in TLS 1.3 each connection has its certificate verified
    _load_own(context, tls.certificate, tls.key)
    if tls.client_certificates == "required" and tls.certificate_authority is not None:
        _trust(context, tls.certificate_authority)
        context.verify_mode = ssl.CERT_REQUIRED
        _revoke(context, tls.revocation_list)
    return context


def client_context(
    authority: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return a context that checks certificate and host name of the server.

    Parameters
    ----------
    authority : Path, optional
        File with the certificates to trust instead of those of the machine.
    certificate, key : Path, optional
        Files of the certificate of this node and its key (PEM).

    Raises
    ------
    SettingsError
        A file cannot be read or is no certificate.
    """
    context = restricted(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    if authority is None:
        context.load_default_certs()
    else:
        _trust(context, authority)
    if certificate is not None:
        _load_own(context, certificate, key)
    return context


def end_of_peer(connection: socket.socket | None) -> datetime | None:
    """Return when the certificate of the other side ends (aware, UTC); None without TLS."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    certificate = connection.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)


def remote_context(tls: RemoteTlsSettings) -> ssl.SSLContext:
    """Return the context for a connection to a DICOM system; its files are read when they change.

    Raises
    ------
    SettingsError
        A file cannot be used, and none could be before.
    """
    return _remote(tls).current()


@lru_cache
def _remote(tls: RemoteTlsSettings) -> TlsContext:
    def make() -> ssl.SSLContext:
        context = client_context(tls.certificate_authority, tls.certificate, tls.key)
        context.sslsocket_class = TlsSocket
        _revoke(context, tls.revocation_list)
        return context

    return TlsContext(make, tls.files.values(), lambda _: None)


def restricted(context: AnyContext) -> AnyContext:
    """Allow what the profile allows, and the same with every version of Python."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _trust(context: ssl.SSLContext, authority: Path) -> None:
    try:
        context.load_verify_locations(authority)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"certificate_authority {authority} cannot be used ({words_of(error)}); give a PEM "
            "file with the certificates of the authority"
        ) from error


def _load_own(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(certificate, key, password="")  # never ask a terminal
    except (OSError, ssl.SSLError) as error:
        unnamed = isinstance(error, ssl.SSLError) and not error.reason
        words = "no PEM, or the key is encrypted" if unnamed else words_of(error)
        raise SettingsError(
            f"certificate {certificate} with its key {key or certificate} cannot be used "
            f"({words}); give PEM files that belong together, the key not encrypted"
        ) from error


def _revoke(context: ssl.SSLContext, revocation_list: Path | None) -> None:
    if revocation_list is None:
        return
    revocation_list_end(revocation_list)  # a certificate in its place would be trusted
    try:
        context.load_verify_locations(revocation_list)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"revocation_list {revocation_list} cannot be used ({words_of(error)}); give a PEM "
            "file with the certificate revocation list of the authority"
        ) from error
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


#: alerts by which a peer refuses our certificate (RFC 8446 6.2)
_REFUSALS: Final[Mapping[str, str]] = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "none was presented",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it is revoked",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it is of a kind that is not taken there",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it is not valid there",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it is not accepted there",
    "TLSV1_ALERT_UNKNOWN_CA": "its authority is not known there",
}


def fault_of(error: Exception) -> str:
    """Say in words why a connection failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not accepted: {error.verify_message}; renew it there, or correct "
            "host or certificate_authority"
        )
    if isinstance(error, ssl.SSLError):
        refused = _REFUSALS.get(str(error.reason))
        if refused is not None:
            return (
                f"it does not accept the certificate of this node: {refused}; give certificate and "
                "key that it accepts, or have its authority entered there"
            )
        return (
            f"TLS failed ({words_of(error)}); check that it speaks TLS 1.2 or later on this port "
            "and accepts the certificate of this node"
        )
    if isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
        # never its text, which is what the other system has sent
        return f"its answer is no HTTP ({type(error).__name__}); check host and port"
    return f"{words_of(error)}; check host, port and network"


def words_of(error: Exception) -> str:
    """Name an error of a connection in lower case."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)
