"""Notices reach a real mail server and a real HTTPS server: signed, gathered, without a patient."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rebrain_node.app.certificates import certificate_ends
from rebrain_node.app.compose import open_state
from rebrain_node.app.messages import begin_queue
from rebrain_node.cli import program
from rebrain_node.demonstration.running_node import free_port
from rebrain_node.domain.audit import AuditEvent, ChainVerdict, Event
from rebrain_node.domain.notice import LISTED, SENTENCES, notice_of
from rebrain_node.errors import DeliveryError, SettingsError
from rebrain_node.network.notices import SIGNATURE_HEADER, MailChannel, WebhookChannel
from rebrain_node.settings import (
    MailSettings,
    Settings,
    Storage,
    WebhookSettings,
    load_settings,
)
from rebrain_node.worker.notices import NoticeLoop
from rebrain_node.worker.self_check import SelfCheckLoop
from tests.support.certificates import CertificateAuthority
from tests.support.outbox_node import OutboxNode, outbox_node

SECRET = b"a secret of the site"
SERIES = "1.2.840.113619.2.55.3.1"
UNKNOWN = {
    "address": "192.0.2.9", "called_ae_title": "REBRAIN", "reason": "UNKNOWN-AE", "not_told": 0,
    "would_admit": "...",
}  # fmt: skip


class HookServer:
    """An HTTPS server that keeps what is posted, and answers as it is told to."""

    def __init__(self, authority: CertificateAuthority, **issue: Any) -> None:
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.status = 204
        pair = authority.issue("hook", **issue)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.posts.append((dict(self.headers), body))
                self.send_response(hook.status)
                self.send_header("Location", "https://elsewhere.example.org/")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def get_request(self):
                connection, address = self.socket.accept()
                return context.wrap_socket(connection, server_side=True), address

            def handle_error(self, request, client_address):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"https://localhost:{self.server.server_port}/rebrain?room=ct"

    @contextmanager
    def running(self) -> Iterator[HookServer]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


@pytest.fixture
def authority(tmp_path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path)


@pytest.fixture
def hook(authority) -> Iterator[HookServer]:
    with HookServer(authority).running() as server:
        yield server


@pytest.fixture
def node() -> Iterator[OutboxNode]:
    with outbox_node() as opened:
        opened.queue.begin(["notices:chat", "notices:mail"])
        yield opened


def webhook(tmp_path: Path, hook: HookServer, **changes: Any) -> WebhookChannel:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    values = {"name": "chat", "url": hook.url, "secret_file": secret}
    trusted = {"certificate_authority": tmp_path / "authority.pem"}
    return WebhookChannel(WebhookSettings(**(values | trusted | changes)))


def loop_of(node: OutboxNode, channel: Any, pause_s: float = 900.0) -> NoticeLoop:
    return NoticeLoop(
        queue=node.queue,
        audit=node.audit,
        channel=channel,
        node="REBRAIN",
        pause_s=pause_s,
        clock=lambda: node.now_s,
    )


def body_of(hook: HookServer, number: int = -1) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(hook.posts[number][1])
    return answer


def event(name: str, subject: str, number: int = 1, **details: Any) -> AuditEvent:
    now = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC)
    return AuditEvent(
        sequence=number, recorded_at=now, monotonic_ns=1, event=name, subject=subject,
        details=details, hash="0" * 64,
    )  # fmt: skip


def test_a_webhook_gets_a_signed_notice_of_what_needs_a_person(node, hook, tmp_path):
    node.audit.record(Event.DELIVERY_REFUSED, "pacs", {"set": 1, "reason": "A700"})
    node.audit.record(Event.STEP_COMPLETED, SERIES, {"step": "locate", "seconds": 1})
    node.audit.record(Event.WORKITEM_REFUSED, SERIES, {})
    assert loop_of(node, webhook(tmp_path, hook)).send_next()
    headers, body = hook.posts[0]
    right = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    assert headers[SIGNATURE_HEADER] == f"sha256={right}"
    answer = body_of(hook)
    assert [(i["event"], i["count"]) for i in answer["items"]] == [
        ("delivery.refused", 1), ("workitem.refused", 1),
    ]  # fmt: skip
    assert (answer["events"], answer["held_back"]) == (2, 0)
    assert SERIES not in body.decode()
    (sent,) = node.audit.events(9, event=Event.NOTICE_SENT)
    assert (sent.subject, sent.details["events"]) == ("chat", 2)


def test_what_happens_within_the_pause_is_gathered_with_its_count(node, hook, tmp_path):
    loop = loop_of(node, webhook(tmp_path, hook))
    node.audit.record(Event.WORKITEM_REFUSED, SERIES, {})
    assert loop.send_next()
    for number in range(40):
        node.audit.record(Event.ASSOCIATION_REFUSED, f"ROGUE{number}", UNKNOWN)
        node.audit.record(Event.DELIVERY_REFUSED, "pacs", {"set": number})
        assert not loop.send_next()
    node.now_s += 900.0
    assert loop.send_next()
    assert len(hook.posts) == 2
    answer = body_of(hook)
    assert answer["events"] == 80
    assert len(answer["items"]) == LISTED
    assert answer["held_back"] == 80 - sum(item["count"] for item in answer["items"]) == 21
    assert {"delivery.refused": 40}.items() <= {
        item["event"]: item["count"] for item in answer["items"]
    }.items()
    node.now_s += 900.0
    assert not loop.send_next()  # its own events need nobody


def test_a_restart_does_not_end_the_pause(node, hook, tmp_path):
    for _ in range(3):
        node.audit.record(Event.PROCESS_RESTARTED, "worker-1", {"silent_s": 11})
        loop_of(node, webhook(tmp_path, hook)).send_next()
    assert len(hook.posts) == 1
    loop = loop_of(node, webhook(tmp_path, hook))
    assert not loop.send_next()
    node.now_s += 900.0
    assert loop.send_next()
    assert body_of(hook)["events"] == 2


def test_a_test_of_an_operator_begins_no_pause(node, hook, tmp_path):
    details = {"events": 1, "listed": 1, "first": 0, "last": 0, "operator": "mtra"}
    node.audit.record(Event.NOTICE_SENT, "chat", details)
    node.audit.record(Event.PROCESS_RESTARTED, "worker-1", {"silent_s": 11})
    assert loop_of(node, webhook(tmp_path, hook)).send_next()


def test_a_notice_that_is_not_taken_is_tried_again_with_what_came_since(node, hook, tmp_path):
    loop = loop_of(node, webhook(tmp_path, hook))
    node.audit.record(Event.WORKITEM_REFUSED, SERIES, {})
    hook.status = 302
    assert not loop.send_next()
    assert not loop.send_next()  # not before a pause
    assert len(hook.posts) == 1
    node.audit.record(Event.STORAGE_LOW, "storage", {"free_bytes": 1})
    hook.status = 204
    # a restart keeps what is to be told
    assert loop_of(node, webhook(tmp_path, hook)).send_next()
    assert [i["event"] for i in body_of(hook)["items"]] == ["workitem.refused", "storage.low"]
    (failed,) = node.audit.events(9, event=Event.NOTICE_FAILED)
    assert "answered HTTP 302" in failed.details["reason"]


@pytest.mark.parametrize(
    ("issue", "words"),
    [({"days": -1}, "has expired"), ({"host": "other.example.org"}, "Hostname mismatch")],
)
def test_a_webhook_with_a_wrong_certificate_gets_nothing(authority, tmp_path, issue, words):
    with HookServer(authority, **issue).running() as hook:
        with pytest.raises(DeliveryError, match=words):
            webhook(tmp_path, hook).send(notice_of("REBRAIN", [event("series.failed", SERIES)]))
        assert hook.posts == []


def test_a_missing_or_empty_secret_is_named(hook, tmp_path):
    notice = notice_of("REBRAIN", [event("series.failed", SERIES)])
    with pytest.raises(SettingsError, match=r"secret_file of chat .*No such file"):
        webhook(tmp_path, hook, secret_file=tmp_path / "none").send(notice)
    (tmp_path / "empty").touch()
    with pytest.raises(SettingsError, match="is empty; write the secret"):
        webhook(tmp_path, hook, secret_file=tmp_path / "empty").send(notice)


class MailKeeper:
    """What a mail server of aiosmtpd does with a mail."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.refused = ""

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - its name in aiosmtpd
        if address == self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - its name in aiosmtpd
        self.mails.append((envelope, session.ssl is not None))
        return "250 taken"


