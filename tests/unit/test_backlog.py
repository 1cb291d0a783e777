"""A late result is an alarm: `status` names what waits too long and ends with 1 (hazard H19)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from rebrain_node.app.compose import open_state
from rebrain_node.app.presence import one_node, write_processes
from rebrain_node.cli import program
from rebrain_node.domain.backlog import late
from rebrain_node.domain.delivery import Delivery
from rebrain_node.domain.ledger import SeriesRecord
from rebrain_node.settings import Settings
from rebrain_node.supervisor import ProcessState
from tests.support.store_cases import received

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def series(uid, state, minutes):
    return SeriesRecord(
        series_instance_uid=uid, study_instance_uid="1.2", state=state, revision=1,
        instance_count=30, completeness=None, findings=(), explanation=(),
        changed_at=NOW - timedelta(minutes=minutes),
    )  # fmt: skip


def delivery(uid, minutes):
    return Delivery(
        set_id=1, destination="pacs", study_instance_uid="1.2", source_series_uid=uid, revision=1,
        states={"pending": 3}, attempts=9, reason="refused", since=NOW - timedelta(minutes=minutes),
    )  # fmt: skip


@pytest.mark.hazard("H19")
def test_what_waits_too_long_is_listed_the_longest_first_and_what_has_ended_is_not():
    records = [
        series("1.1", "accepted", 90),
        series("1.2", "receiving", 59),
        series("1.3", "published", 5000),
        series("1.4", "refused", 5000),
        series("1.5", "failed", 5000),
        series("1.6", "complete", 61),
    ]
    overdue = late(records, [delivery("1.7", 300), delivery("1.8", 2)], NOW, 60.0)
    minute = timedelta(minutes=1)
    listed = [(w.series_instance_uid, w.waits_for, (NOW - w.since) / minute) for w in overdue]
    assert listed == [("1.7", "pacs", 300.0), ("1.1", "accepted", 90.0), ("1.6", "complete", 61.0)]


@pytest.mark.hazard("H19")
def test_status_ends_with_1_while_something_is_late(tmp_path, monkeypatch):
    folder = tmp_path / "state"
    monkeypatch.setenv("REBRAIN_STORAGE__FOLDER", str(folder))
    monkeypatch.setenv("REBRAIN_STORAGE__SOFT_MARK_BYTES", "0")
    with open_state(Settings()) as state:
        state.ledger.record_received(received())
    command = ["status", "--json", "--late-after"]
    with one_node(folder):  # a node that does not run ends `status` with 1 in any case
        ready = ProcessState(role="receiver", state="ready", pid=1, silent_s=0.0, restarts=0)
        write_processes(folder, [ready])
        calm = CliRunner().invoke(program, [*command, "60"])
        alarm = CliRunner().invoke(program, [*command, "0"])
        told = CliRunner().invoke(program, ["status", "--late-after", "0"])
    assert (calm.exit_code, json.loads(calm.stdout)["late"]) == (0, [])
    assert json.loads(calm.stdout)["checks"]["late"] is None
    assert alarm.exit_code == 1
    answer = json.loads(alarm.stdout)
    assert answer["late"][0]["waits_for"] == "receiving"
    assert answer["why"] == answer["checks"]["late"]
    assert "wait longer than 0 minutes" in answer["why"]
    assert "Late" in told.stdout
