"""The audit log: a gap-less chain that shows every change made behind its back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rebrain_node.domain.audit import Event
from rebrain_node.errors import StateError
from rebrain_node.store import audit
from rebrain_node.store.audit import GENESIS, AuditLog
from rebrain_node.store.database import Database
from tests.support.store_cases import fast_folder

ROWS = 12
COLUMNS = ("sequence", "recorded_at", "monotonic_ns", "event", "subject", "details", "hash")


@contextmanager
def a_log() -> Iterator[tuple[AuditLog, Path]]:
    """A log of ``ROWS`` rows, and its file."""
    with fast_folder() as folder, Database.open(f"sqlite:///{folder}/node.sqlite") as database:
        log = AuditLog(database)
        for n in range(ROWS):
            log.record(Event.INSTANCE_RECEIVED, f"1.2.{n}", {"size_bytes": n, "sha256": "é\u0000"})
        yield log, folder / "node.sqlite"


@contextmanager
def behind_its_back(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as somebody with the password of the machine sees it, triggers dropped."""
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER audit_event_no_update")
    connection.execute("DROP TRIGGER audit_event_no_delete")
    yield connection
    connection.commit()
    connection.close()


@pytest.fixture
def log() -> Iterator[AuditLog]:
    with a_log() as (log, _):
        yield log


def test_an_untouched_log_verifies_to_its_head(log: AuditLog) -> None:
    verdict = log.verify()
    assert verdict.intact
    assert (verdict.rows, verdict.head) == log.head()
    assert verdict.rows == ROWS


def test_an_empty_log_verifies(tmp_path: Path) -> None:
    with Database.open(f"sqlite:///{tmp_path}/node.sqlite") as database:
        log = AuditLog(database)
        assert log.head() == (0, GENESIS)
        assert log.verify().intact
        assert log.events(10) == ()


def test_rows_are_numbered_without_a_gap_and_read_oldest_first(log: AuditLog) -> None:
    assert [one.sequence for one in log.events(1000)] == list(range(1, ROWS + 1))
    assert [one.sequence for one in log.events(3)] == [ROWS - 2, ROWS - 1, ROWS]


def test_rows_are_found_by_subject_event_and_time(log: AuditLog) -> None:
    log.record(Event.NODE_STARTED, "node", {})
    assert [one.event for one in log.events(9, subject="1.2.3")] == [Event.INSTANCE_RECEIVED]
    assert [one.subject for one in log.events(9, event=Event.NODE_STARTED)] == ["node"]
    assert log.events(9, since=datetime.now(UTC) + timedelta(minutes=1)) == ()
    assert len(log.events(99, since=datetime.now(UTC) - timedelta(minutes=1))) == ROWS + 1


def test_one_row_is_read_as_it_was_written(log: AuditLog) -> None:
    row = log.event(4)
    assert row is not None
    assert row.details == {"size_bytes": 3, "sha256": "é\u0000"}
    assert abs(datetime.now(UTC) - row.recorded_at) < timedelta(minutes=1)
    assert log.event(ROWS + 1) is None


def test_an_event_outside_the_closed_list_is_refused_and_leaves_no_row(log: AuditLog) -> None:
    with pytest.raises(StateError, match=r"series\.forgotten"):
        log.record("series.forgotten", "1.2.3", {})
    with pytest.raises(StateError, match="not JSON"):
        log.record(Event.NODE_STARTED, "node", {"share": float("nan")})
    assert log.head()[0] == ROWS
    assert log.verify().intact


def test_what_a_peer_chose_as_its_name_is_kept_printable(log: AuditLog) -> None:
    log.record(Event.ASSOCIATION_REFUSED, "EVIL\x1b[2J\r\n\x00", {})
    assert log.events(1)[0].subject == "EVIL\\x1b[2J\\r\\n\\x00"
    assert len(log.events(9, subject="EVIL\x1b[2J\r\n\x00")) == 1


