"""The engine is started while a study is still arriving."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from rebrain_node.app.compose import State, open_state
from rebrain_node.errors import EngineError
from rebrain_node.reception.completeness import QuietPeriodTracker
from rebrain_node.reception.inbox import InboxFolder, Spool
from rebrain_node.settings import load_settings
from rebrain_node.worker.watcher import Watcher
from rebrain_node.worker.work import Work
from tests.support import arrivals
from tests.support.phantoms import head_ct
from tests.support.scripted_pacs import encoded

LONG_S = 1000.0


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    config = tmp_path / "node.toml"
    config.write_text(f'[storage]\nfolder = "{tmp_path}/state"\n')
    with open_state(load_settings(config)) as opened:
        yield opened


def take(state: State, instance: Dataset) -> None:
    spool = Spool(state.inbox, state.ledger, hard_mark_bytes=0)
    arrivals.take(spool, encoded(instance, ExplicitVRLittleEndian), "CT")


def watcher_of(state: State, ports: Callable[[], Any]) -> Watcher:
    """A watcher for which no study ever counts as complete."""
    nothing = cast(Any, None)
    inbox = InboxFolder(state.inbox, state.ledger)
    work = Work(
        ledger=state.ledger,
        outbox=state.outbox,
        ports=ports,
        configuration=nothing,
        destinations=(),
    )
    return Watcher(
        work=work,
        workflows=nothing,
        inbox=lambda: inbox,
        settling=QuietPeriodTracker(
            quiet_period_s=LONG_S, maximum_wait_s=LONG_S, resume_wait_s=LONG_S
        ),
        listening=state.listening,
        folder=state.folder,
        soft_mark_bytes=0,
        recall=state.recall,
    )


def test_the_engine_starts_with_the_first_instance_of_a_study_and_not_before(state):
    started = threading.Event()
    watcher = watcher_of(state, started.set)
    watcher.poll()
    assert not started.wait(0.3)
    take(state, head_ct(rows=24, columns=24)[0])
    watcher.poll()
    assert started.wait(60)
    assert len(state.ledger.studies_in_reception()) == 1


def test_an_engine_that_does_not_start_leaves_the_watcher_at_work(state):
    tried = threading.Event()

    def fail() -> None:
        tried.set()
        raise EngineError("there is no engine")

    watcher = watcher_of(state, fail)
    take(state, head_ct(rows=24, columns=24)[0])
    watcher.poll()
    assert tried.wait(60)
    watcher.work = replace(watcher.work, ports=cast(Any, None))
    watcher.poll()
    assert len(state.ledger.studies_in_reception()) == 1
