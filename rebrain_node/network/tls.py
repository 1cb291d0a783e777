"""TLS to systems that are told something: the context, and when a certificate ends."""

from __future__ import annotations

import http.client
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from rebrain_node.errors import SettingsError


def client_context(
    authority: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Return a context of TLS 1.2 or later that checks certificate and host name.

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
    try:
        context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"certificate_authority {authority} cannot be used ({_words(error)}); give a PEM file "
            "with the certificates of the authority"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"client_certificate {certificate} with its key {key or certificate} cannot be "
                f"used ({_words(error)}); give PEM files that belong together"
            ) from error
    return context


def end_of_peer(connection: socket.socket | None) -> datetime | None:
    """Return when the certificate of the other side ends (aware, UTC); None without TLS."""
    if not isinstance(connection, ssl.SSLSocket):
        return None
    certificate = connection.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)


def certificate_end(path: Path) -> datetime:
    """Return when the first certificate of a PEM file ends (aware, UTC).

    Raises
    ------
    SettingsError
        The file cannot be read or holds no certificate.
    """
    return _certificates(path)[0].not_valid_after_utc


def authority_end(path: Path) -> datetime | None:
    """Return when the certificate of an authority ends; None where the file holds several.

    Raises
    ------
    SettingsError
        The file cannot be read or holds no certificate.
    """
    held = _certificates(path)
    return held[0].not_valid_after_utc if len(held) == 1 else None


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read ({_words(error)}); give a file with certificates (PEM)"
        ) from error
    except ValueError as error:
        raise SettingsError(
            f"{path} holds no certificate; give a file with certificates (PEM)"
        ) from error


def fault_of(error: Exception) -> str:
    """Say in words why a connection failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not accepted: {error.verify_message}; renew it there, or correct "
            "host or certificate_authority"
        )
    if isinstance(error, ssl.SSLError):
        return (
            f"TLS failed ({_words(error)}); check that it speaks TLS 1.2 or later on this port "
            "and accepts client_certificate"
        )
    if isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
        # never its text, which is what the other system has sent
        return f"its answer is no HTTP ({type(error).__name__}); check host and port"
    return f"{_words(error)}; check host, port and network"


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)
