"""Audit messages reach a real rsyslog over TLS: all of them, over outage, restart and kill."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from rebrain_node.domain.audit import Event
from rebrain_node.domain.audit_message import AuditSource
from rebrain_node.errors import DeliveryError, SettingsError, UnreachableError
from rebrain_node.network.syslog import SyslogCollector
from rebrain_node.settings import AuditCollectorSettings
from rebrain_node.store.audit import append
from rebrain_node.worker.audit_messages import BATCH_ROWS, AuditMessageLoop
from tests.support.certificates import CertificateAuthority
from tests.support.outbox_node import OutboxNode, outbox_node
from tests.support.quick_node import ROOT, wait_for
from tests.support.rsyslog import MISSING, RsyslogServer
from tests.support.store_cases import fast_folder

needs_rsyslog = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
SOURCE = AuditSource(ae_title="REBRAIN", host="node.example.org")
#: what one row of the log is in these tests
REFUSED = {"address": "192.0.2.9", "reason": "UNKNOWN-AE", "not_told": 0, "would_admit": "..."}


@pytest.fixture
def node() -> Iterator[OutboxNode]:
    with outbox_node() as opened:
        opened.queue.begin(["audit-messages:arr"])
        yield opened


@pytest.fixture
def authority(tmp_path) -> CertificateAuthority:
    return CertificateAuthority(tmp_path)


@pytest.fixture
def server(tmp_path, authority) -> RsyslogServer:
    return RsyslogServer(tmp_path, authority.issue("server"), authority.certificate)


def collector(port: int, authority: Path | None, **changes) -> SyslogCollector:
    values = {"name": "arr", "host": "localhost", "port": port, "timeout_s": 5.0}
    trusted = {"certificate_authority": authority}
    return SyslogCollector(AuditCollectorSettings(**(values | trusted | changes)))


def loop_of(node: OutboxNode, to: SyslogCollector) -> AuditMessageLoop:
    return AuditMessageLoop(
        queue=node.queue,
        deliveries=node.deliveries,
        collector=to,
        source=SOURCE,
        clock=lambda: node.now_s,
    )


def record(node: OutboxNode, count: int) -> list[int]:
    """Record rows of which a message tells; their sequences."""
    with node.database.writing() as session:
        for number in range(count):
            append(session, Event.ASSOCIATION_REFUSED, f"ROGUE{number}", REFUSED)
    head = node.audit.head()[0]
    return list(range(head - count + 1, head + 1))


def rows_of(lines: list[str]) -> list[int]:
    """Sequences of the audit log that messages name."""
    found = []
    for line in lines:
        try:
            root = ET.fromstring(line.partition("\ufeff")[2])
        except ET.ParseError:
            continue  # the collector was killed while it wrote the line
        for detail in root.iter("ParticipantObjectDetail"):
            if detail.get("type") == "audit rows":
                found.append(int(b64decode(detail.get("value", ""))))
    return found


@needs_rsyslog
def test_messages_arrive_in_order_with_the_header_of_syslog(node, server, authority):
    rows = record(node, 3)
    with server.running():
        loop_of(node, collector(server.port, authority.certificate)).send_next()
        wait_for(lambda: len(server.lines) == 3, 10)
    assert rows_of(server.lines) == rows
    header = r"<85>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z node\.example\.org rebrain-node \d+ "
    assert re.match(header + r"DICOM\+RFC3881 \[origin [^\]]+\] \ufeff<\?xml", server.lines[0])
    assert node.queue.states()[0].rows == 0


@needs_rsyslog
def test_nothing_is_lost_over_an_outage_and_nobody_waits_for_it(node, server, authority):
    to = loop_of(node, collector(server.port, authority.certificate))
    rows = record(node, 2)
    with server.running():
        to.send_next()
        wait_for(lambda: len(server.lines) == 2, 10)
    for _ in range(6):
        rows += record(node, 1)  # the node goes on
        node.now_s += 400.0
        assert not to.send_next()
    (state,) = node.queue.states()
    assert state.failures == 6
    assert "cannot be reached" in str(state.reason)
    assert [one.event for one in node.audit.events(9, event=Event.DESTINATION_UNREACHABLE)]
    with server.running():
        node.now_s += 400.0
        to.send_next()
        wait_for(lambda: set(rows) <= set(rows_of(server.lines)), 10)
    assert node.audit.events(9, event=Event.DESTINATION_REACHABLE)


@needs_rsyslog
def test_a_collector_that_is_killed_again_and_again_gets_every_message(node, server, authority):
    to = loop_of(node, collector(server.port, authority.certificate))
    rows = record(node, 3 * BATCH_ROWS)
    sender = threading.Event()

    def send() -> None:
        while not sender.wait(0.01):
            node.now_s += 400.0
            to.send_next()

    thread = threading.Thread(target=send)
    server.start()
    thread.start()
    try:
        for _ in range(2):
            server.stop(signal.SIGKILL)
            time.sleep(0.1)
            server.start()
            time.sleep(0.05)
        wait_for(lambda: node.queue.states()[0].rows == 0, 30)
        wait_for(lambda: set(rows) <= set(rows_of(server.lines)), 10)
    finally:
        sender.set()
        thread.join()
        server.stop(signal.SIGKILL)


_CHILD = """
import sys
from rebrain_node.domain.audit_message import AuditSource
from rebrain_node.network.syslog import SyslogCollector
from rebrain_node.settings import AuditCollectorSettings
from rebrain_node.store.audit_queue import AuditQueue
from rebrain_node.store.database import Database
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.worker.audit_messages import AuditMessageLoop
folder, port, authority = sys.argv[1:]
with Database.open(f"sqlite:///{folder}/node.sqlite") as database:
    loop = AuditMessageLoop(
        queue=AuditQueue(database),
        deliveries=Deliveries(database),
        collector=SyslogCollector(AuditCollectorSettings(
            name="arr", host="localhost", port=port, certificate_authority=authority
        )),
        source=AuditSource(ae_title="REBRAIN", host="node.example.org"),
    )
    print("ready", flush=True)
    while True:
        loop.send_next()
