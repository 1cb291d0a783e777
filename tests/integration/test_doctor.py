"""`doctor` says of each line whether it is fit, and what helps; real peers on loopback."""

from __future__ import annotations

import json
import re
import socketserver
import ssl
import threading
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.uid import UID
from sqlalchemy import text
from typer.testing import CliRunner

from rebrain_node import cli
from rebrain_node.app.certificates import CertificateFile
from rebrain_node.app.compose import make_audit_key, open_state, require_sqlite
from rebrain_node.app.doctor import checks_of_the_node
from rebrain_node.app.doctor_remotes import checks_of_remotes
from rebrain_node.app.serve import serve
from rebrain_node.app.verification import last_verification
from rebrain_node.demonstration.running_node import free_port
from rebrain_node.domain.audit import Event
from rebrain_node.errors import SettingsError
from rebrain_node.network import services
from rebrain_node.network.commitment import PUSH_MODEL
from rebrain_node.network.query import FIND, GET
from rebrain_node.settings import (
    DestinationSettings,
    NoticeSettings,
    Peer,
    Receiver,
    RemoteTlsSettings,
    Settings,
    Storage,
    WebDestinationSettings,
)
from tests.support.certificates import CertificateAuthority
from tests.support.scripted_pacs import listening_ae

MR, PM = (UID(services.CLASSES[kind][0]) for kind in ("MR", "PM"))
EVERYTHING = [UID(sop_class) for sop_class, _ in services.CLASSES.values()] + [
    FIND,
    GET,
    PUSH_MODEL,
]


def settings_of(
    port: int = 104, folder: Path = Path("/nonexistent"), **changes: object
) -> Settings:
    values = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port}
    return Settings(
        storage=Storage(folder=folder, soft_mark_bytes=0, hard_mark_bytes=0),
        receiver=Receiver(peers=(Peer(ae_title="PACS"),)),
        destinations=(DestinationSettings(**values | changes),),
    )


def destination_check(*without: UID, **changes: object):
    with listening_ae([each for each in EVERYTHING if each not in without]) as port:
        (check,) = checks_of_remotes(settings_of(port, **changes))
    return check


def node_check(settings: Settings, what: str):
    return next(each for each in checks_of_the_node(settings) if each.what == what)


def test_a_destination_that_takes_everything_is_fit():
    check = destination_check(confirmation="commitment")
    assert check.state == "ok"
    assert "takes MR, PM, SEG, SC, PR, SR, KOS" in check.found
    assert "offers storage commitment, which the first result tries" in check.found


@pytest.mark.parametrize(
    ("without", "changes", "state", "words"),
    [
        (MR, {}, "fail", "does not take MR Image Storage .* no result can be sent; allow it"),
        (PM, {}, "warn", "does not take Parametric Map Storage .* left out"),
        (PM, {"companions": "strict"}, "fail", 'set companions = "lenient"'),
        (FIND, {}, "warn", "takes no queries .* nothing is ever confirmed; allow queries of AE"),
        (GET, {}, "warn", "does not offer C-GET"),
        (PUSH_MODEL, {"confirmation": "commitment"}, "warn", 'set confirmation = "query"'),
    ],
)
def test_what_a_destination_does_not_accept_is_named_with_the_remedy(
    without, changes, state, words
):
    check = destination_check(without, **changes)
    assert check.state == state
    assert re.search(words, check.found)


def test_an_answer_to_storage_commitment_that_would_be_turned_away_is_a_warning():
    with listening_ae(EVERYTHING) as port:
        settings = settings_of(port, confirmation="commitment")
        lonely = settings.model_copy(update={"receiver": Receiver()})
        (check,) = checks_of_remotes(lonely)
    assert check.state == "warn"
    assert "no [[receiver.peers]] has the AE title PACS; add it" in check.found


def test_no_system_is_waited_for_longer_than_ten_seconds(monkeypatch):
    waited = []

    def propose(remote, *_):
        waited.append(remote.timeout_s)
        return services.ServiceAnswer(seconds=0.1, accepted=frozenset(EVERYTHING))

    monkeypatch.setattr(services, "propose", propose)
    checks_of_remotes(settings_of(timeout_s=600))
    assert waited == [10.0]