@contextmanager
def mail_server(authority: CertificateAuthority, **options: Any) -> Iterator[tuple[Any, int]]:
    controller_module = pytest.importorskip("aiosmtpd.controller")
    pair = authority.issue("mail")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    keeper = MailKeeper()
    values = {"tls_context": context, "require_starttls": True} | options
    controller = controller_module.Controller(
        keeper, hostname="127.0.0.1", port=free_port(), **values
    )
    controller.start()
    try:
        yield keeper, controller.port
    finally:
        controller.stop()


def mail_channel(tmp_path: Path, port: int, **changes: Any) -> MailChannel:
    values = {
        "name": "mail", "host": "localhost", "port": port, "sender": "rebrain@example.org",
        "recipients": ("it@example.org", "duty@example.org"),
        "certificate_authority": tmp_path / "authority.pem",
    }  # fmt: skip
    return MailChannel(MailSettings(**(values | changes)))


def test_a_mail_goes_over_starttls_to_all_recipients(node, authority, tmp_path):
    with mail_server(authority) as (keeper, port):
        node.audit.record(Event.DESTINATION_UNREACHABLE, "pacs", {"failures": 5, "reason": "x"})
        assert loop_of(node, mail_channel(tmp_path, port)).send_next()
    ((envelope, encrypted),) = keeper.mails
    assert encrypted
    assert envelope.rcpt_tos == ["it@example.org", "duty@example.org"]
    text = envelope.content.decode()
    assert "Subject: rebrain-node REBRAIN: 1 event needs you" in text
    assert "Auto-Submitted: auto-generated" in text
    assert "1 x destination.unreachable, pacs: it does not answer" in text


