"""Retention: nothing goes before every destination has confirmed it, and only bytes go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from rebrain_node.blobs import inbox_blobs, outbox_blobs
from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import DeliveryState, HeldObject
from rebrain_node.domain.job import Job
from rebrain_node.errors import InstanceConflictError
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database
from rebrain_node.store.retention import Retention, RetentionRules
from rebrain_node.store.tables import DeliveryRow
from rebrain_node.worker.purge import PurgeLoop
from tests.support.outbox_node import OutboxNode
from tests.support.store_cases import accept, answers, complete_all, derived_set, received

RULES = RetentionRules(delivered_days=30, refused_days=10)
NOW = datetime.now(UTC)


@dataclass
class Node(OutboxNode):
    """A node with received bytes, whose deliveries a test decides."""

    def receive(self, series: str = "1.2.1.1") -> None:
        """Receive one instance, its bytes in the inbox."""
        one = received(1, series)
        path = self.folder / "inbox" / inbox_blobs(self.folder / "inbox").path(one.sha256)
        path.write_bytes(b"as sent")
        self.ledger.record_received(one)

    def synthesise(self, *destinations: str) -> tuple[int, Job]:
        job = accept(self.ledger)
        return self.outbox.put(derived_set(job), destinations, job), job

    def deliver(self, set_id: int, destination: str, *, confirm: bool = True) -> None:
        instances = self.outbox.instances_of(set_id)
        self.deliveries.record(set_id, destination, answers(instances))
        if confirm:
            held = [
                HeldObject(sop_instance_uid=one.sop_instance_uid, held=True, changed=())
                for one in instances
            ]
            self.confirmations.verify(set_id, destination, held)

    def purge(self, days: float = 365) -> list[str]:
        purged = self.retention.purge(RULES, NOW + timedelta(days=days))
        return [one.series_instance_uid for one in purged]

    def files(self) -> int:
        return sum(path.is_file() for path in self.folder.glob("*box/**/*"))


@pytest.fixture
def node(database: Database, folder: Path) -> Node:
    return Node(database, folder)


def test_bytes_go_once_every_destination_has_confirmed_and_the_days_are_over(node: Node) -> None:
    node.receive()
    set_id, _ = node.synthesise("pacs", "archive")
    node.deliver(set_id, "pacs")
    assert node.purge() == []
    node.deliver(set_id, "archive")
    assert node.purge(days=29) == []
    assert node.files() == 4
    assert node.purge(days=31) == ["1.2.1.1"]
    assert node.files() == 1  # the key objects
    assert node.purge() == []


@pytest.mark.parametrize("state", ["pending", "held", "taken", "unverified", "altered", "refused"])
def test_nothing_goes_while_one_object_is_not_confirmed(node: Node, state: DeliveryState) -> None:
    node.receive()
    set_id, _ = node.synthesise("pacs")
    instances = node.outbox.instances_of(set_id)
    first = instances[0].sop_instance_uid
    rest = [
        HeldObject(sop_instance_uid=one.sop_instance_uid, held=True, changed=())
        for one in instances[1:]
    ]
    if state == "held":
        node.deliveries.hold(set_id, "pacs", "another patient")
    else:
        node.deliveries.record(set_id, "pacs", answers(instances[1:]))
        node.confirmations.verify(set_id, "pacs", rest)
        outcome = {"pending": "retry", "refused": "refused", "unverified": "warning"}
        node.deliveries.record(
            set_id, "pacs", answers(instances[:1], outcome.get(state, "taken"), 0xB000)
        )
    if state == "altered":
        other = HeldObject(sop_instance_uid=first, held=True, changed=("PatientName",))
        node.confirmations.verify(set_id, "pacs", [other])
    (delivery,) = node.deliveries.of()
    assert state in delivery.states
    assert node.purge() == []
    assert node.files() == 4
    assert node.retention.use().unconfirmed_sets == 1


def test_what_was_left_out_or_cancelled_does_not_keep_the_rest(node: Node) -> None:
    node.receive()
    set_id, _ = node.synthesise("pacs", "archive")
    node.deliver(set_id, "pacs")
    node.deliveries.cancel(set_id, "archive", "no longer used", "someone")
    assert node.purge() == ["1.2.1.1"]


def test_a_set_without_a_destination_is_kept(node: Node) -> None:
    node.receive()
    node.synthesise()
    assert node.purge() == []


def test_a_refused_series_goes_after_its_own_days_once_its_study_has_ended(node: Node) -> None:
    node.receive()
    node.receive("1.2.1.2")
    set_id, _ = node.synthesise("pacs")
    assert node.purge() == []
    node.deliver(set_id, "pacs")
    assert node.purge(days=11) == ["1.2.1.2"]
    assert node.files() == 4


def test_a_disputed_series_is_kept(node: Node) -> None:
    node.receive()
    set_id, _ = node.synthesise("pacs")
    node.deliver(set_id, "pacs")
    with pytest.raises(InstanceConflictError):
        node.ledger.record_received(received(1, content="corrected"))
    assert node.purge() == []


def test_a_purge_stands_in_the_audit_log_and_changes_no_count(node: Node) -> None:
    node.receive()
    set_id, _ = node.synthesise("pacs")
    node.deliver(set_id, "pacs")
    before = node.ledger.counts()
    node.purge()
    assert node.ledger.counts() == before
    log = AuditLog(node.database)
    (row,) = log.events(9, event=Event.STORAGE_PURGED)
    assert (row.subject, row.details["instances"], row.details["objects"]) == ("1.2.1.1", 1, 2)
    assert log.verify().intact


def test_a_purge_that_was_interrupted_is_finished_by_the_next(node: Node) -> None:
    node.receive()
    set_id, job = node.synthesise("pacs")
    node.deliver(set_id, "pacs")
    for one in derived_set(job).instances:
        (node.folder / "outbox" / one.sha256).unlink()
    assert node.purge() == ["1.2.1.1"]
    assert node.purge() == []


def test_an_instance_that_is_sent_again_after_a_purge_is_stored_again(node: Node) -> None:
    node.receive()
    set_id, _ = node.synthesise("pacs")
    node.deliver(set_id, "pacs")
    node.purge()
    assert node.ledger.instances()[0].purged_at is not None
    node.receive()
    assert node.ledger.instances()[0].purged_at is None
    assert node.retention.use().received_bytes == received(1).size_bytes


class DecidesMeanwhile(Retention):
    """A retention whose operator decides between the list and the deletion."""

    meanwhile = staticmethod(lambda: None)

    def purgeable(self, rules, now):
        found = super().purgeable(rules, now)
        self.meanwhile()
        return found


def test_what_is_sent_again_while_a_purge_begins_is_kept(node: Node) -> None:
    node.receive()
    set_id, _ = node.synthesise("pacs")
    node.deliver(set_id, "pacs")
    folders = (inbox_blobs(node.folder / "inbox"), outbox_blobs(node.folder / "outbox"))
    retention = DecidesMeanwhile(node.database, *folders)
    retention.meanwhile = lambda: node.deliveries.retry(
        set_id, "pacs", "deleted there", "someone", resend=True
    )
    assert retention.purge(RULES, NOW + timedelta(days=365)) == ()
    assert len(node.outbox.instances_of(set_id)) == 3


def test_nothing_is_purged_once_an_object_is_missing_that_was_not_confirmed(node: Node) -> None:
    node.receive()
    set_id, _ = node.synthesise("pacs")
    node.deliver(set_id, "pacs")
    loop = PurgeLoop(
        retention=node.retention, rules=RetentionRules(delivered_days=0, refused_days=0)
    )
    assert len(loop.purge()) == 1
    assert node.retention.deleted_unconfirmed() == 0
    with node.database.writing() as session:
        session.execute(update(DeliveryRow).values(state="taken"))
    assert node.retention.use().deleted_unconfirmed == 2
    node.receive("1.2.1.2")
    complete_all(node.ledger)
    assert loop.purge() == ()
