"""Certificates and revocation lists (X.509): when they end, who presents which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from rebrain_node.errors import SettingsError

_LISTS: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_LONGEST_LABEL: Final = 128
#: attribute names that openssl writes beside those of RFC 4514
_NAMES: Final = {"emailAddress": NameOID.EMAIL_ADDRESS, "serialNumber": NameOID.SERIAL_NUMBER}


@dataclass(frozen=True, kw_only=True)
class PeerCertificate:
    """What a peer has presented, and TLS has verified."""

    fingerprint: str  #: SHA-256 of the certificate (DER), 64 digits
    subject: str  #: as RFC 4514 writes it
    ends: datetime  #: aware, UTC

    @classmethod
    def of(cls, encoded: bytes) -> PeerCertificate:
        """Read a certificate (DER)."""
        certificate = x509.load_der_x509_certificate(encoded)
        return cls(
            fingerprint=certificate.fingerprint(SHA256()).hex(),
            subject=certificate.subject.rfc4514_string(),
            ends=certificate.not_valid_after_utc,
        )

    @property
    def label(self) -> str:
        """The subject in printable characters, cut."""
        shown = "".join(c if " " <= c <= "~" else "?" for c in self.subject)
        return shown[:_LONGEST_LABEL] or "no subject"

    def is_one_of(self, bindings: Sequence[str]) -> bool:
        """Whether a fingerprint, subject or file of `receiver.peers.certificates` means it."""
        return any(self._is(each) for each in bindings)

    def _is(self, binding: str) -> bool:
        if binding.startswith("/"):
            try:
                return self.fingerprint in fingerprints(Path(binding))
            except SettingsError:
                return False
        if "=" not in binding:
            return self.fingerprint == binding
        return _name(binding) == _name(self.subject) is not None


def require_binding(binding: str) -> None:
    """Refuse what no certificate could match.

    Raises
    ------
    SettingsError
        The file cannot be read or holds no certificate, or the subject cannot be read.
    """
    if binding.startswith("/"):
        fingerprints(Path(binding))
    elif "=" in binding and _name(binding) is None:
        raise SettingsError(
            f"{binding!r} is no subject as RFC 4514 writes it; copy what `openssl x509 -noout "
            "-subject -nameopt RFC2253 -in FILE` prints after subject="
        )


def _name(text: str) -> x509.Name | None:
    try:
        return x509.Name.from_rfc4514_string(text, _NAMES)
    except ValueError:
        return None


def fingerprints(path: Path) -> frozenset[str]:
    """Return the SHA-256 of each certificate of a PEM file.

    Raises
    ------
    SettingsError
        The file cannot be read or holds no certificate.
    """
    return frozenset(each.fingerprint(SHA256()).hex() for each in _certificates(path))


def ends_in(path: Path) -> tuple[datetime, ...]:
    """Return when each certificate of a PEM file ends (aware, UTC), in the order of the file.

    Raises
    ------
    SettingsError
        The file cannot be read or holds no certificate.
    """
    return tuple(each.not_valid_after_utc for each in _certificates(path))


def revocation_list_end(path: Path) -> datetime:
    """Return when the first of the revocation lists of a PEM file is out of date (aware, UTC).

    Raises
    ------
    SettingsError
        The file cannot be read, or holds no revocation list or one that names no next one.
    """
    remedy = "give a file with certificate revocation lists (PEM)"
    try:
        content = path.read_bytes()
        lists = [x509.load_pem_x509_crl(each) for each in _LISTS.findall(content)]
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    except ValueError as error:
        raise SettingsError(f"{path} holds a broken revocation list; {remedy}") from error
    ends = [each.next_update_utc for each in lists]
    if b"BEGIN CERTIFICATE" in content:  # OpenSSL would trust it
        raise SettingsError(f"{path} holds a certificate beside revocation lists; {remedy}")
    if not ends:
        raise SettingsError(f"{path} holds no revocation list; {remedy}")
    known = [each for each in ends if each is not None]
    if len(known) < len(ends):
        raise SettingsError(f"a revocation list of {path} does not say when the next one comes")
    return min(known)


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read ({error.strerror}); give a file with certificates (PEM)"
        ) from error
    except ValueError as error:
        raise SettingsError(
            f"{path} holds no certificate; give a file with certificates (PEM)"
        ) from error
