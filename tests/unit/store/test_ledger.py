"""The ledger: what is known, what may follow on what, and that no series is ever lost."""

from __future__ import annotations

import itertools
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from rebrain_node.domain.audit import Event
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ledger import Judgement, SeriesState
from rebrain_node.errors import (
    InstanceConflictError,
    OutOfResourcesError,
    StateError,
    SupersededError,
)
from rebrain_node.store import database as database_module
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.series import TRANSITIONS
from tests.support.store_cases import accept, complete_all, received

GAP = Finding(code="GEOM-GAP", sentence="One slice is missing.", value=10.0, limit=5.5)
#: how a series gets from ``complete`` into each state
WAYS: dict[SeriesState, tuple[SeriesState, ...]] = {
    "complete": (),
    "held": ("held",),
    "refused": ("refused",),
    "accepted": ("accepted",),
    "synthesised": ("accepted", "synthesised"),
    "published": ("accepted", "synthesised", "published"),
    "failed": ("accepted", "failed"),
}


@pytest.fixture
def events(database: Database):
    return lambda event: AuditLog(database).events(1000, event=event)


def state_of(ledger: Ledger, series: str = "1.2.1.1") -> tuple[str, int]:
    record = ledger.series_one(series)
    assert record is not None
    return record.state, record.revision


def test_a_new_instance_is_written_with_its_audit_row(ledger: Ledger, events) -> None:
    assert ledger.record_received(received(1)) == "new"
    (row,) = events(Event.INSTANCE_RECEIVED)
    assert row.subject == received(1).sop_instance_uid
    assert row.details["sha256"] == received(1).sha256
    (stored,) = ledger.instances(series="1.2.1.1")
    assert (stored.path, stored.sha256) == (received(1).path, received(1).sha256)
    assert stored.received_at.utcoffset() is not None


@pytest.mark.hazard("H24")
def test_the_same_bytes_again_make_no_new_work(ledger: Ledger, events) -> None:
    ledger.record_received(received(1))
    assert ledger.record_received(received(1)) == "same"
    assert len(events(Event.INSTANCE_RECEIVED)) == 1
    assert ledger.counts().instances == 1


def test_other_bytes_under_a_known_uid_are_refused_and_quarantined_once(
    ledger: Ledger, events
) -> None:
    ledger.record_received(received(1))
    for _ in range(3):
        with pytest.raises(InstanceConflictError, match="other content") as caught:
            ledger.record_received(received(1, content="changed"))
    assert (caught.value.status, caught.value.reason) == (0x0117, "SAME-UID-OTHER-BYTES")
    assert len(events(Event.INSTANCE_CONFLICT)) == 1
    assert ledger.counts().quarantined == 1
    assert ledger.instances(study="1.2.1")[0].sha256 == received(1).sha256


def test_a_series_seen_in_two_studies_is_refused(ledger: Ledger) -> None:
    ledger.record_received(received(1))
    with pytest.raises(InstanceConflictError, match="another study") as caught:
        ledger.record_received(received(2, study="1.2.99"))
    assert caught.value.reason == "SERIES-OF-OTHER-STUDY"
    assert [one.study_instance_uid for one in ledger.studies_in_reception()] == ["1.2.1"]


def test_a_database_that_fails_is_out_of_resources_and_nothing_is_written(
    folder: Path, ledger: Ledger
) -> None:
    ledger.record_received(received(1))
    connection = sqlite3.connect(folder / "node.sqlite")
    connection.execute("ALTER TABLE audit_event RENAME TO hidden")
    with pytest.raises(OutOfResourcesError) as caught:
        ledger.record_received(received(2))
    assert caught.value.status == 0xA700
    connection.execute("ALTER TABLE hidden RENAME TO audit_event")
    connection.close()
    assert ledger.counts().instances == 1
    assert ledger.record_received(received(2)) == "new"  # recovers by itself