def test_a_mail_server_that_refuses_one_recipient_has_taken_the_mail(authority, tmp_path):
    notice = notice_of("REBRAIN", [event("series.failed", SERIES)])
    with mail_server(authority) as (keeper, port):
        keeper.refused = "it@example.org"
        assert mail_channel(tmp_path, port).send(notice) == 1
        assert keeper.mails[0][0].rcpt_tos == ["duty@example.org"]
        channel = mail_channel(tmp_path, port, recipients=("it@example.org",))
        with pytest.raises(DeliveryError, match="all recipients were refused"):
            channel.send(notice)


def test_a_mail_server_without_starttls_gets_nothing(authority, tmp_path):
    notice = notice_of("REBRAIN", [event("series.failed", SERIES)])
    with mail_server(authority, tls_context=None, require_starttls=False) as (keeper, port):
        with pytest.raises(DeliveryError, match="offers no STARTTLS"):
            mail_channel(tmp_path, port).send(notice)
        mail_channel(tmp_path, port, encryption="none").send(notice)
    assert len(keeper.mails) == 1


def test_a_mail_server_of_another_authority_gets_nothing(authority, tmp_path):
    notice = notice_of("REBRAIN", [event("series.failed", SERIES)])
    other = CertificateAuthority(tmp_path, "other").certificate
    refused = pytest.raises(DeliveryError, match="certificate is not accepted")
    with mail_server(authority) as (keeper, port), refused:
        mail_channel(tmp_path, port, certificate_authority=other).send(notice)
    assert keeper.mails == []


