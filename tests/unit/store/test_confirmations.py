"""Confirmations: accepted is not confirmed, and every surface says which of the two it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import CommitmentReport, HeldObject, Outcome
from rebrain_node.domain.job import DerivedInstance, Job
from tests.support.outbox_node import OutboxNode
from tests.support.store_cases import accept, answers, derived_set, received

TRANSACTION = "2.25.5"


@pytest.fixture
def instances(job: Job) -> tuple[DerivedInstance, ...]:
    """Two MR slices and a key object."""
    return derived_set(job).instances


def put(stores: OutboxNode, job: Job, *destinations: str) -> int:
    """Put a set into the outbox; its id."""
    return stores.outbox.put(derived_set(job), destinations, job)


def found(instance: DerivedInstance, *, held: bool = True, changed: tuple[str, ...] | None = ()):
    return HeldObject(sop_instance_uid=instance.sop_instance_uid, held=held, changed=changed)


def report(*committed: DerivedInstance, failed: tuple[DerivedInstance, ...] = ()):
    return CommitmentReport(
        transaction_uid=TRANSACTION,
        committed=tuple(one.sop_instance_uid for one in committed),
        failed={one.sop_instance_uid: 0x0112 for one in failed},
    )


def deliver(stores: OutboxNode, set_id: int, instances, *destinations: str) -> None:
    for name in destinations:
        stores.deliveries.record(set_id, name, answers(instances))


def states(stores: OutboxNode, set_id: int) -> list[str]:
    return [one.state for one in stores.deliveries.objects(set_id)]


@pytest.mark.parametrize(
    ("outcome", "held", "changed", "state"),
    [
        ("taken", True, None, "confirmed"),
        ("taken", True, (), "confirmed"),
        ("taken", True, ("PatientName",), "altered"),
        ("taken", False, None, "pending"),
        ("warning", True, None, "unverified"),
        ("warning", True, (), "confirmed"),
        ("duplicate", True, ("PixelData",), "altered"),
        ("duplicate", False, None, "pending"),
    ],
)
def test_what_a_destination_is_found_to_hold_decides(
    stores: OutboxNode, job: Job, instances, outcome: Outcome, held: bool,
    changed: tuple[str, ...] | None, state: str,
) -> None:  # fmt: skip
    set_id = put(stores, job, "pacs")
    first, *others = instances
    stores.deliveries.record(set_id, "pacs", [*answers([first], outcome, 0x0111), *answers(others)])
    stores.confirmations.verify(set_id, "pacs", [found(first, held=held, changed=changed)])
    (one, *_) = stores.deliveries.objects(set_id)
    assert one.state == state
    assert (one.reason or "").endswith(f"values of {changed[0]}" if changed else "")
    assert stores.deliveries.of("pacs")[0].needs_operator is (state == "altered")


def test_an_object_that_is_not_held_counts_as_a_failed_attempt(stores, job, instances) -> None:
    set_id = put(stores, job, "pacs")
    deliver(stores, set_id, instances, "pacs")
    stores.confirmations.verify(set_id, "pacs", [found(instances[0], held=False, changed=None)])
    assert stores.deliveries.of()[0].attempts == 1


def test_a_series_is_published_when_accepted_and_confirmed_when_every_destination_says_so(
    stores: OutboxNode, job: Job, instances
) -> None:
    set_id = put(stores, job, "pacs", "archive")
    assert stores.states() == ["synthesised"]
    deliver(stores, set_id, instances, "pacs", "archive")
    assert stores.states() == ["published, not confirmed"]
    stores.confirmations.verify(set_id, "pacs", list(map(found, instances)))
    assert stores.states() == ["published, not confirmed"]
    assert stores.ledger.counts().unconfirmed == 1
    assert stores.audit.events(9, event=Event.SERIES_CONFIRMED) == ()
    stores.confirmations.request_commitment(set_id, "archive", TRANSACTION)
    stores.confirmations.commit(report(*instances))
    assert stores.states() == ["published, confirmed"]
    counts = stores.ledger.counts()
    assert (counts.confirmed, counts.unconfirmed, counts.conserved) == (1, 0, True)
    (row,) = stores.audit.events(9, event=Event.SERIES_CONFIRMED)
    assert row.details == {"set": set_id, "revision": 1, "destinations": ["archive", "pacs"]}


def test_without_a_confirmation_a_series_never_counts_as_confirmed(stores, job, instances) -> None:
    set_id = put(stores, job, "pacs", "archive")
    deliver(stores, set_id, instances, "pacs")
    stores.deliveries.cancel(set_id, "archive", "no longer used", "someone")
    assert stores.states() == ["published, not confirmed"]


def test_what_is_left_out_or_cancelled_needs_no_confirmation(stores, job, instances) -> None:
    set_id = put(stores, job, "pacs", "archive")
    *images, companion = instances
    deliver(stores, set_id, images, "pacs")
    stores.deliveries.record(set_id, "pacs", answers([companion], "unsupported", None))
    stores.confirmations.verify(set_id, "pacs", list(map(found, images)))
    assert stores.states() == ["synthesised"]
    stores.deliveries.cancel(set_id, "archive", "no longer used", "someone")
    assert stores.states() == ["published, confirmed"]
    assert len(stores.audit.events(9, event=Event.SERIES_CONFIRMED)) == 1


def test_what_is_sent_again_is_not_confirmed_until_it_is_confirmed_again(
    stores: OutboxNode, job: Job, instances
) -> None:
    set_id = put(stores, job, "pacs")
    for _ in range(2):
        deliver(stores, set_id, instances, "pacs")
        stores.confirmations.verify(set_id, "pacs", list(map(found, instances)))
        assert stores.states() == ["published, confirmed"]
        stores.deliveries.retry(set_id, "pacs", "deleted there", "someone", resend=True)
        assert stores.states() == ["published, not confirmed"]
    assert len(stores.audit.events(9, event=Event.SERIES_CONFIRMED)) == 2


def test_the_confirmation_of_an_earlier_revision_is_none_of_the_later(
    stores: OutboxNode, job: Job, instances
) -> None:
    first = put(stores, job, "pacs")
    deliver(stores, first, instances, "pacs")
    stores.confirmations.verify(first, "pacs", list(map(found, instances)))
    stores.ledger.record_received(received(2))
    newer = accept(stores.ledger)
    second = put(stores, newer, "pacs")
    deliver(stores, second, derived_set(newer).instances, "pacs")
    assert stores.states() == ["published, not confirmed"]


def test_an_answer_to_storage_commitment_confirms_what_it_names(stores, job, instances) -> None:
    set_id = put(stores, job, "pacs")
    deliver(stores, set_id, instances, "pacs")
    stores.confirmations.request_commitment(set_id, "pacs", TRANSACTION)
    first, second, _ = instances
    assert stores.confirmations.commit(report(first, failed=(second,)))
    assert states(stores, set_id) == ["confirmed", "unverified", "taken"]
    assert "0x0112" in str(stores.deliveries.of("pacs")[0].reason)
    assert stores.confirmations.unconfirmed("pacs") == (set_id,)
    assert stores.confirmations.unconfirmed("pacs", in_doubt=True) == (set_id,)
    assert stores.confirmations.commit(report(*instances))
    assert stores.confirmations.unconfirmed("pacs") == ()
    events = [row.event for row in stores.audit.events(9)]
    assert events[-4:] == [
        "commitment.requested", "commitment.answered", "commitment.answered", "series.confirmed",
    ]  # fmt: skip


def test_an_answer_that_comes_again_takes_no_confirmation_back(stores, job, instances) -> None:
    set_id = put(stores, job, "pacs")
    deliver(stores, set_id, instances, "pacs")
    first, *others = instances
    stores.confirmations.request_commitment(set_id, "pacs", TRANSACTION)
    partial = report(*others, failed=(first,))
    stores.confirmations.commit(partial)
    stores.confirmations.request_commitment(set_id, "pacs", "2.25.6")
    stores.confirmations.commit(replace(report(*instances), transaction_uid="2.25.6"))
    stores.confirmations.commit(partial)
    assert states(stores, set_id) == ["confirmed"] * 3


def test_a_first_answer_that_fails_an_object_takes_its_confirmation_back(
    stores: OutboxNode, job: Job, instances
) -> None:
    """The destination looked again and no longer holds it: asking again is safe."""
    set_id = put(stores, job, "pacs")
    deliver(stores, set_id, instances, "pacs")
    stores.confirmations.verify(set_id, "pacs", list(map(found, instances)))
    stores.confirmations.request_commitment(set_id, "pacs", TRANSACTION)
    stores.confirmations.commit(report(failed=instances[:1]))
    assert states(stores, set_id) == ["unverified", "confirmed", "confirmed"]
    assert stores.states() == ["published, not confirmed"]


def test_an_answer_of_an_unknown_transaction_changes_nothing(stores, job, instances) -> None:
    set_id = put(stores, job, "pacs")
    deliver(stores, set_id, instances, "pacs")
    foreign = replace(report(*instances), transaction_uid="1.2.3")
    assert not stores.confirmations.commit(foreign)
    assert states(stores, set_id) == ["taken"] * 3
    (row,) = stores.audit.events(9, event=Event.COMMITMENT_UNKNOWN)
    assert row.subject == "1.2.3"


def test_an_answer_names_an_object_that_was_never_sent(stores, job, instances) -> None:
    set_id = put(stores, job, "pacs")
    deliver(stores, set_id, instances[:2], "pacs")
    stores.confirmations.request_commitment(set_id, "pacs", TRANSACTION)
    foreign = replace(instances[0], sop_instance_uid="2.25.9")
    assert stores.confirmations.commit(report(*instances, foreign))
    assert states(stores, set_id) == ["confirmed", "confirmed", "pending"]
