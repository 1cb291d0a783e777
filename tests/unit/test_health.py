"""Whether the node lives: probes, metrics and `status` say the same, and say what is wrong."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import threading
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from rebrain_node.app.compose import find_state, open_state
from rebrain_node.app.health import health_of
from rebrain_node.app.health_server import HealthHandler, health_server
from rebrain_node.app.presence import one_node, write_processes
from rebrain_node.cli import program
from rebrain_node.demonstration.running_node import free_port
from rebrain_node.domain.audit import Event
from rebrain_node.errors import SettingsError
from rebrain_node.settings import (
    HealthSettings,
    Peer,
    Receiver,
    ReceiverTlsSettings,
    Settings,
    Storage,
)
from rebrain_node.supervisor import ProcessState
from tests.support.certificates import CertificateAuthority

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"
RELEASE = {"name": "demo", "version": "1.2.0", "signed_by": {"name": "demo", "key": "ab"}}


def settings_of(folder: Path, **storage: int) -> Settings:
    marks = {"soft_mark_bytes": 0, "hard_mark_bytes": 0} | storage
    return Settings(
        storage=Storage(folder=folder, **marks), health=HealthSettings(port=free_port())
    )


@pytest.fixture
def state(tmp_path):
    with open_state(settings_of(tmp_path)) as opened:
        opened.audit.record(Event.BUNDLE_VERIFIED, "d" * 64, RELEASE)
        started = {"engine": "openvino", "bundle": "d" * 64}
        opened.audit.record(Event.WORKER_STARTED, "worker-1", started)
        yield opened


@contextmanager
def running(folder: Path, worker: str = "ready"):
    """A node that has the folder, with a receiver and a worker in this state."""
    roles = {"receiver": "ready", "worker-1": worker}
    states = [
        ProcessState(role=role, state=state, pid=7, silent_s=0.5, restarts=2)
        for role, state in roles.items()
    ]
    stop = threading.Event()

    def report() -> None:
        while not stop.wait(1.0):
            write_processes(folder, states)

    supervisor = threading.Thread(target=report)
    with one_node(folder):
        write_processes(folder, states)
        supervisor.start()
        try:
            yield
        finally:
            stop.set()
            supervisor.join()


def get(settings: Settings, path: str) -> tuple[int, str]:
    try:
        url = f"http://127.0.0.1:{settings.health.port}{path}"
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def run(tmp_path: Path, *arguments: str):
    config = tmp_path / "node.toml"
    config.write_text(
        f'[storage]\nfolder = "{tmp_path}"\nsoft_mark_bytes = 0\nhard_mark_bytes = 0\n'
    )
    return CliRunner(env={"COLUMNS": "200"}).invoke(program, [*arguments, "--config", str(config)])


def test_the_endpoint_answers_on_this_machine_and_only_what_it_knows(state, tmp_path):
    settings = settings_of(tmp_path)
    with running(tmp_path), health_server(settings, state):
        assert get(settings, "/healthz") == (200, "processes: ok\n")
        status, text = get(settings, "/readyz")
        assert status == 200
        assert text.splitlines() == ["processes: ok", "started: ok", "disk: ok", "database: ok"]
        assert get(settings, "/metrics")[0] == 200
        assert get(settings, "/patients")[0] == 404


def test_a_port_that_is_taken_names_the_setting(state, tmp_path):
    settings = settings_of(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.health.port))
        other.listen()
        with (
            pytest.raises(SettingsError, match=r"another program has the port.*health\.port"),
            health_server(settings, state),
        ):
            pass


def test_a_node_that_does_not_run_is_neither_alive_nor_ready(state, tmp_path):
    pages = HealthHandler(settings_of(tmp_path), state)
    for path in ("/healthz", "/readyz"):
        answer = pages.answer(path)
        assert answer.status == 503
        assert b"processes: the node does not run" in answer.body


@pytest.mark.parametrize(
    ("worker", "alive", "ready"),
    [("no answer", 503, 503), ("ended", 503, 503), ("starting", 200, 503)],
)
def test_a_worker_that_hangs_has_ended_or_starts_is_seen(state, tmp_path, worker, alive, ready):
    pages = HealthHandler(settings_of(tmp_path), state)
    with running(tmp_path, worker):
        assert pages.answer("/healthz").status == alive
        assert pages.answer("/readyz").status == ready
        assert b"worker-1" in pages.answer("/readyz").body


def test_a_full_disk_makes_the_node_not_ready_but_alive(state, tmp_path):
    pages = HealthHandler(settings_of(tmp_path, soft_mark_bytes=1 << 60), state)
    with running(tmp_path):
        assert pages.answer("/healthz").status == 200
        answer = pages.answer("/readyz")
    assert answer.status == 503
    assert b"below storage.soft_mark_bytes" in answer.body


def test_a_database_that_takes_no_write_is_seen_and_its_place_is_not_told(state, tmp_path):
    settings = settings_of(tmp_path)
    pages = HealthHandler(settings, state)
    with closing(sqlite3.connect(tmp_path / "node.sqlite")) as connection:
        connection.execute("DROP TABLE listening")
    with running(tmp_path):
        answer = pages.answer("/readyz")
        metrics = pages.answer("/metrics").body.decode()
        why = health_of(settings, state).why
    assert answer.status == 503
    assert str(tmp_path) not in answer.body.decode()
    assert "rebrain_database_writable 0.0" in metrics
    assert "does not take or give data" in why


@pytest.mark.parametrize(
    ("event", "name"), [(Event.BUNDLE_REFUSED, "bundle"), (Event.SELF_TEST_FAILED, "engine")]
)
def test_a_bundle_or_an_engine_that_failed_its_last_check_is_told(state, tmp_path, event, name):
    settings = settings_of(tmp_path)
    with running(tmp_path):
        assert health_of(settings, state).why is None
        state.audit.record(event, name, {"reason": "it deviates by 0.2"})
        assert health_of(settings, state).why == (
            f"the {name} failed its last check: it deviates by 0.2"
        )
        state.audit.record(Event.BUNDLE_VERIFIED, "d" * 64, RELEASE)
        assert health_of(settings, state).why is None


def tls_settings(folder: Path, days: int = 90) -> Settings:
    authority = CertificateAuthority(folder)
    pair = authority.issue("node", both=True, days=days)
    tls = ReceiverTlsSettings(
        certificate=pair.certificate,
        key=pair.key,
        certificate_authority=authority.certificate,
        revocation_list=authority.revoke(days=7),
    )
    peer = Peer(ae_title="PACS", certificates=(str(pair.certificate),))
    return settings_of(folder).model_copy(update={"receiver": Receiver(tls=tls, peers=(peer,))})


def test_certificate_files_that_were_not_taken_are_told_until_they_are(state, tmp_path):
    settings = tls_settings(tmp_path)
    with running(tmp_path):
        assert health_of(settings, state).why is None
        state.audit.record(Event.CERTIFICATE_NOT_READ, "receiver.tls", {"reason": "no key"})
        assert health_of(settings, state).why == "changed certificate files were not taken: no key"
        state.audit.record(Event.CERTIFICATE_READ, "receiver.tls", {})
        assert health_of(settings, state).why is None


def test_a_certificate_that_has_ended_is_told_and_every_end_is_a_metric(state, tmp_path):
    settings = tls_settings(tmp_path, days=-3)
    with running(tmp_path):
        why = health_of(settings, state).why
        text = HealthHandler(settings, state).answer("/metrics").body.decode()
    assert why is not None
    assert why.startswith("certificate of receiver.tls ended at")
    assert 'rebrain_check_fit{check="certificates"} 0.0' in text
    files = re.findall(r'rebrain_certificate_end_timestamp_seconds{file="(.+?)"}', text)
    assert files == [
        "certificate of receiver.tls",
        "certificate_authority of receiver.tls",
        "revocation_list of receiver.tls",
        "certificate 1 of peer PACS",
    ]


def test_status_says_of_each_port_whether_it_is_encrypted(state, tmp_path):
    plain = run(tmp_path, "status").stdout
    assert "port 11112: plain DICOM, not encrypted" in plain
    words = tls_settings(tmp_path).receiver.listening_words
    assert words == ("port 2762: TLS, client certificates required",)


def test_status_of_a_dead_node_says_so_in_one_line_and_ends_with_1(state, tmp_path):
    result = run(tmp_path, "status")
    assert result.exit_code == 1
    assert "rebrain-node: the node does not run; start it" in result.stderr
    assert "NO" in result.stdout
    answer = json.loads(run(tmp_path, "status", "--json").stdout)
    assert answer["well"] is False
    assert answer["why"].startswith("the node does not run")


def test_status_shows_processes_bundle_signer_engine_and_disk(state, tmp_path):
    with running(tmp_path):
        result = run(tmp_path, "status")
        answer = json.loads(run(tmp_path, "status", "--json").stdout)
    assert result.exit_code == 0, result.stdout + result.stderr
    assert re.search(r"worker-1\tready, .*last sign of life 0.5 s ago, 2", result.stdout)
    assert re.search(r"bundle\t.*demo 1\.2\.0, signed by demo", result.stdout)
    assert re.search(r"engine\topenvino", result.stdout)
    assert "days until no new study is judged" in result.stdout
    assert (answer["well"], answer["why"]) == (True, None)
    assert set(answer["checks"].values()) == {None}


def test_status_says_which_engine_takes_the_place_of_the_one_that_is_set(state, tmp_path):
    with running(tmp_path):
        before = run(tmp_path, "status")
        reason = {"engine": "openvino", "reason": "no NVIDIA driver"}
        state.audit.record(Event.ENGINE_FALLBACK, "tensorrt", reason)
        fallen = run(tmp_path, "status")
        state.audit.record(Event.BUNDLE_VERIFIED, "d" * 64, {"name": "demo", "version": "1"})
        after = run(tmp_path, "status")
    assert "openvino, in place of tensorrt: no NVIDIA driver" in fallen.stdout
    assert "in place of" not in before.stdout + after.stdout


def test_status_names_a_worker_that_does_not_answer(state, tmp_path):
    with running(tmp_path, "no answer"):
        result = run(tmp_path, "status")
    assert result.exit_code == 1
    assert "a process is not well (worker-1: no answer)" in result.stderr


def metrics_of(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Names of all samples of a scrape, with their labels."""
    with find_state(settings_of(folder)) as state, running(folder):
        text = HealthHandler(settings_of(folder), state).answer("/metrics").body.decode()
    names: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        names.setdefault(family.name, [])
        for sample in family.samples:
            names.setdefault(sample.name, []).append(sample.labels)
    return names