@pytest.fixture
def logged(tmp_path):
    """The settings of a node that has run, with five rows on its audit log."""
    settings = settings_of(folder=tmp_path / "state")
    with open_state(settings) as state:
        make_audit_key(state)
        for _ in range(4):
            state.audit.record(Event.WORKER_STARTED, "worker-1", {})
        state.audit.checkpoint()
    return settings


def change(settings: Settings, statement: str) -> None:
    """Change the database as its administrator could, around the triggers."""
    with open_state(settings) as state, state.database.writing() as session:
        for name in session.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")):
            session.execute(text(f"DROP TRIGGER {name}"))
        session.execute(text(statement))


def test_the_end_of_an_audit_log_as_it_was_written_is_fit(logged):
    check = node_check(logged, "audit log")
    assert check.state == "ok"
    assert "the newest 5 rows are as they were written; never verified as a whole" in check.found


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE audit_event SET subject = 'other' WHERE sequence = 3", "row 3 of the audit log"),
        ("DELETE FROM audit_event WHERE sequence = 5", "row 5 of the audit log"),
        ("UPDATE audit_head SET hash = 'x'", "row 5 of the audit log"),
        ("UPDATE audit_checkpoint SET sequence = 4", "checkpoint 1: its signature is not of it"),
    ],
)
def test_a_change_at_the_end_of_the_audit_log_is_found(logged, statement, words):
    change(logged, statement)
    check = node_check(logged, "audit log")
    assert check.state == "fail"
    assert words in check.found


def test_the_last_whole_verification_is_noted_beside_the_log_and_said(logged, tmp_path):
    config = tmp_path / "node.toml"
    config.write_text(f'[storage]\nfolder = "{logged.storage.folder}"\n')
    assert (
        CliRunner().invoke(cli.program, ["audit", "verify", "--config", str(config)]).exit_code == 0
    )
    record = last_verification(logged.storage.folder)
    assert (record.rows, record.intact) == (5, True)
    assert f"verified whole {datetime.now(UTC):%Y-%m-%d}" in node_check(logged, "audit log").found


def test_a_log_that_nobody_verified_for_a_month_is_a_warning(logged):
    old = (datetime.now(UTC) - timedelta(days=40)).isoformat(timespec="seconds")
    note = {"at": old, "rows": 5, "intact": True}
    (logged.storage.folder / "audit-verified.json").write_text(json.dumps(note))
    check = node_check(logged, "audit log")
    assert check.state == "warn"
    assert "run `rebrain-node audit verify" in check.found


@pytest.mark.parametrize(
    ("days", "state", "words"),
    [(3.0, "warn", "lasts 3 days .* less than 14; make room"), (900.0, "ok", "more than a year")],
)
def test_a_disk_that_lasts_two_weeks_is_fit(logged, monkeypatch, days, state, words):
    monkeypatch.setattr("rebrain_node.app.health.storage_use", lambda *_: {"days_left": days})
    check = node_check(logged, "disk")
    assert check.state == state
    assert re.search(words, check.found)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "audit-checkpoints.jsonl: No such file or directory; restore it"),
        ("x\n", "line 1 of audit-checkpoints.jsonl is not as it was written"),
    ],
)
def test_a_file_of_checkpoints_that_is_gone_or_altered_fails(logged, content, words):
    path = logged.storage.folder / "audit-checkpoints.jsonl"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    check = node_check(logged, "audit log")
    assert check.state == "fail"
    assert words in check.found


def test_a_key_of_the_audit_log_that_is_gone_is_to_be_restored(logged):
    (logged.storage.folder / "audit.key").unlink()
    check = node_check(logged, "keys")
    assert (check.state, "restore it from a backup" in check.found) == ("fail", True)


def test_a_damaged_database_is_to_be_restored(logged):
    path = logged.storage.folder / "node.sqlite"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    check = node_check(logged, "database")
    assert check.state == "fail"
    assert "restore the database from a backup" in check.found