"""


@needs_rsyslog
def test_a_node_that_is_killed_goes_on_where_the_collector_has_read(server, authority):
    with fast_folder() as folder, server.running(), outbox_node(folder) as node:
        node.queue.begin(["audit-messages:arr"])
        rows = record(node, 4 * BATCH_ROWS)
        for pause_s in (0.1, 0.3, None):
            child = subprocess.Popen(
                [sys.executable, "-c", _CHILD, folder, str(server.port), authority.certificate],
                cwd=ROOT, stdout=subprocess.PIPE,
            )  # fmt: skip
            assert child.stdout is not None
            child.stdout.readline()
            try:
                if pause_s is None:
                    wait_for(lambda: node.queue.states()[0].rows == 0, 30)
                else:
                    time.sleep(pause_s)
            finally:
                child.kill()
            child.communicate()
        wait_for(lambda: set(rows) <= set(rows_of(server.lines)), 10)
    repeated = len(rows_of(server.lines)) - len(rows)
    assert repeated <= 2 * BATCH_ROWS  # at most the batch of each kill


@needs_rsyslog
@pytest.mark.parametrize(
    ("issue", "words"),
    [
        ({"days": -1}, "certificate has expired"),
        ({"host": "other.example.org"}, "Hostname mismatch"),
    ],
)
def test_a_certificate_that_has_ended_or_names_another_host_is_refused(
    node, tmp_path, authority, issue, words
):
    server = RsyslogServer(tmp_path, authority.issue("bad", **issue), authority.certificate)
    record(node, 1)
    with server.running():
        loop_of(node, collector(server.port, authority.certificate)).send_next()
        assert server.lines == []
    (state,) = node.queue.states()
    assert (state.rows, state.failures) == (1, 1)
    assert words in str(state.reason)
    assert "certificate_authority" in str(state.reason)


@needs_rsyslog
def test_a_certificate_of_another_authority_is_refused(node, tmp_path, server):
    other = CertificateAuthority(tmp_path, "other")
    record(node, 1)
    with server.running():
        loop_of(node, collector(server.port, other.certificate)).send_next()
        assert server.lines == []
    assert "is not accepted" in str(node.queue.states()[0].reason)


@needs_rsyslog
def test_a_collector_that_asks_gets_the_certificate_of_the_node(node, tmp_path, authority):
    server = RsyslogServer(tmp_path, authority.issue("server"), authority.certificate, asks=True)
    pair = authority.issue("client", host="node.example.org", client=True)
    rows = record(node, 1)
    with server.running():
        without = collector(server.port, authority.certificate)
        assert not loop_of(node, without).send_next()
        assert server.lines == []
        assert node.queue.states()[0].rows == 1
        known = collector(
            server.port, authority.certificate,
            client_certificate=pair.certificate, client_key=pair.key,
        )  # fmt: skip
        assert known.check() is not None
        loop_of(node, known).send_next()
        wait_for(lambda: rows_of(server.lines) == rows, 10)


@pytest.mark.parametrize("reads", [0, 100])
def test_what_a_collector_closes_upon_without_reading_is_not_taken(reads):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                time.sleep(0.2)
                if reads:
                    connection.recv(reads)

        thread = threading.Thread(target=serve)
        thread.start()
        to = collector(listener.getsockname()[1], None, host="127.0.0.1", protocol="tcp")
        with pytest.raises(DeliveryError, match="did not confirm"):
            to.send([b"x" * 5000])
        thread.join()


@pytest.mark.parametrize("answers", [True, False])
def test_a_collector_that_has_read_all_has_taken_it_with_or_without_a_last_word_of_tls(
    authority, answers
):
    pair = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            raw, _ = listener.accept()
            with context.wrap_socket(raw, server_side=True) as connection:
                content = b""
                while part := connection.recv(4096):
                    content += part
                taken.append(content)
                if answers:
                    connection.unwrap().close()

        thread = threading.Thread(target=serve)
        thread.start()
        collector(listener.getsockname()[1], authority.certificate).send([b"x" * 9000, b"y"])
        thread.join()
    assert taken == [b"9000 " + b"x" * 9000 + b"1 y"]


def test_a_collector_that_never_ends_the_connection_has_not_taken_it():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        to = collector(port, None, host="127.0.0.1", protocol="tcp", timeout_s=0.3)
        with pytest.raises(DeliveryError, match="no answer in time"):
            to.send([b"x"])


def test_plain_tcp_to_this_machine_frames_each_message():
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                taken.append(stream.read())

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        collector(port, None, host="127.0.0.1", protocol="tcp").send([b"one\n", b"three"])
        thread.join()
    assert taken == [b"4 one\n5 three"]


def test_a_file_that_is_no_certificate_is_named(tmp_path):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(SettingsError, match=r"certificate_authority .*wrong\.pem cannot"):
            collector(port, wrong).check()


def test_a_port_where_nobody_listens_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UnreachableError, match="check host, port and network"):
        collector(port, None).send([b"x"])


def test_a_new_collector_is_told_what_happens_from_then_on(node):
    record(node, 3)
    node.queue.begin(["audit-messages:arr", "audit-messages:new"])
    assert [(s.reader, s.rows) for s in node.queue.states()] == [
        ("audit-messages:arr", 3), ("audit-messages:new", 0),
    ]  # fmt: skip
    node.queue.begin(["audit-messages:new"])
    assert [s.reader for s in node.queue.states()] == ["audit-messages:new"]


def test_a_row_that_somebody_altered_does_not_stop_the_messages(node):
    record(node, 1)
    with node.database.writing() as session:
        connection = session.connection()
        connection.exec_driver_sql("DROP TRIGGER audit_event_no_update")
        connection.exec_driver_sql("UPDATE audit_event SET details = '{', recorded_at = 'now'")
    loop = loop_of(node, collector(1, None, host="127.0.0.1", protocol="tcp"))
    events = node.queue.read("audit-messages:arr", 10)
    assert [m.id.meaning for m in loop.messages(events)] == ["Security Alert"]


class _Choosy:
    """A collector that takes at most so many messages at once, and none that holds a word."""

    name = "arr"

    def __init__(self, most: int, never: bytes = b"nothing") -> None:
        self.most, self.never = most, never
        self.taken, self.attempts = list[bytes](), 0

    def send(self, messages: list[bytes]) -> None:
        self.attempts += 1
        if len(messages) > self.most or self.never in b"".join(messages):
            raise DeliveryError("it did not read all of them in time")
        self.taken += messages


def send_for(node: OutboxNode, to: AuditMessageLoop, steps: int, step_s: float) -> None:
    for _ in range(steps):
        node.now_s += step_s
        while to.send_next():
            pass


def test_a_collector_that_takes_one_message_at_a_time_gets_all_of_them(node):
    rows = record(node, 5)
    choosy = _Choosy(1)
    send_for(node, loop_of(node, choosy), 30, 400.0)
    assert set(rows_of([each.decode() for each in choosy.taken])) >= set(rows)
    assert node.queue.states()[0].rows == 0


def test_a_message_that_a_collector_never_takes_is_tried_with_growing_pauses(node):
    choosy = _Choosy(9, never=b"ROGUE2")
    to = loop_of(node, choosy)
    record(node, 2)
    to.send_next()
    record(node, 3)
    send_for(node, to, 120, 30.0)  # an hour; in between it takes again what it had before
    assert choosy.attempts < 80
    assert node.queue.states()[0].failures > 0
    assert node.audit.events(9, event=Event.DESTINATION_UNREACHABLE)


def test_whatever_fails_on_the_way_to_a_collector_is_a_failure_that_status_shows(node):
    class Broken(_Choosy):
        def send(self, messages: list[bytes]) -> None:
            raise UnicodeError("Doe^Jane")

    record(node, 1)
    assert not loop_of(node, Broken(1)).send_next()
    (state,) = node.queue.states()
    assert state.failures == 1
    assert "UnicodeError" in str(state.reason)
    assert "Doe" not in str(state.reason)
