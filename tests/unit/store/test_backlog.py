"""What is open is counted, and what waits is found, without reading what is delivered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from sqlalchemy import event, text
from sqlalchemy.pool import Pool

from rebrain_node.domain.backlog import BacklogCounts, DestinationCounts
from rebrain_node.store.backlog import Backlog
from tests.support.outbox_node import OutboxNode
from tests.support.store_cases import accept, answers, derived_set, received

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
#: rows of the given number that a destination has confirmed, beside a set that is open
DELIVERED = (
    """INSERT INTO derived_instance (id, set_id, position, kind, sop_class_uid, sop_instance_uid,
                                     series_instance_uid, sha256, size_bytes)
       WITH RECURSIVE n(k) AS (SELECT 1000 UNION ALL SELECT k + 1 FROM n WHERE k < 999 + :rows)
       SELECT k, :set_id, k, 'MR', '1', '2.25.' || k, '1', '0', 1 FROM n""",
    """INSERT INTO delivery (set_id, derived_instance_id, destination, state, attempts, changed_at)
       SELECT set_id, id, 'pacs', 'confirmed', 0, '' FROM derived_instance WHERE id >= 1000""",
)


class Put(NamedTuple):
    set_id: int
    uids: tuple[str, ...]


def put(stores: OutboxNode, number: int, *destinations: str) -> Put:
    series, study = f"1.2.{number}.1", f"1.2.{number}"
    stores.ledger.record_received(received(1, series, study))
    job = accept(stores.ledger, series, study)
    derived = derived_set(job)
    notified = [(each, "ris") for each in destinations]
    set_id = stores.outbox.put(derived, destinations, job, notified)
    return Put(set_id, tuple(one.sop_instance_uid for one in derived.instances))


def counts(stores: OutboxNode, late_before: datetime = NOW - DAY) -> BacklogCounts:
    return Backlog(stores.database).counts(late_before, NOW - DAY)


@pytest.mark.parametrize(
    ("outcome", "status", "expected"),
    [
        ("taken", 0x0000, {}),
        ("retry", 0xA700, {"pacs": DestinationCounts(waiting=1, refused=0)}),
        ("refused", 0xC000, {"pacs": DestinationCounts(waiting=0, refused=1)}),
    ],
)
def test_a_set_is_counted_where_it_waits_or_needs_the_operator(stores, outcome, status, expected):
    one = put(stores, 1, "pacs")
    instances = stores.outbox.instances_of(one.set_id)
    stores.deliveries.record(one.set_id, "pacs", answers(instances, outcome, status))
    assert counts(stores).destinations == expected


def test_a_set_counts_once_at_each_destination_however_many_objects_it_has(stores):
    first = put(stores, 1, "pacs", "archive")
    put(stores, 2, "pacs")
    stores.deliveries.hold(first.set_id, "archive", "another patient")
    assert counts(stores).destinations == {
        "archive": DestinationCounts(waiting=0, refused=1),
        "pacs": DestinationCounts(waiting=2, refused=0),
    }
    assert counts(stores).refused == 1


def test_a_set_and_its_series_are_late_once_they_wait_longer_than_the_limit(stores):
    put(stores, 1, "pacs", "archive")
    assert counts(stores).late == 0
    assert counts(stores, NOW + DAY).late == 3  # two destinations, and the series


def test_a_series_that_failed_and_a_refused_notification_are_counted(stores):
    one = put(stores, 1, "pacs")
    instances = stores.outbox.instances_of(one.set_id)
    (notification,) = stores.notifications.of(one.set_id)
    stores.notifications.refused(replace(notification, state="pending"), "refused", 0x0124)
    stores.deliveries.record(one.set_id, "pacs", answers(instances, "refused", 0xC000))
    found = counts(stores)
    assert (found.failed, found.notifications_refused) == (1, 1)
    assert Backlog(stores.database).counts(NOW, NOW + DAY).failed == 0


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda stores: counts(stores).destinations, {"pacs": DestinationCounts(1, 0)}),
        (lambda stores: [each.set_id for each in stores.deliveries.waiting("pacs")], [1]),
    ],
    ids=["counting", "the look for what is to be delivered"],
)
def test_it_takes_no_longer_where_100_000_objects_are_delivered(stores, read, expected):
    one = put(stores, 1, "pacs")
    before = steps_of(read, stores)
    with stores.database.writing() as session:
        for statement in DELIVERED:
            session.execute(text(statement), {"set_id": one.set_id, "rows": 100_000})
    assert before[1] == expected
    assert steps_of(read, stores) == before


def steps_of(read: Callable[[OutboxNode], Any], stores: OutboxNode) -> tuple[int, Any]:
    """Thousands of instructions of SQLite's virtual machine that a question takes; the answer."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    def observe(connection: Any, *_: object) -> None:
        connection.set_progress_handler(count, 1000)

    def ignore(connection: Any, *_: object) -> None:
        connection.set_progress_handler(None, 1000)

    for name, function in (("checkout", observe), ("checkin", ignore)):
        event.listen(Pool, name, function)
    try:
        found = read(stores)
        return steps, found
    finally:
        for name, function in (("checkout", observe), ("checkin", ignore)):
            event.remove(Pool, name, function)


def test_the_open_sets_are_those_that_wait_or_are_not_as_they_should_be(stores):
    sets = {name: put(stores, k, "pacs") for k, name in enumerate(("taken", "refused", "retry"), 1)}
    for name, one in sets.items():
        status = {"taken": 0x0000, "refused": 0xC000, "retry": 0xA700}[name]
        instances = stores.outbox.instances_of(one.set_id)
        stores.deliveries.record(one.set_id, "pacs", answers(instances, name, status))
    assert [d.set_id for d in stores.deliveries.open()] == [
        sets["refused"].set_id, sets["retry"].set_id,
    ]  # fmt: skip
    every = [d.set_id for d in stores.deliveries.open(unconfirmed=True)]
    assert every == [one.set_id for one in sets.values()]
