"""Durable work: what a crash and a failure do to it."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from rebrain_node.worker.workflow import FIRST_PAUSE_S, LONGEST_PAUSE_S, pause_s

CHILD = Path(__file__).with_name("durable_child.py")


#: after what is waited for: a step must be recorded, and what may not follow would have followed
LINGER_S = 1.0


def run(
    folder,
    *behaviour,
    series="7",
    seconds=10.0,
    until="",
    linger_s=0.0,
    slot=1,
    accepted_at_s=0.0,
):
    """Run one worker process until it has said ``until``; its result and all lines so far."""
    result = subprocess.run(
        [sys.executable, CHILD, folder, str(slot), str(seconds), *behaviour],
        env={
            **os.environ,
            "SERIES": series,
            "UNTIL": until,
            "LINGER_S": str(linger_s),
            "ACCEPTED_AT_S": str(accepted_at_s),
            "PYTHONPATH": str(CHILD.parents[2]),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = folder / "lines"
    return result, lines.read_text().splitlines() if lines.exists() else []


def test_a_series_is_synthesised_once(tmp_path):
    # Not stopped at the line itself: a process that ends before its step is recorded does it again.
    run(tmp_path, until="synthesise 7 1 1", linger_s=LINGER_S)
    _, lines = run(tmp_path, "report", seconds=0, linger_s=LINGER_S)
    assert lines == ["synthesise 7 1 1", "closed", "given-up False", "closed"]


def test_a_series_that_is_accepted_again_is_synthesised_again(tmp_path):
    run(tmp_path, until="synthesise 7 1 1", linger_s=LINGER_S)
    until = "synthesise 7 1 1 & synthesise 7 1 1"
    _, lines = run(tmp_path, until=until, accepted_at_s=60.0, linger_s=LINGER_S)
    assert lines.count("synthesise 7 1 1") == 2


def test_a_failure_is_tried_again_after_a_pause(tmp_path):
    _, lines = run(tmp_path, "fail", until="synthesise 7 1 3")
    assert lines == ["synthesise 7 1 1", "synthesise 7 1 2", "synthesise 7 1 3", "closed"]


def test_a_series_that_kills_its_worker_is_given_up_after_three_tries(tmp_path):
    codes = [run(tmp_path, "die")[0].returncode for _ in range(3)]
    result, lines = run(tmp_path, "die", "report", seconds=2)
    assert codes == [-9, -9, -9]
    assert result.returncode == 0
    assert lines.count("synthesise 7 1 1") == 3
    assert "given-up True" in lines


def test_a_clean_stop_does_not_count_as_a_crash(tmp_path):
    for count in range(1, 5):
        run(tmp_path, "slow", until="synthesise 7 1 1\nclosed\n" * (count - 1) + "synthesise 7 1 1")
    _, lines = run(tmp_path, until="synthesise 7 1 1\nclosed\n" * 4 + "synthesise 7 1 1")
    assert lines.count("synthesise 7 1 1") == 5


def test_work_of_a_slot_that_no_longer_exists_is_taken_over(tmp_path):
    run(tmp_path, "die", slot=2)
    _, lines = run(tmp_path, slot=1, until="synthesise 7 1 1\nsynthesise 7 1 1")
    assert lines.count("synthesise 7 1 1") == 2


def test_no_pickled_object_is_kept(tmp_path):
    run(tmp_path, "fail", until="7 1 2")
    with sqlite3.connect(tmp_path / "progress.sqlite") as database:
        kinds = {row[0] for row in database.execute("SELECT serialization FROM workflow_status")}
    database.close()
    assert kinds == {"portable_json"}


@pytest.mark.parametrize("attempt", range(1, 40))
def test_the_pause_doubles_up_to_the_longest_and_repeats_itself(attempt):
    pause = pause_s(attempt, "7:pacs")
    full = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (attempt - 1))
    assert 0.75 * full <= pause <= full
    assert pause == pause_s(attempt, "7:pacs")