def test_a_folder_that_is_a_file_fails(tmp_path):
    (tmp_path / "state").touch()
    for folder in (tmp_path / "state", tmp_path / "state" / "below"):
        settings = settings_of(folder=folder)
        assert "is no folder; correct the path" in node_check(settings, "settings").found
        assert node_check(settings, "inbox").state == "fail"
        assert node_check(settings, "receiver").state != "fail"


def test_a_webhook_and_a_mail_server_are_reached_and_sent_nothing(tmp_path):
    received = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"220 ready\r\n")
            for line in self.rfile:
                received.append(line.split()[0].upper())
                self.wfile.write(b"221 bye\r\n" if received[-1] == b"QUIT" else b"250 ok\r\n")

    (tmp_path / "secret").write_text("word")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        port = server.server_address[1]
        hook = {"name": "chat", "url": f"http://127.0.0.1:{port}/x"}
        mail = {
            "name": "mail", "host": "127.0.0.1", "port": port, "encryption": "none",
            "sender": "a@b", "recipients": ["c@d"],
        }  # fmt: skip
        told = {"webhooks": [hook | {"secret_file": tmp_path / "secret"}], "mails": [mail]}
        checks = checks_of_remotes(Settings(notices=told))
        gone = checks_of_remotes(
            Settings(notices={"webhooks": [hook | {"secret_file": tmp_path / "none"}]})
        )
        server.shutdown()
    assert [each.state for each in checks] == ["ok", "ok"]
    assert all("`rebrain-node notify test`" in each.found for each in checks)
    assert received == [b"EHLO", b"QUIT"]
    assert [(one.state, "secret_file of chat" in one.found) for one in gone] == [("fail", True)]


def test_keys_that_are_not_one_pair_fail(logged, tmp_path):
    other = settings_of(folder=tmp_path / "other")
    with open_state(other) as state:
        make_audit_key(state)
    (other.storage.folder / "audit.pub").replace(logged.storage.folder / "audit.pub")
    check = node_check(logged, "keys")
    assert check.state == "fail"
    assert "restore both from one backup" in check.found


def test_a_key_or_secret_that_every_account_may_read_is_named(logged, tmp_path):
    files = [tmp_path / name for name in ("node.key", "token", "word")]
    for path in files:
        path.write_text("secret")
    settings = logged.model_copy(
        update={
            "receiver": Receiver(tls={"certificate": files[0], "key": files[0],
                                      "client_certificates": "not asked"}),
            "dicomweb_destinations": (WebDestinationSettings(
                name="web", url="https://pacs.example", token_file=files[1]),),
            "notices": NoticeSettings(webhooks=[
                {"name": "chat", "url": "https://chat.example", "secret_file": files[2]}]),
        }
    )  # fmt: skip
    check = node_check(settings, "keys")
    assert check.state == "warn"
    assert all(str(path) in check.found for path in files)
    for path in files:
        path.chmod(0o600)
    assert node_check(settings, "keys").state == "ok"


def test_a_python_whose_sqlite_is_too_old_is_refused_unless_the_database_is_postgresql(
    tmp_path, monkeypatch
):
    version = namedtuple("Version", "major minor")(3, 13)
    monkeypatch.setattr("sys.version_info", version)
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 40, 1))
    settings = settings_of(folder=tmp_path / "state")
    check = node_check(settings, "database")
    assert check.state == "fail"
    assert "Python 3.13 is linked with SQLite" in check.found
    with pytest.raises(SettingsError, match=r"set storage\.database_url to a PostgreSQL"):
        serve(settings, None)
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 42, 0))
    require_sqlite(settings)
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 40, 1))
    storage = settings.storage.model_copy(update={"database_url": "postgresql://db/node"})
    require_sqlite(settings.model_copy(update={"storage": storage}))


