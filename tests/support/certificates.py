"""Certificates for tests: an authority of its own, servers and clients signed by it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class CertificatePair:
    """Files of a certificate and its key (PEM)."""

    certificate: Path
    key: Path


class CertificateAuthority:
    """Signs certificates; its own lies in ``certificate``."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = folder / f"{name}.pem"
        signed = (
            self._builder(self._name, self._key, 3650)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        host: str = "localhost",
        days: int = 90,
        seconds: int = 300,
        client: bool = False,
        both: bool = False,
        begins_in_days: int = -4000,
        rsa_bits: int | None = None,
    ) -> CertificatePair:
        """Issue a certificate that ends in so many days, or in ``seconds``; negative: it has.

        It is a server's, a client's or for ``both``, with an elliptic key or one of ``rsa_bits``.
        """
        key = (
            ec.generate_private_key(ec.SECP256R1())
            if rsa_bits is None
            else rsa.generate_private_key(65537, rsa_bits)
        )
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH]
        if both:
            purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        authority = self._key.public_key()
        signed = (
            self._builder(subject, key, days if seconds == 300 else 0, begins_in_days, seconds)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False, encrypts=rsa_bits is not None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        pair = CertificatePair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pair.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return pair

    def revoke(self, *pairs: CertificatePair, name: str = "revoked", days: int = 30) -> Path:
        """Write a revocation list that is out of date in so many days."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - timedelta(days=4000))
            .next_update(now + timedelta(days=days, minutes=5))
        )
        for pair in pairs:
            serial = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        path = self._folder / f"{name}.crl"
        signed = builder.sign(self._key, hashes.SHA256())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return path

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
        days: int,
        begins_in_days: int = -4000,
        seconds: int = 300,
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=begins_in_days))
            .not_valid_after(now + timedelta(days=days, seconds=seconds))
        )


def fingerprint(pair: CertificatePair) -> str:
    """SHA-256 of a certificate, as the settings bind it."""
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    return certificate.fingerprint(hashes.SHA256()).hex()


def _usage(*, signs: bool, encrypts: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, content_commitment=False, key_encipherment=encrypts,
        data_encipherment=False, key_agreement=False, key_cert_sign=signs, crl_sign=signs,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
