"""kill -9 under traffic loses nothing that was acknowledged, and leaves nothing half done."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.ledger import Ledger
from tests.support.dicom_peers import associate, instance, pause_reactor, send


@contextmanager
def receiving(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.receiver_process", str(folder)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def send_until_it_dies(port: int, numbers: Iterator[int], acknowledged: list[int]) -> None:
    association = associate(port)
    if not association.is_established:
        return
    pause = pause_reactor(association)
    for number in numbers:
        try:
            status, _ = send(association, instance(number), instance=f"1.2.3.4.{number}")
        except (AssertionError, RuntimeError):
            break
        assert status == 0x0000
        acknowledged.append(number)
    association.abort()
    pause.end()


def check_nothing_lost(folder: Path, acknowledged: list[int]) -> None:
    with Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        held = {each.sop_instance_uid: each for each in Ledger(database).instances(study="1.2.3")}
        assert AuditLog(database).verify().intact
    for number in acknowledged:
        stored = held[f"1.2.3.4.{number}"]
        content = (folder / "inbox" / stored.path).read_bytes()
        assert content.endswith(instance(number))
        assert hashlib.sha256(content).hexdigest() == stored.sha256
    assert len(held) - len(acknowledged) in {0, 1}, "at most the one that was not yet answered"


def kill_under_traffic(folder: Path, times: int, seed: int) -> None:
    generator = random.Random(seed)
    acknowledged: list[int] = []
    numbers = iter(range(1, 10**6))
    for _ in range(times):
        before = len(acknowledged)
        with receiving(folder) as (process, port):
            thread = threading.Thread(target=send_until_it_dies, args=(port, numbers, acknowledged))
            thread.start()
            deadline = time.monotonic() + 60
            while len(acknowledged) < before + 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(generator.random() * 0.05)
            os.kill(process.pid, signal.SIGKILL)
            thread.join(90)
        assert len(acknowledged) >= before + 3
        number = acknowledged[-1] + 1  # what was on its way is sent again
        with receiving(folder) as (_, port):
            association = associate(port)
            status, _ = send(association, instance(number), instance=f"1.2.3.4.{number}")
            assert status == 0x0000
            acknowledged.append(number)
            association.abort()
            pause_reactor(association).end()
        check_nothing_lost(folder, acknowledged)
        assert not list(folder.rglob("*.writing"))


def test_two_kills_under_traffic_lose_nothing(tmp_path: Path) -> None:
    kill_under_traffic(tmp_path, 2, seed=1)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_fifty_kills_under_traffic_lose_nothing(tmp_path: Path) -> None:
    kill_under_traffic(tmp_path, 50, seed=2)
