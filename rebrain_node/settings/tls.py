"""TLS of DICOM associations: certificates, who may present which, revocation (PS3.15 annex B)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from rebrain_node.settings.values import Port, Section

#: TCP port of DICOM over TLS (PS3.15 B.12; registered with IANA)
TLS_PORT: Final = 2762
_FINGERPRINT: Final = re.compile(r"(?:sha-?256(?: fingerprint)?[:=])?([0-9a-f:]+)", re.IGNORECASE)


class ReceiverTlsSettings(Section):
    """How the node listens for DICOM over TLS."""

    port: Port = Field(default=TLS_PORT, description="TCP port of DICOM over TLS")
    certificate: Path = Field(
        description="file with the certificate of this node and its intermediate ones (PEM)"
    )
    key: Path | None = Field(
        default=None,
        description="file with its key (PEM, not encrypted); none means that of the certificate",
    )
    certificate_authority: Path | None = Field(
        default=None, description="file with the certificates of the authorities of senders (PEM)"
    )
    client_certificates: Literal["required", "not asked"] = Field(
        default="required",
        description=(
            "whether a sender must present a certificate: `required`, or `not asked`, which "
            "encrypts and leaves open who sends"
        ),
    )
    revocation_list: Path | None = Field(
        default=None,
        description=(
            "file with the certificate revocation list of each authority of senders (PEM); out of "
            "date it lets nobody in"
        ),
    )
    handshake_timeout_s: float = Field(
        default=5.0, gt=0, le=60, description="seconds the TLS handshake of a connection may take"
    )

    @property
    def files(self) -> dict[str, Path]:
        """Every file by the name of its setting."""
        return _files(self, "certificate", "key", "certificate_authority", "revocation_list")

    @model_validator(mode="after")
    def _knows_whom_to_trust(self) -> Self:
        if self.client_certificates == "required" and self.certificate_authority is None:
            raise ValueError(
                "certificate_authority is missing: without it no certificate of a sender can be "
                'checked; give it, or set client_certificates = "not asked"'
            )
        if self.client_certificates != "required" and self.revocation_list is not None:
            raise ValueError(
                "revocation_list has no effect, because no sender is asked for a certificate; set "
                'client_certificates = "required", or leave it out'
            )
        return self


class RemoteTlsSettings(Section):
    """TLS to one DICOM system that the node calls."""

    certificate_authority: Path | None = Field(
        default=None,
        description="file with the certificates to trust (PEM); none means those of the machine",
    )
    certificate: Path | None = Field(
        default=None, description="file with the certificate of this node (PEM), where it is asked"
    )
    key: Path | None = Field(
        default=None,
        description="file with its key (PEM, not encrypted); none means that of the certificate",
    )
    host_name: str | None = Field(
        default=None,
        min_length=1,
        description="name or address that its certificate must carry; none means `host`",
    )
    revocation_list: Path | None = Field(
        default=None,
        description=(
            "file with the certificate revocation list of its authority (PEM); out of date it "
            "lets no connection be made"
        ),
    )

    @property
    def files(self) -> dict[str, Path]:
        """Every file by the name of its setting."""
        return _files(self, "certificate", "key", "certificate_authority", "revocation_list")

    @model_validator(mode="after")
    def _presents_what_the_key_belongs_to(self) -> Self:
        if self.key is not None and self.certificate is None:
            raise ValueError("key has no effect without certificate; give both, or leave it out")
        return self


def _files(section: Section, *names: str) -> dict[str, Path]:
    values = {name: getattr(section, name) for name in names}
    return {name: path for name, path in values.items() if path is not None}


def certificate_binding(text: str) -> str:
    """Return what binds a certificate to a sender in one spelling.

    Raises
    ------
    ValueError
        It is no fingerprint, no subject and no absolute path.
    """
    value = text.strip().removeprefix("subject=")  # as openssl prints it
    digits = _FINGERPRINT.fullmatch(value)
    if digits is not None and len(plain := digits[1].replace(":", "").lower()) == 64:
        return plain
    if value.startswith("/") or re.match(r"[A-Za-z0-9.]+\s*=", value):
        return value
    raise ValueError(
        f"{text!r} is no SHA-256 fingerprint (64 digits, 0-9 and a-f), no subject (CN=...,O=...) "
        "and no absolute path of a certificate; `openssl x509 -noout -fingerprint -sha256 -in "
        "FILE` prints the fingerprint"
    )
