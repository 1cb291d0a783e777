"""A machine that freezes, dies or is poisoned: another does its work, once."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from rebrain_node.app.membership import TAKEN_OVER_EXIT_CODE
from rebrain_node.domain.audit import Event
from tests.support.machines import ROOT, SharedNode, end
from tests.support.quick_node import wait_for


@pytest.fixture
def node(tmp_path, postgres_url):
    return SharedNode(tmp_path, postgres_url)


def joined(node, count):
    with node.state() as state:
        return [each.state for each in state.executors.all()].count("runs") == count


def events(state, event):
    return state.audit.events(100, event=event)


def test_the_work_of_a_frozen_machine_is_done_by_another_within_30_s_and_its_late_result_refused(
    node,
):
    """The clock of one machine is an hour ahead of the other's."""
    machines = {
        "a": node.start("a", 6.0),
        "b": node.start("b", 6.0, "--ahead-s", "3600"),
    }
    try:
        wait_for(lambda: joined(node, 2), say=lambda: node.log("a") + node.log("b"))
        node.accept_series(1)
        wait_for(node.begun)
        (first,) = node.begun()
        frozen = machines[first]
        frozen.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        wait_for(lambda: len(node.begun()) == 2, 60.0, lambda: node.log("a") + node.log("b"))
        took_s = time.monotonic() - began
        wait_for(lambda: node.states() == ["synthesised"])
        frozen.send_signal(signal.SIGCONT)  # its engine goes on to its end
        assert frozen.wait(timeout=30) == TAKEN_OVER_EXIT_CODE, node.log(first)
        other = next(name for name in machines if name != first)
        assert node.begun() == [first, other]
        with node.state() as state:
            assert len(events(state, Event.SERIES_SYNTHESISED)) == 1
            (event,) = events(state, Event.PROCESS_TAKEN_OVER)
            assert event.subject == f"{first}/worker-1"
            assert state.audit.verify().intact
            assert state.ledger.counts().conserved
            duties = {each.machine: each.duties for each in state.executors.all()}
            assert duties[other] == ("judging",)
    finally:
        for process in machines.values():
            process.send_signal(signal.SIGCONT)
            end(process)
    assert took_s < 30.0


@pytest.mark.slow
def test_a_series_that_ends_every_worker_fails_after_three_tries_on_two_machines_and_is_retried(
    node,
):
    node.accept_series(1)
    for machine in ("a", "b", "b"):
        poisoned = node.start(machine, 0.0, "--kills")
        assert poisoned.wait(timeout=60) == -signal.SIGKILL, node.log(machine)
        end(poisoned)
    assert node.begun() == ["a", "b", "b"]
    sane = node.start("b", 0.1)
    try:
        wait_for(lambda: node.states() == ["failed"], 60.0, lambda: node.log("b"))
        with node.state() as state:
            (record,) = state.ledger.series()
            assert "tried 3 times" in record.findings[0].sentence
            uid = record.series_instance_uid
            state.ledger.retry(uid, operator="test", reason="the engine was repaired")
            assert state.ledger.series_one(uid).state == "complete"
    finally:
        end(sane)


@pytest.mark.slow
def test_a_database_that_was_away_for_25_s_makes_nobody_look_dead(node, postgres_cluster):
    machines = {name: node.start(name, 2.0) for name in "ab"}
    try:
        wait_for(lambda: joined(node, 2), say=lambda: node.log("a") + node.log("b"))
        node.accept_series(6)
        wait_for(lambda: len(node.begun()) >= 2)
        postgres_cluster.stop()
        time.sleep(25.0)
        postgres_cluster.start()
        wait_for(lambda: node.states() == ["synthesised"] * 6, say=lambda: node.log("a"))
        assert [each.poll() for each in machines.values()] == [None, None]
        with node.state() as state:
            assert len(events(state, Event.SERIES_SYNTHESISED)) == 6
            assert events(state, Event.PROCESS_TAKEN_OVER) == ()
            assert state.audit.verify().intact
    finally:
        for process in machines.values():
            end(process)


SUPERVISOR = """
import json, sys
from rebrain_node import supervisor
supervisor.SILENT_S = 2.0
role = supervisor.Role(name="worker-1", command=tuple(json.loads(sys.argv[1])))
sys.exit(supervisor.supervise([role]))
"""


def test_a_synthesis_that_hangs_is_ended_and_tried_again(node):
    """The engine sleeps for 300 s, and 1 s is allowed."""
    node.accept_series(1)
    command = json.dumps(node.command("a", 300.0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REBRAIN_MODEL__LONGEST_SYNTHESIS_S": "1"}
    with (node.folder / "a.log").open("wb") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, command], env=environment, stderr=log
        )
    try:
        wait_for(lambda: len(node.begun()) == 2, say=lambda: node.log("a"))
        with node.state() as state:
            (event,) = events(state, Event.PROCESS_RESTARTED)
            assert event.subject == "worker-1"
    finally:
        supervisor.terminate()
        assert supervisor.wait(timeout=30) == 0
