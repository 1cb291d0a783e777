"""The SQLite database: durable commits, one writer, looks that change nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from rebrain_node.errors import StoreUnavailableError
from rebrain_node.store import database as database_module
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.database import Database


def opened(folder: Path) -> Database:
    return Database.open(f"sqlite:///{folder}/node.sqlite")


def test_each_commit_is_synced_to_a_write_ahead_log(tmp_path: Path) -> None:
    with opened(tmp_path) as database, database.writing() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert session.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL


def test_a_database_with_a_rollback_journal_is_taken_over_with_what_it_holds(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as database:
        AuditLog(database).record("step.completed", "1.2.3", {})
    with closing(sqlite3.connect(tmp_path / "node.sqlite")) as earlier:
        assert earlier.execute("PRAGMA journal_mode = PERSIST").fetchone() == ("persist",)
    with opened(tmp_path) as database:
        assert AuditLog(database).events(1)[0].subject == "1.2.3"
        with database.reading() as session:
            assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"


def test_who_only_looks_cannot_write(tmp_path: Path) -> None:
    with opened(tmp_path) as database:
        with pytest.raises(StoreUnavailableError, match="readonly"), database.reading() as session:
            session.execute(text("DELETE FROM study"))
        with database.writing() as session:
            session.execute(text("DELETE FROM study"))


def test_another_process_may_look_but_not_write_until_a_transaction_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT_S", 0.05)
    with opened(tmp_path) as one, opened(tmp_path) as other:
        with one.writing():
            assert AuditLog(other).events(1) == ()
            with pytest.raises(StoreUnavailableError, match=r"locked .*node\.sqlite-writer"):
                AuditLog(other).record("step.completed", "1.2.3", {})
        AuditLog(other).record("step.completed", "1.2.3", {})


def test_a_checkpoint_ends_before_the_next_writer_begins(tmp_path: Path) -> None:
    """SQLite before 3.51.3 may lose a commit that another connection makes during one."""
    file, log = tmp_path / "node.sqlite", tmp_path / "node.sqlite-wal"
    with opened(tmp_path) as database:
        before = file.stat().st_size
        with database.writing() as session:
            session.execute(text("CREATE TABLE filler (content BLOB)"))
            session.execute(text("INSERT INTO filler VALUES (zeroblob(6000000))"))
        assert log.stat().st_size > 4_000_000, "the transaction was longer than the log may be"
        assert file.stat().st_size > before + 6_000_000, "copied by the transaction that wrote it"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_command_of_root_leaves_the_lock_to_the_owner_of_the_database(tmp_path: Path) -> None:
    opened(tmp_path).close()
    lock = tmp_path / "node.sqlite-writer"
    lock.unlink()
    os.chown(tmp_path / "node.sqlite", 4321, 4321)
    opened(tmp_path).close()
    assert (lock.stat().st_uid, lock.stat().st_gid) == (4321, 4321)
    assert lock.stat().st_mode & 0o777 == 0o600


def test_opening_the_database_again_leaves_the_locks_of_the_first(tmp_path: Path) -> None:
    """Without them another process may delete a write-ahead log that is in use."""
    file = tmp_path / "node.sqlite"
    leave_wal = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0); "
        "print(c.execute('PRAGMA journal_mode = DELETE').fetchone())"
    )
    with Database.open(f"sqlite:///{file}") as first, first.reading() as session:
        session.execute(text("SELECT 1")).scalar()
        with Database.open(f"sqlite:///{file}"):
            pass
        other = subprocess.run(
            [sys.executable, "-c", leave_wal, str(file)],
            capture_output=True,
            text=True,
            check=False,
        )

    assert "database is locked" in other.stderr


def test_a_lock_that_is_not_given_back_is_freed_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written is durable by then, so that nobody gets an error."""
    give_back = fcntl.flock

    def failing(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_UN:
            raise OSError(errno.ENOLCK, "No locks available")
        give_back(descriptor, operation)

    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT_S", 0.05)
    with opened(tmp_path) as one, opened(tmp_path) as other:
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", failing)
            AuditLog(one).record("step.completed", "1.2.3", {})
        AuditLog(other).record("step.completed", "1.2.4", {})
        AuditLog(one).record("step.completed", "1.2.5", {})
        assert len(AuditLog(one).events(9)) == 3
