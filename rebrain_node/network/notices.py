"""Ways to tell people what needs them: a webhook (HTTPS) and mail (SMTP with STARTTLS)."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
from rebrain_node.network.tls import client_context, end_of_peer, fault_of
from rebrain_node.settings import MailSettings, WebhookSettings

SIGNATURE_HEADER: Final = "X-Rebrain-Signature"
#: a notice is given up after so many times `timeout_s`, however the other system goes on talking
LONGEST_EXCHANGE: Final = 4.0
_LOG = structlog.get_logger("notice")


class WebhookChannel:
    """Posts notices as JSON (port ``NoticeChannel``)."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings

    @property
    def name(self) -> str:
        """Name in the settings."""
        return self._settings.name

    def send(self, notice: Notice) -> int:
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
            with _ending(self._settings.timeout_s, lambda: connection.sock):
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
        return 0

    def check(self) -> datetime | None:
        """Read the secret and connect, sending nothing; when its certificate ends, if it has one.

        Raises
        ------
        DeliveryError
            It cannot be reached.
        SettingsError
            A file of the settings cannot be used.
        """
        _secret(self._settings.secret_file, f"secret_file of {self.name}")
        parts = urlsplit(self._settings.url)
        connection = self._connection(parts.scheme, parts.hostname or "", parts.port)
        try:
            connection.connect()
            return end_of_peer(connection.sock)
        except (OSError, ssl.SSLError) as error:
            raise DeliveryError(
                f"webhook {self.name} cannot be reached: {fault_of(error)}"
            ) from error
        finally:
            connection.close()

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

    def send(self, notice: Notice) -> int:
        """Send a notice; it was taken once the server took it for one of the recipients.

        Returns the number of recipients that the server refused beside others: to send again would
        reach the others twice.

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
        with self._logged_in("did not take the mail") as server:
            refused = len(server.send_message(mail))
        if refused:
            _LOG.warning("recipients refused", server=self.name, recipients=refused)
        return refused

    def check(self) -> datetime | None:
        """Connect and log in, sending no mail; when its certificate ends, if it has one.

        Raises
        ------
        DeliveryError
            It cannot be reached, or does not take the login.
        SettingsError
            A file of the settings cannot be used.
        """
        with self._logged_in("does not take the login") as server:
            server.ehlo_or_helo_if_needed()
            return end_of_peer(server.sock)

    @contextmanager
    def _logged_in(self, what: str) -> Iterator[_MailServer]:
        """Connect, do something, and end; ``what`` says that the server refused.

        Raises
        ------
        DeliveryError
            It cannot be reached, or refused.
        """
        settings = self._settings
        where = f"mail server {self.name} ({settings.host}:{settings.port})"
        server = _MailServer(settings)
        try:
            with _ending(settings.timeout_s, lambda: server.sock):
                self._log_in(server)
                yield server
                with suppress(smtplib.SMTPException, OSError):  # what was taken stays taken
                    server.quit()
        except smtplib.SMTPException as error:
            raise DeliveryError(f"{where} {what}: {_answer(error)}") from error
        except (OSError, ssl.SSLError) as error:
            raise DeliveryError(f"{where} cannot be reached: {fault_of(error)}") from error
        finally:
            server.close()

    def _log_in(self, server: _MailServer) -> None:
        settings = self._settings
        server.connect(settings.host, settings.port)
        if settings.encryption == "starttls":
            server.starttls(context=client_context(settings.certificate_authority))
        if settings.user is not None and settings.password_file is not None:
            server.login(settings.user, _password(settings.password_file, self.name))


class _MailServer(smtplib.SMTP):
    """An SMTP client that is not connected yet, so that its whole exchange can be ended."""

    def __init__(self, settings: MailSettings) -> None:
        super().__init__(timeout=settings.timeout_s)
        self._host = settings.host  # by which `starttls` checks the certificate


@contextmanager
def _ending(timeout_s: float, connection: Callable[[], socket.socket | None]) -> Iterator[None]:
    """End a connection after `LONGEST_EXCHANGE` times its time limit.

    The limit of a socket is for each reading, so that a system that says a little all the time
    would hold up the notices of a channel without end.

    Raises
    ------
    TimeoutError
        It was ended.
    OSError
        It failed before.
    HTTPException
        So did what the other side said.
    """
    ended = threading.Event()

    def end() -> None:
        ended.set()
        if (found := connection()) is not None:
            with suppress(OSError):
                socket.socket.shutdown(found, socket.SHUT_RDWR)  # beneath TLS

    timer = threading.Timer(LONGEST_EXCHANGE * timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if ended.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
    if ended.is_set():  # an answer that was cut may look like a whole one
        raise TimeoutError


def _answer(error: smtplib.SMTPException) -> str:
    """Say what a server answered, without the addresses in it."""
    match error:
        case smtplib.SMTPAuthenticationError():
            return f"code {error.smtp_code}; correct user or password_file"
        case smtplib.SMTPRecipientsRefused():
            codes = ", ".join(sorted({str(code) for code, _ in error.recipients.values()}))
            return f"all recipients were refused (code {codes}); correct recipients"
        case smtplib.SMTPSenderRefused() | smtplib.SMTPResponseException():
            return f"code {error.smtp_code}; ask its administrator, or correct sender"
        case smtplib.SMTPNotSupportedError():
            return "it offers no STARTTLS or no login; correct port, encryption or user"
        case _:
            return f"{type(error).__name__}; check host and port"


def _password(path: Path, name: str) -> str:
    """Read the password of a mail server.

    Raises
    ------
    SettingsError
        There is none, or it holds what no login takes.
    """
    content = _secret(path, f"password_file of {name}")
    if not content.isascii():
        raise SettingsError(
            f"password_file of {name} {path} holds characters that are not ASCII, which SMTP "
            "cannot carry here; set another password"
        )
    return content.decode()


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