@pytest.mark.parametrize(
    "statement", ["UPDATE audit_event SET subject = 'x' WHERE sequence = 3",
                  "DELETE FROM audit_event WHERE sequence = 12"]
)  # fmt: skip
def test_the_database_itself_refuses_to_change_a_row(statement: str) -> None:
    with a_log() as (_, path):
        connection = sqlite3.connect(path)
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
        connection.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    row=st.integers(1, ROWS),
    column=st.sampled_from(COLUMNS),
    place=st.integers(0, 10_000),
    bit=st.integers(0, 7),
)
def test_any_flipped_bit_is_found_and_its_row_named(
    row: int, column: str, place: int, bit: int
) -> None:
    with a_log() as (log, path):
        with behind_its_back(path) as connection:
            _flip(connection, row, column, place, bit)
        verdict = log.verify()
        assert not verdict.intact
        assert verdict.broken_sequence == row
        assert verdict.rows == row - 1


def _flip(connection: sqlite3.Connection, row: int, column: str, place: int, bit: int) -> None:
    """Flip one bit of one column, as bytes of text or as a bit of a number."""
    query = f"SELECT {column} FROM audit_event WHERE sequence = ?"
    (value,) = connection.execute(query, (row,)).fetchone()
    if isinstance(value, int):
        changed = f"{value ^ (1 << (40 if column == 'sequence' else place % 40))}"
    else:
        content = bytearray(value.encode())
        content[place % len(content)] ^= 1 << bit
        changed = f"CAST(x'{content.hex()}' AS TEXT)"  # perhaps no valid UTF-8 any more
    connection.execute(f"UPDATE audit_event SET {column} = {changed} WHERE sequence = {row}")


@pytest.mark.parametrize("row", [1, 6, ROWS])
def test_a_deleted_row_is_found_wherever_it_stood(row: int) -> None:
    with a_log() as (log, path):
        with behind_its_back(path) as connection:
            connection.execute("DELETE FROM audit_event WHERE sequence = ?", (row,))
        verdict = log.verify()
        assert not verdict.intact
        assert verdict.broken_sequence == row
        assert f"row {row} is missing" in str(verdict.reason)


def test_a_gap_closed_by_renumbering_is_found() -> None:
    with a_log() as (log, path):
        with behind_its_back(path) as connection:
            connection.execute("DELETE FROM audit_event WHERE sequence = 6")
            for n in range(7, ROWS + 1):
                connection.execute(
                    "UPDATE audit_event SET sequence = ? WHERE sequence = ?", (n - 1, n)
                )
        assert log.verify().broken_sequence == 6


def test_two_rows_in_each_others_place_are_found() -> None:
    with a_log() as (log, path):
        with behind_its_back(path) as connection:
            for new, old in ((99, 4), (4, 5), (5, 99)):
                connection.execute(
                    "UPDATE audit_event SET sequence = ? WHERE sequence = ?", (new, old)
                )
        assert log.verify().broken_sequence == 4


def test_a_row_added_behind_its_back_is_found() -> None:
    with a_log() as (log, path):
        with behind_its_back(path) as connection:
            connection.execute(
                "INSERT INTO audit_event SELECT 13, recorded_at, monotonic_ns, event, subject, "
                "details, hash FROM audit_event WHERE sequence = 12"
            )
        assert not log.verify().intact


def test_a_cut_tail_with_the_head_set_back_needs_a_witness() -> None:
    """The limit of a chain: documented, and why the head hash goes into every report."""
    with a_log() as (log, path):
        head = log.head()
        with behind_its_back(path) as connection:
            connection.execute("DELETE FROM audit_event WHERE sequence > 10")
            connection.execute(
                "UPDATE audit_head SET sequence = 10, "
                "hash = (SELECT hash FROM audit_event WHERE sequence = 10)"
            )
        assert log.verify().intact
        assert log.verify().head != head[1]


def test_verification_by_pages_sees_the_same(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_PAGE", 5)
    seen: list[tuple[int, int]] = []
    assert log.verify(lambda done, end: seen.append((done, end))).intact
    assert seen == [(5, ROWS), (10, ROWS), (ROWS, ROWS)]
