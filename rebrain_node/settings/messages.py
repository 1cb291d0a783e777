"""Who is told: audit collectors, webhooks and mail servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from rebrain_node.settings.remotes import TlsRemote
from rebrain_node.settings.values import (
    LOOPBACK,
    MailAddress,
    Port,
    RemoteName,
    Section,
    WebUrl,
    text_of,
)


class AuditCollectorSettings(TlsRemote):
    """One system that collects DICOM audit messages (syslog)."""

    role: ClassVar[str] = "audit collector"

    port: Port = Field(default=6514, description="TCP port")
    protocol: Literal["tls", "tcp"] = Field(
        default="tls",
        description="`tls` (RFC 5425), or `tcp` without encryption, on this machine only",
    )
    client_certificate: Path | None = Field(
        default=None, description="file with the certificate of this node (PEM), where it is asked"
    )
    client_key: Path | None = Field(
        default=None, description="file with its key; none means the file of the certificate"
    )

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        if self.protocol == "tcp" and not self.is_on_this_machine:
            raise ValueError(
                f"protocol of {self.name} must be tls: audit messages are not sent unencrypted to "
                f"{self.host}; tcp is for a collector on this machine (127.0.0.1)"
            )
        if self.client_key is not None and self.client_certificate is None:
            raise ValueError(f"{self.name} has a client_key and no client_certificate; give both")
        return self


class AuditMessageSettings(Section):
    """DICOM audit messages made from the audit log (PS3.15 A.5)."""

    site: str | None = Field(
        default=None, min_length=1, max_length=64, description="Audit Enterprise Site ID"
    )
    patient_id: Literal["withhold", "include"] = Field(
        default="withhold",
        description=(
            "whether messages hold the Patient ID of a study, read from its stored instances; "
            "a name never stands in one"
        ),
    )
    collectors: tuple[AuditCollectorSettings, ...] = Field(
        default=(),
        description=(
            "systems that collect the messages ([audit messages](audit-messages.md)); a new one is "
            "sent what happens from the next start of the node on"
        ),
    )


class WebhookSettings(Section):
    """One URL to which notices are posted."""

    name: RemoteName = Field(description="name used in the audit log")
    url: Annotated[
        WebUrl,
        text_of(
            r"https?://\S+",
            "must be a URL that begins with https:// (or http:// on this machine)",
        ),
    ] = Field(description="where notices are posted as JSON; redirections are not followed")
    secret_file: Path = Field(
        description=(
            "file with the secret of the signature (HMAC-SHA256); read before each request"
        )
    )
    certificate_authority: Path | None = Field(
        default=None, description="file with the certificates to trust instead of the usual ones"
    )
    timeout_s: float = Field(default=30.0, gt=0, le=600, description="seconds to wait for it")

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        if self.url.startswith("http:") and urlsplit(self.url).hostname not in LOOPBACK:
            raise ValueError(
                f"url of {self.name} must begin with https: only a server on this machine may be "
                "reached by http"
            )
        return self


class MailSettings(TlsRemote):
    """One mail server and who gets notices through it."""

    role: ClassVar[str] = "mail server"

    port: Port = Field(default=587, description="TCP port of submission")
    encryption: Literal["starttls", "none"] = Field(
        default="starttls", description="`starttls`, or `none` on this machine only"
    )
    sender: MailAddress = Field(description="address that mails come from")
    recipients: tuple[MailAddress, ...] = Field(min_length=1, description="addresses that get them")
    user: (
        Annotated[str, text_of(r"[!-~][ -~]*", "must be printable ASCII, as the login takes it")]
        | None
    ) = Field(default=None, description="user name, where the server asks for one")
    password_file: Path | None = Field(
        default=None, description="file with its password; read before each mail"
    )

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        if self.encryption == "none" and not self.is_on_this_machine:
            raise ValueError(
                f"encryption of {self.name} must be starttls: only a server on this machine "
                "(127.0.0.1) may be reached without it"
            )
        if (self.user is None) != (self.password_file is None):
            raise ValueError(f"{self.name} needs both user and password_file, or neither")
        return self


class NoticeSettings(Section):
    """Who is told what needs attention."""

    pause_minutes: float = Field(
        default=15.0,
        ge=0,
        le=1440,
        description=(
            "shortest time between two notices of one channel, minutes; what happens meanwhile is "
            "gathered in the next one"
        ),
    )
    certificate_days: int = Field(
        default=30,
        ge=1,
        le=365,
        description="days before its end from which on a certificate is a reason for a notice",
    )
    webhooks: tuple[WebhookSettings, ...] = Field(
        default=(), description="URLs to which notices are posted ([notices](notices.md))"
    )
    mails: tuple[MailSettings, ...] = Field(default=(), description="mail servers for notices")
