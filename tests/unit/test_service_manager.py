"""What systemd is told (sd_notify): ready once, and a sign of life with every report."""

import socket

from rebrain_node.app.service_manager import ServiceManager
from rebrain_node.supervisor import ProcessState


def state(word):
    return ProcessState(role="receiver", state=word, pid=1, silent_s=0.0, restarts=0)


def test_ready_is_said_once_and_every_report_is_a_sign_of_life(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        manager = ServiceManager()
        said = []
        for word in ("starting", "ready", "ready"):
            manager.report([state(word)])
            said.append(systemd.recv(4096).decode().splitlines())
    assert said == [
        ["WATCHDOG=1", "STATUS=receiver starting"],
        ["WATCHDOG=1", "STATUS=receiver ready", "READY=1"],
        ["WATCHDOG=1", "STATUS=receiver ready"],
    ]


def test_a_service_manager_that_is_gone_does_not_end_the_node(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    ServiceManager().report([state("ready")])
    monkeypatch.delenv("NOTIFY_SOCKET")
    ServiceManager().report([state("ready")])
