"""`serve` between a sender and a PACS: once, whatever is down, killed or sent twice."""

import json
import os
import signal
import socket
import subprocess

import psutil
import pytest
from typer.testing import CliRunner

from rebrain_node.app.anchors import compare_reports
from rebrain_node.app.compose import audit_check
from rebrain_node.cli import program
from rebrain_node.demonstration.running_node import free_port
from rebrain_node.errors import DeliveryError
from rebrain_node.network.mini_pacs import MiniPacs
from rebrain_node.network.sender import echo, send_files
from rebrain_node.settings import DestinationSettings, RemoteTlsSettings
from tests.support.certificates import CertificateAuthority
from tests.support.quick_node import PROGRAM, ROOT, make_node, run, wait_for

AE_TITLE = "PACS"


def send(node, study_folder):
    sent = send_files(node.address, AE_TITLE, sorted(study_folder.glob("*.dcm")))
    assert all(one.taken for one in sent), sent


def published(node):
    return list(node.states().values()) == ["published"]


def called(*words):
    """Run a command in this process: what it prints as JSON."""
    return json.loads(CliRunner().invoke(program, [*map(str, words), "--json"]).stdout)


@pytest.fixture(scope="module")
def idle(tmp_path_factory, quick_bundle):
    """A node that runs without work, and its supervisor; no test changes it."""
    node = make_node(tmp_path_factory.mktemp("idle"), quick_bundle, AE_TITLE, free_port())
    with node.running() as process:
        yield node, process


def children(process):
    """The node's processes by role."""
    found = {}
    for child in psutil.Process(process.pid).children():
        words = child.cmdline()
        found["worker" if "worker" in words else "receiver"] = child
    return found


def test_a_study_goes_in_and_comes_back_once_and_a_second_time_nothing_new(
    tmp_path, quick_bundle, study_folder
):
    with MiniPacs(AE_TITLE, tmp_path / "pacs") as pacs:
        node = make_node(tmp_path, quick_bundle, AE_TITLE, pacs.port)
        with node.running():
            send(node, study_folder)
            wait_for(lambda: published(node), say=node.states)
            first = {path.name: path.read_bytes() for path in pacs.instances()}
            assert len(first) > 20
            send(node, study_folder)
            status = json.loads(run("status", "--config", node.config, "--json").stdout)
            listed = called("queue", "list", "--config", node.config)
            series_uid = listed["series"][0]["series_instance_uid"]
            shown = run("queue", "show", series_uid, "--config", node.config).stdout
            as_json = called("queue", "show", series_uid, "--config", node.config)
        with node.state() as state:
            events = [row.event for row in state.audit.events(500)]
            check = audit_check(state)
            verdict = check.verify()
            anchors = compare_reports(check, tmp_path / "pacs")
        assert verdict.intact, verdict.differences
        assert verdict.checkpoints >= 2  # at the start, and over the report
        assert anchors.compared == 1
        assert anchors.agree, anchors.differences
        assert {path.name: path.read_bytes() for path in pacs.instances()} == first
    assert "rank 1 of 1 that would do" in " ".join(shown.split())
    assert "tissue level: shift hu" in " ".join(shown.split())
    assert events.count("node.started") == events.count("node.stopped") == 1
    assert as_json["tissue_level"]["expected_hu"] == 33.0
    assert status["series"]["published"] == 1
    assert status["conserved"] is True
    assert [series["state"] for series in listed["series"]] == ["published"]


def test_a_pacs_that_is_down_gets_the_result_when_it_comes_back_also_after_a_restart(
    tmp_path, quick_bundle, study_folder
):
    port = free_port()
    node = make_node(tmp_path, quick_bundle, AE_TITLE, port)

    def waiting():
        with node.state() as state:
            return state.deliveries.pending()

    with node.running():
        send(node, study_folder)
        wait_for(lambda: waiting() and waiting()[0].reason, say=node.states)
        reason = called("status", "--config", node.config)
        assert "pacs" in reason["deliveries_waiting"][0]["reason"]
        assert echo(node.address, AE_TITLE) < 5.0  # it still answers
    assert waiting()
    with node.running():
        wait_for(lambda: waiting()[0].attempts >= 2)
        with MiniPacs(AE_TITLE, tmp_path / "pacs", port=port) as pacs:
            wait_for(lambda: published(node), say=node.states)
            assert len(pacs.instances()) > 20


def test_a_node_without_work_is_small_and_its_receiver_loads_no_engine(idle):
    receiver = children(idle[1])["receiver"]
    loaded = {map_.path for map_ in receiver.memory_maps()}
    assert not [path for path in loaded if "openvino" in path or "torch" in path]
    assert receiver.memory_info().rss <= 200_000_000


def test_a_killed_receiver_comes_back(tmp_path, quick_bundle):
    node = make_node(tmp_path, quick_bundle, AE_TITLE, free_port())
    with node.running() as process:
        os.kill(children(process)["receiver"].pid, signal.SIGKILL)
        answers = []

        def answered():
            try:
                answers.append(echo(node.address, AE_TITLE))
            except DeliveryError:
                return False
            return True

        wait_for(answered)


def test_a_caller_that_is_not_on_the_list_is_rejected(idle, study_folder):
    with pytest.raises(DeliveryError):
        send_files(idle[0].address, "UNKNOWN", sorted(study_folder.glob("*.dcm")))


