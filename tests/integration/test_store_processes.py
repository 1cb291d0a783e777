"""The store under several processes, and under kill -9 in the middle of its work."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rebrain_node.domain.job import Job
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox
from tests.support.store_cases import derived_set

ROOT = Path(__file__).resolve().parents[2]
APPEND = """
import sys
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.deliveries import Deliveries
with Database.open(sys.argv[1]) as database:
    for n in range(int(sys.argv[3])):
        AuditLog(database).record("step.completed", sys.argv[2], {"n": n})
"""
WORK = """
import sys
from pathlib import Path
from rebrain_node.store.database import Database
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox
from tests.support.store_cases import accept, derived_set, received
with Database.open(sys.argv[1]) as database:
    ledger, outbox = Ledger(database), Outbox(database, Path(sys.argv[2]))
    first = int(sys.argv[3])
    print("ready", flush=True)
    for n in range(first, first + 1000):
        study, series = f"1.2.{n}", f"1.2.{n}.1"
        for instance in (1, 2):
            one = received(instance, series, study)
            ledger.record_received(one)
            print("acknowledged", one.sop_instance_uid, flush=True)
        job = accept(ledger, series, study)
        outbox.put(derived_set(job, instances=4), ["pacs"], job)
        print("put", series, flush=True)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/node.sqlite"


def test_processes_that_append_at_once_make_one_chain_without_a_gap(url: str) -> None:
    """They also open, and so migrate, the new database at the same time."""
    writers = [start(APPEND, url, name, "60") for name in ("receiver", "worker", "other")]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    with Database.open(url) as database:
        log = AuditLog(database)
        rows = log.events(1000)
        assert [one.sequence for one in rows] == list(range(1, 181))
        assert log.verify().intact
        for name in ("receiver", "worker", "other"):
            assert [one.details["n"] for one in rows if one.subject == name] == list(range(60))
        # a negative control: they really ran at once
        assert len({one.subject for one in rows[:-60]}) > 1


def kills() -> int:
    return 40 if os.environ.get("REBRAIN_FULL") == "1" else 6


def test_a_killed_process_leaves_all_of_a_change_or_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("REBRAIN_SEED", random.SystemRandom().randrange(10**6)))
    print(f"REBRAIN_SEED={seed}")  # noqa: T201 - so that a failure can be run again
    chance = random.Random(seed)
    url, outbox_folder = f"sqlite:///{tmp_path}/node.sqlite", tmp_path / "outbox"
    acknowledged: set[str] = set()
    put: set[str] = set()
    for n in range(kills()):
        process = start(WORK, url, str(outbox_folder), str(1000 * n + 1000))
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.8))
        process.send_signal(signal.SIGKILL)
        for line in process.stdout.read().splitlines():
            word, _, uid = line.partition(" ")
            (acknowledged if word == "acknowledged" else put).add(uid)
        process.stdout.close()
        process.wait()
        _check(url, outbox_folder, acknowledged, put)
    assert acknowledged
    assert put


def _check(url: str, folder: Path, acknowledged: set[str], put: set[str]) -> None:
    with Database.open(url) as database:
        ledger, outbox, log = Ledger(database), Outbox(database, folder), AuditLog(database)
        assert log.verify().intact
        assert ledger.counts().conserved
        held = {one.sop_instance_uid for one in ledger.instances()}
        told = {one.subject for one in log.events(10**6, event="instance.received")}
        assert acknowledged <= held == told
        assert all(one.instance_count == len(ledger.instances(series=one.series_instance_uid))
                   for one in ledger.series())  # fmt: skip
        synthesised = {one.series_instance_uid for one in ledger.series("synthesised")}
        pending = {one.source_series_uid: one for one in Deliveries(database).pending()}
        assert put <= synthesised == pending.keys()
        for series, delivery in pending.items():
            job = Job(study_instance_uid=delivery.study_instance_uid, series_instance_uid=series)
            assert outbox.instances_of(delivery.set_id) == derived_set(job, instances=4).instances
        assert not list(folder.glob("*.writing"))
