"""kill -9 of the worker after any committed change, and run again: exactly one set, sent once."""

import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from rebrain_node.app.compose import open_state
from rebrain_node.network.mini_pacs import MiniPacs
from rebrain_node.reception.inbox import Spool
from rebrain_node.reception.listening import count_listening
from tests.support import phantoms
from tests.support.arrivals import take
from tests.support.quick_node import make_node, wait_for, write_quick_bundle

WORKER = Path(__file__).with_name("killed_worker.py")
#: start with bundle and worker, inquiry, complete and judged, then the steps of the path
CHANGES = [("", n) for n in range(1, 19)]
BOUNDED = [
    ("Inquiries.of_study", 1), ("Ledger.complete", 1), ("Outbox.put", 1), ("Deliveries.record", 1)
]  # fmt: skip


@pytest.fixture(scope="module")
def quick_bundle(tmp_path_factory):
    return write_quick_bundle(tmp_path_factory.mktemp("bundle") / "quick", spacing_mm=15.0)


def _name(last):
    method, n = last
    return f"{method or 'any'} {n}"


@pytest.mark.parametrize(
    "last", [*BOUNDED, *(pytest.param(each, marks=pytest.mark.full) for each in CHANGES)], ids=_name
)
def test_a_worker_killed_after_any_change_leaves_exactly_one_set(tmp_path, quick_bundle, last):
    with MiniPacs("PACS", tmp_path / "pacs") as pacs:
        node = make_node(tmp_path, quick_bundle, "PACS", pacs.port)
        _receive(node)
        first = _worker(node, last)
        with _listening(node):
            assert first.wait(timeout=120) == -9
        _end(first)
        second = _worker(node)
        try:
            with _listening(node):
                wait_for(lambda: _published(node), say=node.states)
        finally:
            _end(second)
        with node.state() as state:
            events = Counter(str(event.event) for event in state.audit.events(10_000))
            assert state.audit.verify().intact
            assert state.ledger.counts().conserved
            sent = {one.sop_instance_uid: one.content for one in _instances(state)}
        assert events["series.synthesised"] == events["series.published"] == 1
        assert {path.stem for path in pacs.instances()} == sent.keys()


#: the check's refusal is written, and the study is judged without the series
REFUSED_AND_JUDGED = [("Ledger.refuse_selected", 1), ("Ledger.judge", 2)]


@pytest.mark.parametrize("last", REFUSED_AND_JUDGED, ids=_name)
def test_a_worker_killed_between_two_choices_makes_the_second_once(tmp_path, quick_bundle, last):
    preferred = phantoms.head_ct(metal=True, slice_thickness_mm=6.0)
    following = phantoms.head_ct(series_number=3, series_description="Head 5.0 again")
    with MiniPacs("PACS", tmp_path / "pacs") as pacs:
        node = make_node(tmp_path, quick_bundle, "PACS", pacs.port)
        _receive(node, [*preferred, *following])
        uid, taken = (str(series[0].SeriesInstanceUID) for series in (preferred, following))
        first = _worker(node, last)
        with _listening(node):
            assert first.wait(timeout=120) == -9
        _end(first)
        assert node.states()[uid] == "refused"
        second = _worker(node)
        try:
            with _listening(node):
                wait_for(lambda: node.states()[taken] == "published", say=node.states)
        finally:
            _end(second)
        with node.state() as state:
            events = [(str(e.event), e.subject) for e in state.audit.events(10_000)]
            assert state.audit.verify().intact
            assert state.ledger.counts().conserved
        assert [s for e, s in events if e == "series.accepted"] == [uid, taken]
        assert [s for e, s in events if e == "series.synthesised"] == [taken]
        assert node.states()[uid] == "refused"


def _receive(node, instances=None):
    """Put a study into the inbox as the receiver does."""
    with open_state(node.settings) as state:
        spool = Spool(state.inbox, state.ledger, hard_mark_bytes=0)
        for path in phantoms.write(instances or phantoms.head_ct(), node.folder / "study"):
            content = path.read_bytes()
            take(spool, content, "PACS")


@contextmanager
def _listening(node):
    """Count time as a receiver does that listens and gets nothing more."""
    stop = threading.Event()
    with open_state(node.settings) as state:
        thread = threading.Thread(
            target=count_listening, args=(state.listening, state.ledger.has_reception, stop)
        )
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _worker(node, last=("", 0)):
    """Start a worker that dies after a method's N-th change ("": any method; 0: it lives)."""
    method, n = last
    log = (node.folder / "worker.log").open("ab")
    environment = {**os.environ, "PYTHONPATH": str(WORKER.parents[2])}
    with log:
        return subprocess.Popen(
            [sys.executable, WORKER, node.config, str(n), *([method] if method else [])],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=log,
        )  # fmt: skip


def _end(process):
    """Close the parent-death pipe, as the end of the supervisor does."""
    process.stdin.close()
    process.wait(timeout=20)


def _published(node):
    return list(node.states().values()) == ["published"]


def _instances(state):
    (record,) = state.ledger.series()
    return state.outbox.instances_of(state.outbox.set_of(record.series_instance_uid, 1))