@contextmanager
def talker(answer: Any) -> Iterator[int]:
    """A server on this machine that gives each connection to ``answer``; its port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            with suppress(OSError):
                answer(self.rfile, self.wfile)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def endlessly(part: bytes) -> Any:
    def answer(_, stream):
        for _ in range(500):
            stream.write(part)
            time.sleep(0.02)

    return answer


NOTICE = notice_of("REBRAIN", [event("series.failed", SERIES)])


@pytest.mark.parametrize("part", [b"HTTP/1.1 100 Continue\r\n\r\n", b"H"])
def test_a_webhook_whose_answer_does_not_end_is_given_up(tmp_path, part):
    (tmp_path / "secret").write_bytes(SECRET)
    with talker(endlessly(part)) as port:
        values = {"name": "chat", "url": f"http://127.0.0.1:{port}/", "timeout_s": 0.1}
        channel = WebhookChannel(WebhookSettings(secret_file=tmp_path / "secret", **values))
        begun = time.monotonic()
        with pytest.raises(DeliveryError, match="no answer in time"):
            channel.send(NOTICE)
    assert time.monotonic() - begun < 5.0


def test_what_a_server_says_that_speaks_no_http_stands_in_no_reason(tmp_path):
    (tmp_path / "secret").write_bytes(SECRET)

    def babble(request, stream):
        while request.readline().strip():
            pass
        stream.write(b"Doe^Jane\r\n")

    with talker(babble) as port:
        values = {"name": "chat", "url": f"http://127.0.0.1:{port}/"}
        channel = WebhookChannel(WebhookSettings(secret_file=tmp_path / "secret", **values))
        with pytest.raises(DeliveryError, match="is no HTTP") as caught:
            channel.send(NOTICE)
    assert "Doe" not in str(caught.value)


def plain_mail(port: int, **changes: Any) -> MailChannel:
    values = {
        "name": "mail", "host": "127.0.0.1", "port": port, "sender": "rebrain@example.org",
        "recipients": ("it@example.org",), "encryption": "none", "timeout_s": 0.1,
    }  # fmt: skip
    return MailChannel(MailSettings(**(values | changes)))


def test_a_mail_server_whose_answer_does_not_end_is_given_up():
    with talker(endlessly(b"220-wait\r\n")) as port:
        begun = time.monotonic()
        with pytest.raises(DeliveryError, match="no answer in time"):
            plain_mail(port).send(NOTICE)
    assert time.monotonic() - begun < 5.0


def test_a_mail_that_was_taken_is_not_sent_again_for_a_wrong_answer_to_quit():
    answers = {b"DATA": b"354 go\r\n", b"QUIT": b"421 too late\r\n"}

    def smtp(stream, out):
        out.write(b"220 ready\r\n")
        while line := stream.readline():
            out.write(answers.get(line.strip().upper(), b"250 ok\r\n"))
            if line.strip().upper() == b"DATA":
                while stream.readline() != b".\r\n":
                    pass
                out.write(b"250 taken\r\n")

    with talker(smtp) as port:
        assert plain_mail(port, timeout_s=5.0).send(NOTICE) == 0


def test_a_password_that_no_login_takes_is_named_without_its_characters(tmp_path):
    (tmp_path / "word").write_text("pässwort")

    def smtp(stream, out):
        out.write(b"220 ready\r\n")
        while stream.readline():
            out.write(b"250-ready\r\n250 AUTH PLAIN\r\n")

    with talker(smtp) as port:
        channel = plain_mail(port, user="node", password_file=tmp_path / "word", timeout_s=5.0)
        with pytest.raises(SettingsError, match="not ASCII") as caught:
            channel.send(NOTICE)
    assert "ä" not in str(caught.value)


def test_whatever_fails_on_the_way_to_a_channel_is_a_failure_that_status_shows(node):
    class Broken:
        name = "chat"

        def send(self, notice):
            raise UnicodeError("Doe^Jane")

    node.audit.record(Event.PROCESS_RESTARTED, "worker-1", {"silent_s": 11})
    assert not loop_of(node, Broken()).send_next()
    state = next(each for each in node.queue.states() if each.reader == "notices:chat")
    assert (state.failures, "UnicodeError" in str(state.reason)) == (1, True)
    assert "Doe" not in str(state.reason)


def config_of(tmp_path: Path, hook: HookServer, **changes: Any) -> Path:
    (tmp_path / "secret").write_bytes(SECRET)
    path = tmp_path / "node.toml"
    path.write_text(
        f'[storage]\nfolder = "{tmp_path}"\n[[notices.webhooks]]\nname = "chat"\n'
        f'url = "{hook.url}"\nsecret_file = "{tmp_path}/secret"\n'
        f'certificate_authority = "{tmp_path}/authority.pem"\n'
    )
    return path


def run(config: Path, *arguments: str) -> Any:
    return CliRunner().invoke(program, [*arguments, "--config", str(config)])


def test_the_command_sends_a_test_to_each_channel_and_says_what_failed(hook, tmp_path):
    config = config_of(tmp_path, hook)
    with open_state(Settings(storage=Storage(folder=tmp_path))) as state:
        good = run(config, "notify", "test")
        assert good.exit_code == 0, good.output
        assert body_of(hook)["test"] is True
        hook.status = 500
        bad = run(config, "notify", "test", "chat", "--json")
        assert bad.exit_code == 1
        assert "HTTP 500" in json.loads(bad.stdout)["channels"][0]["reason"]
        events = state.audit.events(9)
    assert [e.event for e in events] == [Event.NOTICE_SENT, Event.NOTICE_FAILED]
    assert all(e.details["operator"] for e in events)
    wrong = run(config, "notify", "test", "mail")
    assert isinstance(wrong.exception, SettingsError)
    assert "there are: chat" in str(wrong.exception)


def test_status_says_that_a_channel_is_behind_and_why(hook, tmp_path):
    config = config_of(tmp_path, hook)
    settings = load_settings(config)
    with open_state(settings) as state:
        begin_queue(settings, state)
        state.audit.record(Event.SERIES_FAILED, SERIES, {})
        state.audit_queue.failed("notices:chat", "webhook chat answered HTTP 500")
        words = run(config, "status", "--late-after", "0").stdout
        answer = json.loads(run(config, "status", "--late-after", "0", "--json").stdout)
    assert "1 events to be told, 1 failed attempts: webhook chat answered HTTP 500" in words
    assert answer["audit_queue"][0]["rows"] == 1
    assert "notices:chat could not be told" in answer["checks"]["audit-queue"]


@pytest.mark.parametrize("name", sorted(SENTENCES))
def test_no_notice_names_a_uid_or_what_somebody_wrote(name):
    details = {
        "reason": "Doe^Jane 4711", "sentence": "Doe^Jane", "findings": ["4711"], "days": 3,
        "would_admit": "Doe^Jane", "set": 1, "address": "4711",
    }  # fmt: skip
    notice = notice_of("REBRAIN", [event(name, SERIES, **details)])
    assert notice is not None
    for text in (notice.text, notice.subject, json.dumps(notice.to_json())):
        assert not any(word in text for word in ("Doe", "4711", SERIES))


def test_a_name_of_a_sender_brings_no_line_into_a_mail():
    hostile = "X\r\nBcc: a@example.org\x1b[31m" + "A" * 100
    notice = notice_of("REBRAIN", [event("association.refused", hostile, would_admit="...")])
    assert notice is not None
    assert len(notice.text.splitlines()) == 2
    assert "\x1b" not in notice.text


@pytest.mark.parametrize("reason", ["ASSOCIATIONS", "CALLED-AE"])
def test_a_sender_that_is_known_needs_nobody(reason):
    assert notice_of("REBRAIN", [event("association.refused", "PACS", reason=reason)]) is None


def self_check(node: OutboxNode, **changes: Any) -> SelfCheckLoop:
    values: dict[str, Any] = {
        "audit": node.audit, "folder": node.folder, "soft_mark_bytes": 0,
        "verify": lambda: ChainVerdict(intact=True, rows=1, head=""),
        "certificates": {}, "certificate_days": 30,
    }  # fmt: skip
    return SelfCheckLoop(**(values | changes))


def test_a_disk_that_runs_low_is_recorded_once_and_so_is_its_end(node):
    full = self_check(node, soft_mark_bytes=1 << 60)
    for check in (full, full, self_check(node), self_check(node), full):
        check.look_at_disk()
    assert [e.event for e in node.audit.events(9)] == [
        "storage.low", "storage.free", "storage.low",
    ]  # fmt: skip


def test_a_certificate_near_its_end_is_recorded(node, authority):
    now = datetime.now(UTC)

    def broken() -> datetime:
        raise SettingsError("no certificate")

    ends = {
        "broken": broken, "ends": lambda: now + timedelta(days=3, hours=1),
        "later": lambda: now + timedelta(days=300), "none": lambda: None,
    }  # fmt: skip
    self_check(node, certificates=ends).look_at_certificates(now)
    (found,) = node.audit.events(9)
    assert (found.subject, found.details["days"]) == ("ends", 3)


def test_an_audit_log_that_is_broken_is_recorded_once(node):
    verdict = ChainVerdict(intact=False, rows=4, head="", broken_sequence=5, reason="is missing")
    for _ in range(2):
        self_check(node, verify=lambda: verdict).look_at_log()
    (found,) = node.audit.events(9, event=Event.AUDIT_BROKEN)
    assert (found.subject, found.details["reason"]) == ("row 5", "is missing")


def test_the_certificates_of_the_settings_are_looked_at(authority, tmp_path):
    client = authority.issue("client", client=True, days=5)
    several = tmp_path / "several.pem"
    several.write_bytes(2 * authority.certificate.read_bytes())
    arr = {"name": "arr", "host": "127.0.0.1", "protocol": "tcp"}
    files = {"certificate_authority": several, "client_certificate": client.certificate}
    chat = {"name": "chat", "url": "https://h/x", "secret_file": tmp_path / "secret"}
    settings = Settings.model_validate(
        {
            "audit_messages": {"collectors": [arr | files]},
            "notices": {"webhooks": [chat | {"certificate_authority": authority.certificate}]},
        }
    )
    days = {
        name: end and (end - datetime.now(UTC)).days
        for name, end in ((n, end_of()) for n, end_of in certificate_ends(settings).items())
    }
    assert days == {
        "certificate_authority of arr": None,  # of several it is not known which is in use
        "client_certificate of arr": 5,
        "certificate_authority of chat": 3650,
    }


def test_a_stop_by_a_rule_is_told_and_one_by_a_person_is_not():
    notice = notice_of("REBRAIN", [event("delivery.stopped", "drift", operator=None)])
    assert notice is not None
    assert "stop list" in notice.text
    assert notice_of("REBRAIN", [event("delivery.stopped", "operator", operator="mtra")]) is None