@pytest.mark.parametrize(
    ("setting", "code"),
    [("workers = 0\n", 2), ('[model]\nbundle = "/nowhere"\n', 4), ('limits = "/nowhere"\n', 2)],
)
def test_a_node_that_cannot_run_ends_with_the_code_that_says_why(tmp_path, setting, code):
    config = tmp_path / "node.toml"
    top = setting if not setting.startswith("[") else ""
    rest = setting if setting.startswith("[") else ""
    config.write_text(
        f'{top}[storage]\nfolder = "{tmp_path / "state"}"\n[receiver]\nport = {free_port()}\n{rest}'
    )
    result = run("serve", "--config", config)
    assert result.returncode == code, result.stderr


def test_a_node_whose_port_is_taken_ends_with_one_line_and_exit_code_2(tmp_path, quick_bundle):
    node = make_node(tmp_path, quick_bundle, AE_TITLE, free_port())
    with socket.create_server(("127.0.0.1", node.port)):
        result = run("serve", "--config", node.config)
    assert result.returncode == 2, result.stderr
    (line,) = [each for each in result.stderr.splitlines() if not each.startswith("{")]
    assert f"port {node.port}" in line
    assert "set another receiver.port" in line


def test_a_second_node_in_the_same_folder_ends_and_names_the_first(idle):
    node, process = idle
    result = run("serve", "--config", node.config)
    assert result.returncode == 2, result.stderr
    assert f"process {process.pid} has the node in storage.folder" in result.stderr


def test_a_node_starts_again_at_once_after_its_supervisor_was_killed(tmp_path, quick_bundle):
    node = make_node(tmp_path, quick_bundle, AE_TITLE, free_port())
    first = subprocess.Popen(
        [*PROGRAM, "serve", "--config", str(node.config)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: len(children(first)) == 2)
    first.kill()
    first.wait()
    with node.running():
        assert echo(node.address, AE_TITLE) < 5.0


def test_a_receiver_that_hangs_is_replaced_and_status_and_audit_log_say_so(tmp_path, quick_bundle):
    node = make_node(tmp_path, quick_bundle, AE_TITLE, free_port())

    def status():
        return called("status", "--config", node.config)["node"]

    with node.running() as process:
        receiver = children(process)["receiver"]
        assert status()["pid"] == process.pid
        assert {each["state"] for each in status()["processes"]} == {"ready"}
        os.kill(receiver.pid, signal.SIGSTOP)
        wait_for(lambda: not receiver.is_running() or receiver.status() == "zombie", 15.0)
        wait_for(lambda: [each["restarts"] for each in status()["processes"]] == [1, 0], 30.0)
        wait_for(lambda: {each["state"] for each in status()["processes"]} == {"ready"}, 30.0)
        assert echo(node.address, AE_TITLE) < 5.0
    with node.state() as state:
        (event,) = state.audit.events(9, event="process.restarted")
    assert event.subject == "receiver"
    assert 8.0 < event.details["silent_s"] < 15.0
    assert status()["running"] is False


def test_a_node_whose_database_vanishes_stops_and_names_the_remedy(tmp_path, quick_bundle):
    node = make_node(tmp_path, quick_bundle, AE_TITLE, free_port())
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*PROGRAM, "serve", "--config", str(node.config)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stderr=stream,
        )
    wait_for(lambda: '"event": "ready"' in log.read_text(), say=log.read_text)
    (tmp_path / "state" / "node.sqlite").unlink()
    assert process.wait(timeout=60) == 2, log.read_text()
    assert "has vanished while the node ran" in log.read_text()
    assert "rebrain-node storage fsck" in log.read_text()


def test_doctor_makes_no_state_and_says_that_there_is_none(tmp_path, quick_bundle):
    node = make_node(tmp_path, quick_bundle, AE_TITLE, free_port())
    with node.config.open("a") as stream:
        stream.write('[[notifications]]\nname = "ris"\nae_title = "RIS"\nhost = "127.0.0.1"\n')
        stream.write(f"port = {free_port()}\n")
    before = sorted(tmp_path.rglob("*"))
    result = run("doctor", "--config", node.config, "--json")
    checks = {check["what"]: check for check in json.loads(result.stdout)["checks"]}
    assert "there is no node's state" in checks["database"]["found"]
    assert checks["database"]["fit"]
    assert "Connection refused" in checks["notification receiver ris"]["found"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_node_over_tls_says_its_ports_and_reads_renewed_files_at_a_hangup(tmp_path, quick_bundle):
    authority = CertificateAuthority(tmp_path)
    own, sender = authority.issue("node", both=True), authority.issue("sender", client=True)
    node = make_node(tmp_path, quick_bundle, AE_TITLE, free_port())
    port = free_port()
    with node.config.open("a") as config:
        config.write(
            f'\n[receiver.tls]\nport = {port}\ncertificate = "{own.certificate}"\n'
            f'key = "{own.key}"\ncertificate_authority = "{authority.certificate}"\n'
        )
    over_tls = DestinationSettings(
        name="node",
        ae_title="REBRAIN",
        host="localhost",
        port=port,
        tls=RemoteTlsSettings(
            certificate_authority=authority.certificate,
            certificate=sender.certificate,
            key=sender.key,
        ),
    )

    def read():
        with node.state() as state:
            return [row for row in state.audit.events(50) if row.event == "certificate.read"]

    with node.running() as process:
        assert echo(over_tls, AE_TITLE) > 0
        assert echo(node.address, AE_TITLE) > 0, "the plain port is set, too"
        assert len(read()) == 1
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(read()) == 2)
        status = json.loads(run("status", "--config", node.config, "--json").stdout)
    assert status["ports"] == [
        f"port {port}: TLS, client certificates required",
        f"port {node.port}: plain DICOM, not encrypted",
    ]
    assert status["checks"]["certificates"] is None
