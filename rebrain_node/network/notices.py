"""Ways to tell people what needs them: a webhook (HTTPS) and mail (SMTP with STARTTLS)."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog

from rebrain_node.domain.notice import Notice
from rebrain_node.domain.text import utc
from rebrain_node.errors import DeliveryError, SettingsError
from rebrain_node.network.tls import client_context, fault_of
from rebrain_node.settings import MailSettings, WebhookSettings

SIGNATURE_HEADER: Final = "X-Rebrain-Signature"
_LOG = structlog.get_logger("notice")


class WebhookChannel:
    """Posts notices as JSON (port ``NoticeChannel``)."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings

    @property
    def name(self) -> str:
        """Name in the settings."""
        return self._settings.name

    def send(self, notice: Notice) -> None:
        """Post a notice, signed; any answer of 200 to 299 means that it was taken.

        Raises
        ------
        DeliveryError
            It was not taken.
        SettingsError
            A file of the settings cannot be used.
        """
        body = json.dumps(notice.to_json() | {"sent_at": utc(datetime.now(UTC))}).encode()
        secret = _secret(self._settings.secret_file, f"secret_file of {self.name}")
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "rebrain-node",
            SIGNATURE_HEADER: f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}",
        }
        parts = urlsplit(self._settings.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = self._connection(parts.scheme, parts.hostname or "", parts.port)
        try:
            connection.request("POST", path, body, headers)
            status = connection.getresponse().status
        except (OSError, ssl.SSLError, http.client.HTTPException) as error:
            raise DeliveryError(
                f"webhook {self.name} cannot be reached: {fault_of(error)}"
            ) from error
        finally:
            connection.close()
        if not 200 <= status < 300:
            raise DeliveryError(
                f"webhook {self.name} answered HTTP {status}; see its log, and correct url or "
                "secret_file"
            )

    def _connection(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        timeout_s = self._settings.timeout_s
        if scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        context = client_context(self._settings.certificate_authority)
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)


class MailChannel:
    """Sends notices by mail (port ``NoticeChannel``)."""

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings

    @property
    def name(self) -> str:
        """Name in the settings."""
        return self._settings.name

    def send(self, notice: Notice) -> None:
        """Send a notice; it was taken once the server took it for one of the recipients.

        A recipient that the server refuses beside others is logged: to send again would reach the
        others twice.

        Raises
        ------
        DeliveryError
            It was not taken.
        SettingsError
            A file of the settings cannot be used.
        """
        settings = self._settings
        mail = EmailMessage()
        mail["From"], mail["To"] = settings.sender, ", ".join(settings.recipients)
        mail["Subject"] = notice.subject
        mail["Date"] = format_datetime(datetime.now(UTC))
        mail["Message-ID"] = make_msgid(domain=settings.sender.rpartition("@")[2])
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(notice.text)
        where = f"mail server {self.name} ({settings.host}:{settings.port})"
        try:
            with smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_s) as server:
                if settings.encryption == "starttls":
                    server.starttls(context=client_context(settings.certificate_authority))
                if settings.user is not None and settings.password_file is not None:
                    word = _secret(settings.password_file, f"password_file of {self.name}")
                    server.login(settings.user, word.decode())
                refused = server.send_message(mail)
        except smtplib.SMTPException as error:
            raise DeliveryError(f"{where} did not take the mail: {_answer(error)}") from error
        except (OSError, ssl.SSLError) as error:
            raise DeliveryError(f"{where} cannot be reached: {fault_of(error)}") from error
        if refused:
            _LOG.warning("recipients refused", server=self.name, recipients=len(refused))


def _answer(error: smtplib.SMTPException) -> str:
    """Say what a server answered, without the addresses in it."""
    match error:
        case smtplib.SMTPAuthenticationError():
            return f"code {error.smtp_code}; correct user or password_file"
        case smtplib.SMTPRecipientsRefused():
            return "all recipients were refused; correct recipients"
        case smtplib.SMTPSenderRefused() | smtplib.SMTPResponseException():
            return f"code {error.smtp_code}; ask its administrator, or correct sender"
        case smtplib.SMTPNotSupportedError():
            return "it offers no STARTTLS or no login; correct port, encryption or user"
        case _:
            return f"{type(error).__name__}; check host and port"


def _secret(path: Path, setting: str) -> bytes:
    """Read a secret.

    Raises
    ------
    SettingsError
        There is none.
    """
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"{setting} {path}: {error.strerror}; correct the path") from error
    if not content:
        raise SettingsError(f"{setting} {path} is empty; write the secret into it")
    return content
