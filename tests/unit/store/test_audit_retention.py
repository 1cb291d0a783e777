"""Old rows of the audit log: exported, sealed, removed, and still verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from rebrain_node.domain.audit import Event
from rebrain_node.errors import StateError
from rebrain_node.model.keys import PUBLIC_FILE, read_key_file
from rebrain_node.store.audit_check import AuditCheck
from rebrain_node.store.audit_queue import AuditQueue
from rebrain_node.store.audit_retention import ARCHIVE, AuditRetention
from rebrain_node.store.tables import AuditQueueRow
from tests.support.audited_node import AuditedNode, audited_node
from tests.support.store_cases import fast_folder

SOON = datetime.now(UTC) + timedelta(days=800)


@pytest.fixture
def node() -> Iterator[AuditedNode]:
    with fast_folder() as folder, audited_node(folder) as node:
        yield node


def check(node: AuditedNode) -> AuditCheck:
    return AuditCheck(node.database, node.folder, [read_key_file(node.folder / PUBLIC_FILE)])


def test_rows_that_are_young_enough_are_kept(node: AuditedNode) -> None:
    assert AuditRetention(node.database, node.folder).remove_older(3, SOON) is None
    assert node.audit.verify().first == 1


def test_old_rows_are_exported_and_removed_and_the_log_verifies_from_there(
    node: AuditedNode,
) -> None:
    held = node.audit.events(10_000)
    removed = AuditRetention(node.database, node.folder).remove_older(2, SOON)

    assert removed is not None
    assert (removed.first, removed.last) == (1, len(held) - 1)
    lines = [json.loads(line) for line in removed.file.read_text().splitlines()]
    assert [line["hash"] for line in lines] == [one.hash for one in held[:-1]]
    assert hashlib.sha256(removed.file.read_bytes()).hexdigest() == removed.sha256
    assert removed.file.parent == node.folder / ARCHIVE
    assert removed.file.stat().st_mode & 0o077 == 0
    verdict = check(node).verify()
    assert verdict.intact, verdict.differences
    assert verdict.first == removed.last + 1
    assert verdict.rows == 2  # the newest row, and the one that tells of the removal
    (told,) = node.audit.events(9, event=Event.AUDIT_SEALED)
    assert told.details["sha256"] == removed.sha256


def test_rows_that_a_collector_has_not_taken_are_kept(node: AuditedNode) -> None:
    queue = AuditQueue(node.database)
    queue.begin(["audit-messages:arr"])
    queue.taken("audit-messages:arr", 3)
    removed = AuditRetention(node.database, node.folder).remove_older(2, SOON)
    assert removed is not None
    assert removed.last == 3
    assert queue.read("audit-messages:arr", 1)[0].sequence == 4


def test_a_sealed_log_goes_on_and_its_rows_cannot_be_changed(node: AuditedNode) -> None:
    AuditRetention(node.database, node.folder).remove_older(2, SOON)
    node.receive("1.2.8", 1, 2)
    node.receive("1.2.1", 1, 5)  # a late instance of a study from before the seal
    last = node.publish(node.judge("1.2.8", "1.2.8.1"), ("pacs",))
    node.deliveries.refused(last, "pacs", "no longer wanted")
    node.deliveries.retry(3, "pacs", "again", "someone", resend=True)
    node.audit.checkpoint()

    verdict = check(node).verify()
    assert verdict.intact, verdict.differences
    with pytest.raises(Exception, match="append-only"), node.database.writing() as session:
        session.execute(text("DELETE FROM audit_event WHERE sequence > 61"))


def test_the_row_of_the_active_bundle_is_kept(node: AuditedNode) -> None:
    node.audit.record(Event.BUNDLE_VERIFIED, "0" * 64, {"name": "tiny", "version": "1"})
    active = node.audit.head()[0]
    node.audit.record(Event.STEP_COMPLETED, "1.2.3", {"step": "write", "seconds": 1.0})

    AuditRetention(node.database, node.folder).remove_older(2, SOON)

    assert node.audit.verify().first == active
    assert len(node.audit.events(9, event=Event.BUNDLE_VERIFIED)) == 1


def test_nothing_is_removed_from_a_log_that_was_altered(node: AuditedNode) -> None:
    with node.database.writing() as session:
        session.execute(text("DROP TRIGGER audit_event_no_update"))
        session.execute(text("UPDATE audit_event SET subject = 'x' WHERE sequence = 5"))
    with pytest.raises(StateError, match="row 5 of the audit log is not as it was written"):
        AuditRetention(node.database, node.folder).remove_older(2, SOON)
    assert list((node.folder / ARCHIVE).glob("*.jsonl")) == []
    assert len(node.audit.events(10_000)) == node.audit.head()[0]


def test_a_seal_that_the_node_did_not_sign_is_found(node: AuditedNode) -> None:
    row = node.audit.event(9)
    assert row is not None
    with node.database.writing() as session:
        session.execute(
            text(
                "INSERT INTO audit_checkpoint SELECT number + 1, 'seal', 9, :hash, signed_at, key, "
                "signature FROM audit_checkpoint ORDER BY number DESC LIMIT 1"
            ),
            {"hash": row.hash},
        )
        session.execute(text("DELETE FROM audit_event WHERE sequence <= 9"))
    verdict = check(node).verify()
    assert not verdict.intact
    assert "its signature is not of it" in str(verdict.reason)


def test_the_folder_of_exports_is_made_when_it_is_needed(node: AuditedNode) -> None:
    assert not Path(node.folder / ARCHIVE).exists()


def test_nothing_is_removed_that_a_receiver_has_not_taken_since_the_first_row(
    node: AuditedNode,
) -> None:
    with node.database.writing() as session:
        now = datetime.now(UTC)
        session.add(AuditQueueRow(reader="x", sequence=0, failures=9, reason="", changed_at=now))
    assert AuditRetention(node.database, node.folder).remove_older(2, SOON) is None