def test_a_clock_that_was_set_back_fails(logged, monkeypatch):
    class Earlier(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime.now(zone) - timedelta(hours=1)

    monkeypatch.setattr("rebrain_node.app.doctor.datetime", Earlier)
    check = node_check(logged, "clock")
    assert check.state == "fail"
    assert "it was set back; set the clock" in check.found


def test_a_file_that_was_not_finished_is_a_warning(logged):
    (logged.storage.folder / "inbox").mkdir(exist_ok=True)
    (logged.storage.folder / "inbox" / "x.writing").write_bytes(b"half")
    check = node_check(logged, "inbox")
    assert check.state == "warn"
    assert "1 files were not finished" in check.found


def test_a_port_that_another_program_has_fails(logged):
    with listening_ae([MR]) as port:
        taken = logged.model_copy(update={"receiver": Receiver(port=port)})
        check = node_check(taken, "receiver")
    assert check.state == "fail"
    assert "stop the other program" in check.found


def test_a_plain_port_that_a_network_reaches_is_a_warning(logged):
    peers = (Peer(ae_title="PACS"),)
    open_to_all = Receiver(address="0.0.0.0", port=free_port(), peers=peers)
    check = node_check(logged.model_copy(update={"receiver": open_to_all}), "receiver")
    assert check.state == "warn"
    assert "plain DICOM, not encrypted" in check.found
    assert "set receiver.tls" in check.found


def test_certificates_of_tls_are_looked_at_as_files_and_as_a_pacs_shows_them(tmp_path):
    authority = CertificateAuthority(tmp_path)
    shown = authority.issue("pacs", days=9)
    own = authority.issue("node", both=True, days=90)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown.certificate, shown.key)
    tls = RemoteTlsSettings(
        certificate_authority=authority.certificate,
        certificate=own.certificate,
        key=own.key,
        revocation_list=authority.revoke(days=3),
    )
    with listening_ae(EVERYTHING, ssl_context=context) as port:
        settings = settings_of(port, host="localhost", tls=tls)
        found = {each.what: each for each in checks_of_remotes(settings)}
    assert {what: each.state for what, each in found.items()} == {
        "destination pacs": "ok",
        "certificate of pacs": "warn",
        "tls.certificate of pacs": "ok",
        "certificate authority of pacs": "ok",
        "revocation list of pacs": "warn",
    }
    assert "put the new revocation list into" in found["revocation list of pacs"].found


def test_no_destination_and_no_peer_are_said():
    checks = {each.what: each for each in checks_of_the_node(Settings())}
    assert checks["destinations"].state == "warn"
    assert "add [[destinations]]" in checks["destinations"].found
    assert "add [[receiver.peers]]" in checks["receiver"].found


def test_a_file_that_holds_no_certificate_is_named(tmp_path):
    from rebrain_node.errors import SettingsError

    path = tmp_path / "ca.pem"
    path.write_text("none")
    with pytest.raises(SettingsError, match="give a file with certificates"):
        CertificateFile("certificate_authority of web", path, "only").end()


def test_what_is_entered_at_the_pacs_has_every_class_and_syntax(tmp_path):
    config = tmp_path / "node.toml"
    config.write_text(f'[storage]\nfolder = "{tmp_path}/state"\n')
    result = CliRunner().invoke(cli.program, ["doctor", "--config", str(config), "--json"])
    answer = json.loads(result.stdout)
    assert "1.2.840.10008.5.1.4.1.1.2" in answer["pacs_sends"]["sop_classes"]
    assert "1.2.840.10008.1.2.4.70" in answer["pacs_sends"]["transfer_syntaxes"]
    assert next(iter(answer["pacs_takes"]["sop_classes"])) == str(MR)
    assert list(answer["pacs_takes"]["transfer_syntaxes"]) == ["1.2.840.10008.1.2.1"]
    assert answer["enter_at_the_pacs"]["AE title"] == "REBRAIN"


def test_a_database_whose_clock_differs_fails(logged, monkeypatch):
    monkeypatch.setattr("rebrain_node.store.database.Database.clock_offset_s", lambda _: -7.5)
    check = node_check(logged, "clock")
    assert check.state == "fail"
    assert "differs by -7.5 s, more than 2 s" in check.found