def test_a_scrape_has_a_value_for_each_process_and_the_bundle(state, tmp_path):
    names = metrics_of(tmp_path)
    assert names["rebrain_process_up"] == [{"role": "receiver"}, {"role": "worker-1"}]
    assert names["rebrain_bundle_info"] == [
        {"name": "demo", "version": "1.2.0", "digest": "d" * 64, "signed_by": "demo",
         "engine": "openvino"}
    ]  # fmt: skip


def named_metrics() -> dict[str, set[str]]:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    board = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
    panels = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return {
        name: set(re.findall(r"rebrain_\w+", " ".join(texts)))
        for name, texts in (("alerts", alerts), ("dashboard", panels))
    }


@pytest.mark.parametrize("file", ["alerts", "dashboard"])
def test_every_metric_of_alerts_and_dashboard_exists(state, tmp_path, file):
    state.audit.record(Event.SERIES_PUBLISHED, "1.2.3", {})
    named = named_metrics()[file]
    assert len(named) > 5
    assert sorted(named - metrics_of(tmp_path).keys()) == []


def test_every_alert_says_what_to_do():
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))
    for rule in rules["groups"][0]["rules"]:
        assert len(rule["annotations"]["summary"]) > 30
        assert rule["labels"]["severity"] in {"warning", "critical"}
