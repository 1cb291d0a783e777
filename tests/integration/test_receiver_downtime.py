"""A receiver that is killed while a study arrives: its absence is no silence of the sender."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rebrain_node.reception.completeness import QuietPeriodTracker, Verdict
from rebrain_node.store.database import Database
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.listening import ListeningClock
from tests.faults.receiving import receiving
from tests.support.dicom_peers import associated, instance, send

pytestmark = pytest.mark.hazard("H18")
QUIET_S, RESUME_S = 0.5, 2.0


class Worker:
    """What the worker asks, over the database that the receiver's process writes."""

    def __init__(self, folder: Path) -> None:
        self.database = Database.open(f"sqlite:///{folder}/node.sqlite")
        self.tracker = QuietPeriodTracker(
            quiet_period_s=QUIET_S, maximum_wait_s=60, resume_wait_s=RESUME_S
        )

    def listened_s(self) -> float:
        return ListeningClock(self.database).read().listened_s

    def poll(self) -> Verdict | None:
        studies = Ledger(self.database).studies_in_reception()
        found = self.tracker.settled(studies, ListeningClock(self.database).read())
        return found[0][1] if found else None

    def wait(self, until: Callable[[], object]) -> Verdict | None:
        """Poll until a study is settled or ``until`` holds."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if (verdict := self.poll()) is not None:
                return verdict
            if until():
                return None
            time.sleep(0.02)
        raise AssertionError("neither came")


def begin(folder: Path) -> Worker:
    """Send one instance and kill the receiver."""
    with receiving(folder) as (process, port):
        with associated(port) as association:
            assert send(association, instance(1))[0] == 0x0000
        worker = Worker(folder)
        worker.poll()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return worker


def test_a_study_is_not_judged_while_the_receiver_is_down(tmp_path: Path) -> None:
    worker = begin(tmp_path)
    before, deadline = worker.listened_s(), time.monotonic() + 3 * QUIET_S
    assert worker.wait(lambda: time.monotonic() > deadline) is None
    assert worker.listened_s() == before


def test_a_sender_that_resumes_gets_its_study_judged_as_a_whole(tmp_path: Path) -> None:
    worker = begin(tmp_path)
    with receiving(tmp_path) as (_, port):
        start = worker.listened_s()
        assert worker.wait(lambda: worker.listened_s() - start > 2 * QUIET_S) is None
        with associated(port) as association:
            assert send(association, instance(2), instance="1.2.3.4.2")[0] == 0x0000
        verdict = worker.wait(lambda: False)
    assert verdict is not None
    assert verdict.reason == "QUIET"
    assert Ledger(worker.database).counts().instances == 2


def test_a_sender_that_does_not_resume_is_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    worker = begin(tmp_path)
    with receiving(tmp_path):
        start = worker.listened_s()
        verdict = worker.wait(lambda: False)
    assert verdict is not None
    assert verdict.reason == "NOT-RESUMED"
    assert worker.listened_s() - start >= RESUME_S
