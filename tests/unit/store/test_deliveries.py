"""Deliveries: every answer of a destination, the end of a series, and an operator's decisions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import (
    Answer,
    HeldObject,
    Outcome,
    outcome_of,
)
from rebrain_node.domain.job import DerivedInstance, Job
from rebrain_node.errors import StateError
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.ledger import Ledger
from rebrain_node.store.outbox import Outbox
from rebrain_node.store.retention import RetentionRules
from tests.faults.statuses import CASES, Case
from tests.support.outbox_node import OutboxNode
from tests.support.store_cases import accept, answers, derived_set, received


def state_of(ledger: Ledger) -> str:
    record = ledger.series_one("1.2.1.1")
    assert record is not None
    return record.state


def put(outbox: Outbox, job: Job, *destinations: str) -> tuple[int, tuple[DerivedInstance, ...]]:
    """Put a set of two MR slices and a key object; its id and instances."""
    derived = derived_set(job)
    return outbox.put(derived, destinations, job), derived.instances


@pytest.mark.parametrize("case", CASES, ids=[f"{case.status:04X}" for case in CASES])
def test_every_status_of_the_standard_has_its_outcome_and_its_state(
    outbox: Outbox, deliveries: Deliveries, job: Job, case: Case
) -> None:
    assert outcome_of(case.status) == case.outcome
    set_id, (first, *_) = put(outbox, job, "pacs")
    deliveries.record(set_id, "pacs", answers([first], case.outcome, case.status))
    (one, *others) = deliveries.objects(set_id)
    assert (one.state, one.status) == (case.state, case.status)
    assert {other.state for other in others} == {"pending"}


def test_every_other_status_is_tried_again() -> None:
    outcomes = [outcome_of(status) for status in range(0x10000)]
    assert outcomes.count("taken") == outcomes.count("duplicate") == 1
    assert {s for s in range(0x10000) if outcomes[s] == "warning"} == {
        0x0001, 0x0107, 0x0116, *range(0xB000, 0xC000),
    }  # fmt: skip
    refused = {s for s in range(0x10000) if outcomes[s] == "refused"}
    named = {case.status for case in CASES if case.outcome == "refused"}
    assert refused == named | {*range(0xA900, 0xAA00), *range(0xC000, 0xD000)}


def test_the_last_delivery_publishes_the_series(
    outbox: Outbox, deliveries: Deliveries, ledger: Ledger, database: Database, job: Job
) -> None:
    set_id, instances = put(outbox, job, "pacs", "archive")
    deliveries.record(set_id, "pacs", answers(instances))
    assert state_of(ledger) == "synthesised"
    assert [one.destination for one in deliveries.pending()] == ["archive"]
    deliveries.record(set_id, "archive", answers(instances[:-1]))
    assert state_of(ledger) == "synthesised"
    for _ in range(2):
        deliveries.record(set_id, "archive", answers(instances))
    assert state_of(ledger) == "published"
    assert deliveries.pending() == ()
    log = AuditLog(database)
    assert len(log.events(9, event=Event.SERIES_PUBLISHED)) == 1
    assert [row.details["taken"] for row in log.events(9, event="delivery.taken")] == [3, 2, 1]


@pytest.mark.parametrize(("outcome", "status"), [("warning", 0xB000), ("duplicate", 0x0111)])
def test_what_is_taken_with_a_warning_or_held_already_is_not_verified(
    outbox: Outbox, deliveries: Deliveries, database: Database, job: Job, outcome: Outcome,
    status: int,
) -> None:  # fmt: skip
    set_id, (first, *others) = put(outbox, job, "pacs")
    deliveries.record(set_id, "pacs", [*answers([first], outcome, status), *answers(others)])
    (delivery,) = deliveries.of("pacs")
    assert delivery.states == {"unverified": 1, "taken": 2}
    (row,) = AuditLog(database).events(9, event=Event.DELIVERY_TAKEN)
    assert row.details["warnings"] == {first.sop_instance_uid: status}


def test_a_failed_attempt_leaves_the_rest_pending_with_its_reason(
    outbox: Outbox, deliveries: Deliveries, job: Job
) -> None:
    set_id, instances = put(outbox, job, "pacs")
    deliveries.record(set_id, "pacs", answers(instances[:1]))
    deliveries.failed(set_id, "pacs", "no connection")
    deliveries.failed(set_id, "pacs", "no connection yet")
    (pending,) = deliveries.pending("pacs")
    assert (pending.outstanding, pending.attempts, pending.reason) == (2, 2, "no connection yet")
    assert (pending.source_series_uid, pending.revision) == ("1.2.1.1", 1)
    assert deliveries.pending("archive") == ()


def test_a_refusal_fails_the_series_once_nothing_is_pending(
    outbox: Outbox, deliveries: Deliveries, ledger: Ledger, job: Job
) -> None:
    set_id, instances = put(outbox, job, "pacs", "archive")
    deliveries.refused(set_id, "pacs", "0xA900")
    assert state_of(ledger) == "synthesised"
    deliveries.record(set_id, "archive", answers(instances))
    assert state_of(ledger) == "failed"
    assert deliveries.pending() == ()
    assert [one.summary for one in deliveries.of("pacs")] == ["3 refused"]


def test_a_kind_that_is_left_out_does_not_fail_the_series(
    outbox: Outbox, deliveries: Deliveries, ledger: Ledger, job: Job
) -> None:
    set_id, instances = put(outbox, job, "pacs")
    *images, companion = instances
    deliveries.record(
        set_id, "pacs", [*answers(images), *answers([companion], "unsupported", None)]
    )
    assert state_of(ledger) == "published"
    assert deliveries.of("pacs")[0].states == {"taken": 2, "left-out": 1}


def test_companions_of_a_refused_slice_are_left_out(
    outbox: Outbox, deliveries: Deliveries, ledger: Ledger, job: Job
) -> None:
    set_id, (first, second, _) = put(outbox, job, "pacs")
    deliveries.record(set_id, "pacs", answers([first], "refused", 0xC000))
    assert deliveries.of("pacs")[0].states == {"refused": 1, "pending": 2}
    deliveries.record(set_id, "pacs", answers([second]))
    assert deliveries.of("pacs")[0].states == {"refused": 1, "taken": 1, "left-out": 1}
    assert state_of(ledger) == "failed"


def test_a_retried_refusal_is_delivered_and_publishes_the_series(
    outbox: Outbox, deliveries: Deliveries, ledger: Ledger, database: Database, job: Job
) -> None:
    set_id, instances = put(outbox, job, "pacs")
    deliveries.record(
        set_id, "pacs", [*answers(instances[:1]), *answers(instances[1:], "refused", 0xC000)]
    )
    assert state_of(ledger) == "failed"
    assert deliveries.retry(set_id, "pacs", "the PACS is repaired", "someone") == 2
    assert state_of(ledger) == "synthesised"
    assert outbox.outstanding(set_id, "pacs") == instances[1:]
    deliveries.record(set_id, "pacs", answers(instances[1:]))
    assert state_of(ledger) == "published"
    (row,) = AuditLog(database).events(9, event=Event.DELIVERY_RETRIED)
    assert row.details.items() >= {
        "set": set_id, "objects": 2, "reason": "the PACS is repaired", "operator": "someone",
    }.items()  # fmt: skip


def test_a_set_deleted_at_the_destination_can_be_sent_again(
    outbox: Outbox, deliveries: Deliveries, ledger: Ledger, job: Job
) -> None:
    set_id, instances = put(outbox, job, "pacs")
    deliveries.record(set_id, "pacs", answers(instances))
    with pytest.raises(StateError, match="--resend"):
        deliveries.retry(set_id, "pacs", "deleted there", "someone")
    assert deliveries.retry(set_id, "pacs", "deleted there", "someone", resend=True) == 3
    assert outbox.outstanding(set_id, "pacs") == instances
    assert state_of(ledger) == "published"
    deliveries.record(set_id, "pacs", answers(instances))
    assert deliveries.pending() == ()


def test_a_cancelled_delivery_is_over_and_the_other_publishes(
    outbox: Outbox, deliveries: Deliveries, ledger: Ledger, job: Job
) -> None:
    set_id, instances = put(outbox, job, "pacs", "archive")
    assert deliveries.cancel(set_id, "archive", "the archive is gone", "someone") == 3
    with pytest.raises(StateError, match="nothing of set"):
        deliveries.cancel(set_id, "archive", "the archive is gone", "someone")
    deliveries.record(set_id, "pacs", answers(instances))
    assert state_of(ledger) == "published"


def test_a_set_that_is_cancelled_everywhere_is_not_published(
    outbox: Outbox, deliveries: Deliveries, ledger: Ledger, job: Job
) -> None:
    set_id, _ = put(outbox, job, "pacs")
    deliveries.cancel(set_id, "pacs", "wrong patient", "someone")
    assert state_of(ledger) == "failed"


def test_an_answer_that_comes_after_a_cancellation_is_recorded(
    outbox: Outbox, deliveries: Deliveries, job: Job
) -> None:
    set_id, instances = put(outbox, job, "pacs")
    deliveries.cancel(set_id, "pacs", "wrong patient", "someone")
    deliveries.record(set_id, "pacs", answers(instances[:1]))
    assert deliveries.of("pacs")[0].states == {"taken": 1, "cancelled": 2}


def test_a_paused_destination_is_known_until_it_is_resumed(
    deliveries: Deliveries, database: Database
) -> None:
    deliveries.pause("pacs", "maintenance", "someone")
    with pytest.raises(StateError, match="paused already"):
        deliveries.pause("pacs", "maintenance", "someone")
    (paused,) = deliveries.paused()
    assert (paused.destination, paused.reason) == ("pacs", "maintenance")
    deliveries.resume("pacs", "done", "someone")
    assert deliveries.paused() == ()
    with pytest.raises(StateError, match="not paused"):
        deliveries.resume("pacs", "done", "someone")
    log = AuditLog(database)
    assert [row.event for row in log.events(9)] == ["delivery.paused", "delivery.resumed"]


def test_the_end_of_a_superseded_set_does_not_end_the_newer_revision(
    outbox: Outbox, deliveries: Deliveries, ledger: Ledger, job: Job
) -> None:
    set_id, instances = put(outbox, job, "pacs")
    ledger.record_received(received(2))
    deliveries.record(set_id, "pacs", answers(instances))
    assert state_of(ledger) == "receiving"
    newer = accept(ledger)
    assert newer.revision == 2
    assert outbox.put(derived_set(newer), ["pacs"], newer) != set_id


def test_an_unknown_set_or_destination_is_refused(
    outbox: Outbox, deliveries: Deliveries, job: Job
) -> None:
    set_id, (first, *_) = put(outbox, job, "pacs")
    with pytest.raises(StateError, match="archive"):
        deliveries.failed(set_id, "archive", "no connection")
    unknown = Answer(sop_instance_uid="2.25.9", outcome="taken", status=0)
    deliveries.record(set_id, "pacs", [unknown, *answers([replace(first)])])
    assert deliveries.of("pacs")[0].states == {"taken": 1, "pending": 2}


def test_a_set_that_is_held_back_waits_for_an_operator(
    outbox: Outbox, deliveries: Deliveries, ledger: Ledger, job: Job
) -> None:
    set_id, instances = put(outbox, job, "pacs")
    deliveries.hold(set_id, "pacs", "another Patient ID")
    assert deliveries.pending() == ()
    assert deliveries.of("pacs")[0].needs_operator
    assert state_of(ledger) == "synthesised"
    assert deliveries.retry(set_id, "pacs", "corrected", "someone") == 3
    assert outbox.outstanding(set_id, "pacs") == instances
    deliveries.hold(set_id, "pacs", "another Patient ID")
    assert deliveries.cancel(set_id, "pacs", "wrong patient", "someone") == 3
    assert state_of(ledger) == "failed"


def a_note(sop_instance_uid: str = "2.25.900") -> DerivedInstance:
    """A rejection note, which is a key object like the companion of the set."""
    return DerivedInstance(
        kind="KOS",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.59",
        sop_instance_uid=sop_instance_uid,
        series_instance_uid="2.25.901",
        content=b"a rejection note",
    )


def test_a_rejection_note_beside_a_refused_slice_is_tried_again(
    outbox: Outbox, deliveries: Deliveries, job: Job
) -> None:
    set_id, (first, second, _) = put(outbox, job, "pacs")
    deliveries.record(set_id, "pacs", answers([first], "refused", 0xC000) + answers([second]))
    assert deliveries.of()[0].states == {"refused": 1, "taken": 1, "left-out": 1}
    note = a_note()
    assert outbox.add_note(set_id, note, "wrong bundle", "someone") == 1
    deliveries.record(set_id, "pacs", answers([note], "retry", 0xA700))
    assert outbox.outstanding(set_id, "pacs") == (note,)
    deliveries.record(set_id, "pacs", answers([note]))
    assert deliveries.of()[0].states == {"refused": 1, "taken": 2, "left-out": 1}


def test_a_recall_stops_what_is_pending_at_every_destination_and_no_rejection_note(
    outbox: Outbox, deliveries: Deliveries, database: Database, job: Job
) -> None:
    set_id, instances = put(outbox, job, "archive", "pacs")
    deliveries.record(set_id, "pacs", answers(instances[:1]))
    note = a_note()
    outbox.add_note(set_id, note, "wrong bundle", "someone")
    assert deliveries.cancel_recalled(set_id, "recalled: wrong bundle", "someone") == 5
    assert deliveries.cancel_recalled(set_id, "recalled: wrong bundle", "someone") == 0
    assert outbox.outstanding(set_id, "pacs") == (note,)
    assert outbox.outstanding(set_id, "archive") == ()
    rows = AuditLog(database).events(9, event=Event.DELIVERY_CANCELLED)
    assert [row.subject for row in rows] == ["archive", "pacs"]


def test_what_retention_has_deleted_is_not_sent_again(
    stores: OutboxNode, outbox: Outbox, deliveries: Deliveries, job: Job
) -> None:
    set_id, instances = put(outbox, job, "pacs")
    deliveries.record(set_id, "pacs", answers(instances))
    held = [
        HeldObject(sop_instance_uid=one.sop_instance_uid, held=True, changed=())
        for one in instances
    ]
    stores.confirmations.verify(set_id, "pacs", held)
    stores.retention.purge(RetentionRules(delivered_days=0, refused_days=0), datetime.now(UTC))
    with pytest.raises(StateError, match="deleted by retention"):
        deliveries.retry(set_id, "pacs", "deleted there", "someone", resend=True)
    assert deliveries.of()[0].states == {"confirmed": 3}
