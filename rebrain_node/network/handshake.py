"""The TLS handshake of a connection that a peer has made to us: done, or refused by name."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

from rebrain_node.network.certificates import PeerCertificate
from rebrain_node.network.tls import words_of

#: why a handshake failed; the audit event names it
HandshakeReason = Literal[
    "SLOW-HANDSHAKE", "NOT-TLS", "TLS-VERSION", "TLS-CIPHER", "NO-CERTIFICATE", "EXPIRED",
    "NOT-YET-VALID", "REVOKED", "REVOCATION-LIST", "UNKNOWN-AUTHORITY", "CERTIFICATE",
    "NOT-TRUSTED-THERE", "HANDSHAKE", "PEER-GONE",
]  # fmt: skip

#: what each says to the site, and what helps
HANDSHAKE_REASONS: Final[Mapping[HandshakeReason, str]] = {
    "SLOW-HANDSHAKE": (
        "the handshake took longer than receiver.tls.handshake_timeout_s; a program that connects "
        "and says nothing, or a slow network"
    ),
    "NOT-TLS": "it speaks plain DICOM on the TLS port; set it to TLS there",
    "TLS-VERSION": "it offers no version from TLS 1.2 on; update it",
    "TLS-CIPHER": "it offers no cipher suite of the profile (ECDHE with AES-GCM); update it",
    "NO-CERTIFICATE": "it presents no certificate; give it one and its key",
    "EXPIRED": "its certificate, or one that issued it, has expired; renew it there",
    "NOT-YET-VALID": "its certificate is not valid yet; check the clocks of both machines",
    "REVOKED": "its certificate is revoked; give it a new one",
    "REVOCATION-LIST": (
        "the certificate revocation list of its authority is missing or out of date; put the new "
        "list into receiver.tls.revocation_list"
    ),
    "UNKNOWN-AUTHORITY": (
        "its certificate is of no authority of receiver.tls.certificate_authority; add the "
        "authority, or let the sender use a certificate of a known one"
    ),
    "CERTIFICATE": "its certificate is not accepted; issue one for the authentication of clients",
    "NOT-TRUSTED-THERE": (
        "it does not accept the certificate of this node; enter the authority of "
        "receiver.tls.certificate there, and the host name under which it calls"
    ),
    "HANDSHAKE": "TLS failed; see the log of the sender",
    "PEER-GONE": "it closed the connection before TLS was agreed on",
}
#: verify codes of OpenSSL (X509_V_ERR_*)
_CERTIFICATES: Final[Mapping[int, HandshakeReason]] = {
    9: "NOT-YET-VALID", 10: "EXPIRED", 23: "REVOKED",
    3: "REVOCATION-LIST", 11: "REVOCATION-LIST", 12: "REVOCATION-LIST", 33: "REVOCATION-LIST",
    2: "UNKNOWN-AUTHORITY", 18: "UNKNOWN-AUTHORITY", 19: "UNKNOWN-AUTHORITY",
    20: "UNKNOWN-AUTHORITY", 21: "UNKNOWN-AUTHORITY",
}  # fmt: skip
#: reasons of OpenSSL (SSL_R_*)
_FAILURES: Final[Mapping[str, HandshakeReason]] = {
    "WRONG_VERSION_NUMBER": "NOT-TLS", "HTTP_REQUEST": "NOT-TLS", "HTTPS_PROXY_REQUEST": "NOT-TLS",
    "PACKET_LENGTH_TOO_LONG": "NOT-TLS",
    "UNSUPPORTED_PROTOCOL": "TLS-VERSION", "VERSION_TOO_LOW": "TLS-VERSION",
    "UNKNOWN_PROTOCOL": "TLS-VERSION",
    "NO_SHARED_CIPHER": "TLS-CIPHER", "NO_SUITABLE_KEY_SHARE": "TLS-CIPHER",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "TLS-CIPHER", "NO_SHARED_GROUPS": "TLS-CIPHER",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "NO-CERTIFICATE",
    "TLSV1_ALERT_UNKNOWN_CA": "NOT-TRUSTED-THERE",
    "SSLV3_ALERT_BAD_CERTIFICATE": "NOT-TRUSTED-THERE",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "NOT-TRUSTED-THERE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "NOT-TRUSTED-THERE",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "NOT-TRUSTED-THERE",
}  # fmt: skip
#: read on after our alert so that the peer gets to see it, bytes and s
_DRAINED_BYTES, _DRAINED_S = 65_536, 1.0


class HandshakeError(Exception):
    """There is no TLS with the peer; ``reason`` says why."""

    def __init__(self, reason: HandshakeReason, detail: str) -> None:
        sentence = HANDSHAKE_REASONS[reason]
        super().__init__(f"{sentence} ({detail})" if detail else sentence)
        self.reason: HandshakeReason = reason


def shake_hands(connection: ssl.SSLSocket, seconds: float) -> PeerCertificate | None:
    """Agree on TLS with a peer; the certificate that it presented, verified, if it was asked.

    Parameters
    ----------
    seconds
        Time for the whole handshake, s.

    Raises
    ------
    HandshakeError
        There is no agreement; the peer has been sent the alert that says so.
    """
    try:
        connection.settimeout(seconds)
        connection.do_handshake()
        presented = connection.getpeercert(binary_form=True)
        certificate = None if presented is None else PeerCertificate.of(presented)
    except (OSError, ValueError) as error:
        _drain(connection)
        failure = _failure(error)
        raise failure from error
    # a resumed session of TLS 1.2 was verified when it began
    if certificate is not None and certificate.ends < datetime.now(UTC):
        raise HandshakeError("EXPIRED", "a session was resumed")
    return certificate


def _failure(error: Exception) -> HandshakeError:
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = _CERTIFICATES.get(error.verify_code, "CERTIFICATE")
        return HandshakeError(reason, str(error.verify_message))
    if isinstance(error, TimeoutError):
        return HandshakeError("SLOW-HANDSHAKE", "")
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return HandshakeError(_FAILURES.get(str(error.reason), "HANDSHAKE"), words_of(error))
    if isinstance(error, ValueError):
        return HandshakeError("CERTIFICATE", "it cannot be read")
    return HandshakeError("PEER-GONE", "")


def _drain(connection: ssl.SSLSocket) -> None:
    """Read what the peer still sends, so that its system does not drop our alert unread."""
    with contextlib.suppress(OSError, ValueError):
        socket.socket.shutdown(connection, socket.SHUT_WR)
        deadline, drained = time.monotonic() + _DRAINED_S, 0
        while drained < _DRAINED_BYTES and (left_s := deadline - time.monotonic()) > 0:
            socket.socket.settimeout(connection, left_s)
            count = len(socket.socket.recv(connection, 4096))
            if count == 0:
                return
            drained += count
