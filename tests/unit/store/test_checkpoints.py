"""Signed checkpoints: when they are written, what shows that they are missing or foreign."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import dcmread

from rebrain_node.app.anchors import compare_reports
from rebrain_node.domain.audit import Event
from rebrain_node.errors import KeyFileError, StateError
from rebrain_node.model.keys import (
    PRIVATE_FILE,
    PUBLIC_FILE,
    make_node_key,
    public_key_text,
    read_key_file,
)
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.audit_check import AuditCheck
from rebrain_node.store.audit_facts import BOOKKEEPING, COMPARED, NOT_COMPARED
from rebrain_node.store.audit_retention import AuditRetention
from rebrain_node.store.checkpoints import WITNESS_FILE, Checkpoints
from rebrain_node.store.database import Database
from rebrain_node.store.tables import Table
from rebrain_node.worker.checkpoints import CheckpointLoop
from tests.support.audited_node import REPORTS, AuditedNode, audited_node
from tests.support.store_cases import fast_folder


@pytest.fixture
def node() -> Iterator[AuditedNode]:
    with fast_folder() as folder, audited_node(folder) as node:
        yield node


@pytest.fixture
def empty() -> Iterator[tuple[AuditLog, Checkpoints, Path]]:
    with fast_folder() as folder, Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        make_node_key(folder)
        yield AuditLog(database, folder), Checkpoints(database, folder), folder


def check(node: AuditedNode, *keys: str) -> AuditCheck:
    own = read_key_file(node.folder / PUBLIC_FILE)
    return AuditCheck(node.database, node.folder, keys or [own])


def test_the_key_is_readable_by_the_node_alone_and_made_once(tmp_path: Path) -> None:
    key = make_node_key(tmp_path)
    assert key is not None
    assert (tmp_path / PRIVATE_FILE).stat().st_mode & 0o777 == 0o600
    assert make_node_key(tmp_path) is None
    assert read_key_file(tmp_path / PUBLIC_FILE) == key
    assert public_key_text(tmp_path).startswith("-----BEGIN PUBLIC KEY-----")


def test_several_processes_make_one_key(tmp_path: Path) -> None:
    made: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: made.append(make_node_key(tmp_path))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [key for key in made if key is not None]
    assert keys == [read_key_file(tmp_path / PUBLIC_FILE)]


def test_a_lost_key_is_not_replaced_silently(tmp_path: Path) -> None:
    make_node_key(tmp_path)
    (tmp_path / PRIVATE_FILE).unlink()
    with pytest.raises(KeyFileError, match="restore it from a backup"):
        make_node_key(tmp_path)
    (tmp_path / PUBLIC_FILE).unlink()
    with pytest.raises(KeyFileError, match="makes its key when"):
        public_key_text(tmp_path)


def test_a_checkpoint_is_due_after_rows_minutes_or_a_published_series(
    empty: tuple[AuditLog, Checkpoints, Path],
) -> None:
    log, checkpoints, _ = empty
    assert checkpoints.write() is None  # nothing to sign
    log.record(Event.NODE_STARTED, "node", {})
    first = checkpoints.write()
    assert first is not None
    assert checkpoints.write() == first  # the newest row is signed already
    assert not checkpoints.is_due(1, 0.001)
    log.record(Event.NODE_STOPPED, "node", {})
    assert not checkpoints.is_due(2, 10.0)
    assert checkpoints.is_due(1, 10.0)
    assert checkpoints.is_due(1000, 0.0)
    log.record(Event.SERIES_PUBLISHED, "1.2.3", {"set": 1})
    assert checkpoints.is_due(1000, 10.0)


def test_the_loop_signs_at_its_start_and_then_when_it_is_due(
    empty: tuple[AuditLog, Checkpoints, Path],
) -> None:
    log, checkpoints, folder = empty
    log.record(Event.NODE_STARTED, "node", {})
    retention = AuditRetention(checkpoints.database, folder)
    loop = CheckpointLoop(checkpoints=checkpoints, rows=5, minutes=10.0, retention=retention)
    stop = threading.Event()
    stop.set()
    loop.run(stop)
    assert (folder / WITNESS_FILE).read_text().count("\n") == 1
    log.record(Event.NODE_STOPPED, "node", {})
    assert loop.write(5) is None
    for n in range(4):
        log.record(Event.STEP_COMPLETED, "1.2.3", {"step": str(n)})
    signed = loop.write(5)
    assert signed is not None
    assert (signed.number, signed.sequence) == (2, 6)
    assert datetime.fromisoformat(signed.signed_at) <= datetime.now(UTC)


def test_a_node_that_lived_verifies_with_all_its_reports(node: AuditedNode) -> None:
    verdict = check(node).verify()
    assert verdict.intact, verdict.differences
    assert (verdict.checkpoints, verdict.unsigned) == (6, 1)
    found = compare_reports(check(node), node.folder / REPORTS)
    assert found.agree
    assert (found.compared, found.unsigned, found.others) == (3, 0, 0)


def test_reports_of_another_node_prove_nothing(node: AuditedNode, tmp_path: Path) -> None:
    with fast_folder() as folder, audited_node(folder) as other:
        for number, path in enumerate((other.folder / REPORTS).glob("*.dcm")):
            report = dcmread(path)
            report.SOPInstanceUID = f"1.2.3.{number}"
            report.save_as(tmp_path / path.name)
    found = compare_reports(check(node), tmp_path)
    assert (found.compared, found.others) == (0, 3)
    assert not found.agree


def test_a_report_that_the_outbox_does_not_know_shows_that_rows_are_gone(
    node: AuditedNode,
) -> None:
    path = next((node.folder / REPORTS).glob("*.dcm"))
    report = dcmread(path)
    report.SOPInstanceUID = "1.2.3"
    report.save_as(path)
    found = compare_reports(check(node), node.folder / REPORTS)
    assert not found.agree
    (one,) = found.differences
    assert "the outbox does not know it" in one.sentence


def test_a_folder_without_reports_is_no_proof(node: AuditedNode, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no DICOM")
    with pytest.raises(StateError, match="no structured report"):
        compare_reports(check(node), tmp_path)


def test_only_the_keys_that_are_given_count(node: AuditedNode) -> None:
    verdict = check(node, "0" * 64).verify()
    assert not verdict.intact
    assert "is not the key of this node" in str(verdict.reason)


def test_every_column_of_a_fact_table_is_compared_or_said_why_not() -> None:
    tables = Table.metadata.tables
    facts = {name for name in tables if not name.startswith("audit_")} - BOOKKEEPING
    assert facts == COMPARED.keys()
    for name in facts:
        columns = {column.name for column in tables[name].columns}
        left_out = {each.partition(".")[2] for each in NOT_COMPARED if each.startswith(f"{name}.")}
        assert COMPARED[name] | left_out == columns
        assert not COMPARED[name] & left_out