def test_a_database_that_stays_locked_is_out_of_resources(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT_S", 0.1)
    with Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        ledger = Ledger(database)
        other = sqlite3.connect(folder / "node.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutOfResourcesError, match="locked"):
            ledger.record_received(received(1))
        other.execute("COMMIT")
        other.close()
        assert ledger.record_received(received(1)) == "new"


def test_a_study_with_news_is_not_taken_as_complete(ledger: Ledger) -> None:
    ledger.record_received(received(1))
    (before,) = ledger.studies_in_reception()
    ledger.record_received(received(2))
    assert not ledger.complete(before, {})
    (now,) = ledger.studies_in_reception()
    assert (now.instance_count, now.last_ledger_id) == (2, before.last_ledger_id + 1)
    assert ledger.complete(now, {"expected": 2})
    assert not ledger.complete(now, {"expected": 2})
    assert ledger.studies_in_reception() == ()
    assert ledger.studies_to_judge() == ("1.2.1",)
    record = ledger.series_one("1.2.1.1")
    assert record is not None
    assert (record.state, record.completeness) == ("complete", "UNVERIFIED")


@pytest.mark.hazard("H22")
def test_judgements_are_written_with_findings_and_audit_rows(ledger: Ledger, events) -> None:
    ledger.record_received(received(1))
    ledger.record_received(received(1, series="1.2.1.2"))
    complete_all(ledger)
    ledger.judge(
        "1.2.1",
        [
            Judgement(series_instance_uid="1.2.1.1", revision=1, decision="accepted"),
            Judgement(
                series_instance_uid="1.2.1.2",
                revision=1,
                decision="refused",
                findings=(GAP,),
                explanation=("ranked second",),
            ),
        ],
    )
    assert [one.series_instance_uid for one in ledger.series("accepted")] == ["1.2.1.1"]
    (refused,) = ledger.series("refused")
    assert (refused.findings, refused.explanation) == ((GAP,), ("ranked second",))
    assert len(events(Event.SERIES_ACCEPTED)) == 1
    assert events(Event.SERIES_REFUSED)[0].details["findings"][0]["code"] == "GEOM-GAP"
    assert ledger.studies_to_judge() == ()


def test_judging_again_changes_nothing(ledger: Ledger, events) -> None:
    ledger.record_received(received(1))
    accept(ledger)
    accept(ledger)
    assert len(events(Event.SERIES_ACCEPTED)) == 1


@pytest.mark.hazard("H18")
def test_a_judgement_over_older_instances_is_superseded(ledger: Ledger) -> None:
    judgement = Judgement(series_instance_uid="1.2.1.1", revision=1, decision="accepted")
    ledger.record_received(received(1))
    complete_all(ledger)
    ledger.record_received(received(2))
    with pytest.raises(SupersededError, match="new instances"):
        ledger.judge("1.2.1", [judgement])
    complete_all(ledger)
    with pytest.raises(SupersededError, match="revision 2"):
        ledger.judge("1.2.1", [judgement])
    ledger.judge("1.2.1", [replace(judgement, revision=2)])
    assert state_of(ledger) == ("accepted", 2)


def test_a_judgement_must_cover_the_whole_study_and_no_other(ledger: Ledger) -> None:
    ledger.record_received(received(1))
    ledger.record_received(received(1, series="1.2.1.2"))
    complete_all(ledger)
    one = Judgement(series_instance_uid="1.2.1.1", revision=1, decision="accepted")
    with pytest.raises(SupersededError, match=r"1\.2\.1\.2 has no judgement"):
        ledger.judge("1.2.1", [one])
    with pytest.raises(StateError, match="not of study"):
        ledger.judge("1.2.1", [one, replace(one, series_instance_uid="9.9")])
    assert ledger.counts().by_state["complete"] == 2


@pytest.mark.hazard("H18")
@pytest.mark.parametrize("state", [*WAYS])
def test_a_late_instance_makes_a_new_revision_whatever_the_state(
    ledger: Ledger, events, state: SeriesState
) -> None:
    ledger.record_received(received(1))
    complete_all(ledger)
    for step in WAYS[state]:
        ledger.transition("1.2.1.1", 1, step, Event.STEP_COMPLETED, {})
    ledger.record_received(received(2))
    assert state_of(ledger) == ("receiving", 2)
    (row,) = events(Event.SERIES_REOPENED)
    assert row.details["state_before"] == state
    assert len(ledger.studies_in_reception()) == 1
    with pytest.raises(SupersededError, match="revision 2"):
        ledger.transition("1.2.1.1", 1, "failed", Event.SERIES_FAILED, {})


def test_a_late_series_leaves_its_judged_sibling_alone(ledger: Ledger) -> None:
    ledger.record_received(received(1))
    accept(ledger)
    ledger.record_received(received(1, series="1.2.1.2"))
    assert state_of(ledger) == ("accepted", 1)
    accept(ledger, series="1.2.1.2")
    assert state_of(ledger) == ("accepted", 1)
    assert state_of(ledger, "1.2.1.2") == ("accepted", 1)


@pytest.mark.parametrize(
    ("here", "there"), [*itertools.product(WAYS, get_args(SeriesState))], ids=str
)
def test_a_series_goes_only_the_ways_of_the_table(
    ledger: Ledger, events, here: SeriesState, there: SeriesState
) -> None:
    ledger.record_received(received(1))
    complete_all(ledger)
    for step in WAYS[here]:
        ledger.transition("1.2.1.1", 1, step, Event.STEP_COMPLETED, {})
    told = len(events(Event.STEP_COMPLETED))
    if here == there:
        assert not ledger.transition("1.2.1.1", 1, there, Event.STEP_COMPLETED, {})
    elif there in TRANSITIONS[here]:
        assert ledger.transition("1.2.1.1", 1, there, Event.STEP_COMPLETED, {})
        told += 1
        here = there
    else:
        with pytest.raises(StateError, match=f"is {here} and cannot become {there}"):
            ledger.transition("1.2.1.1", 1, there, Event.STEP_COMPLETED, {})
    assert state_of(ledger) == (here, 1)
    assert len(events(Event.STEP_COMPLETED)) == told


def test_a_transition_with_an_unknown_event_changes_nothing(ledger: Ledger) -> None:
    ledger.record_received(received(1))
    accept(ledger)
    with pytest.raises(StateError, match="is no audit event"):
        ledger.transition("1.2.1.1", 1, "failed", "series.vanished", {})
    assert state_of(ledger) == ("accepted", 1)


@pytest.mark.hazard("H22")
def test_a_transition_shows_the_findings_that_caused_it(ledger: Ledger, events) -> None:
    ledger.record_received(received(1))
    accept(ledger)
    ledger.transition("1.2.1.1", 1, "refused", Event.SERIES_REFUSED, {}, (GAP,))
    record = ledger.series_one("1.2.1.1")
    assert record is not None
    assert record.findings == (GAP,)
    assert events(Event.SERIES_REFUSED)[0].details["findings"][0]["limit"] == 5.5


def test_what_the_ledger_does_not_know_is_said(ledger: Ledger) -> None:
    assert ledger.series_one("9.9") is None
    with pytest.raises(StateError, match="no series"):
        ledger.transition("9.9", 1, "failed", Event.SERIES_FAILED, {})
