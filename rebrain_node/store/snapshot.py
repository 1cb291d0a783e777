"""One database as an SQLite file of one moment, and back: for backup and restore.

The file has the tables of this version whatever the database is, so that a backup of an SQLite
node restores into PostgreSQL and the other way round.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection, create_engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from rebrain_node.errors import StateError, StoreUnavailableError
from rebrain_node.store.database import SCHEMA_REVISION, Database, checked_url
from rebrain_node.store.tables import Table

#: rows that are copied together
_BATCH: Final = 5000
#: tables whose one row the migrations make
_MADE: Final = frozenset({"audit_head", "listening"})


def take_snapshot(url: str, path: Path) -> None:
    """Write what the database at ``url`` holds now into a new SQLite file; the node may run.

    Raises
    ------
    StoreUnavailableError
        The database cannot be read, or the file not be written.
    """
    parsed = checked_url(url)
    with _translated(str(parsed.render_as_string(hide_password=True))):
        if parsed.get_backend_name() == "sqlite":
            path.touch(mode=0o600, exist_ok=False)
            source = f"file:{quote(str(Path(str(parsed.database)).absolute()))}?mode=ro"
            with (
                closing(sqlite3.connect(source, uri=True)) as read,
                closing(sqlite3.connect(path)) as written,
            ):
                read.backup(written)  # in one step, so of one moment
            return
        Database.open(f"sqlite:///{path.absolute()}").close()
        _copy(url, f"sqlite:///{path.absolute()}")


def put_back(path: Path, url: str) -> None:
    """Fill an empty database of PostgreSQL from an SQLite file of this version's tables.

    Raises
    ------
    StoreUnavailableError
        The database does not take them; it is as it was.
    """
    Database.open(url).close()
    with _translated(checked_url(url).render_as_string(hide_password=True)):
        _copy(f"sqlite:///{path.absolute()}", url)


def revision_of(path: Path) -> str:
    """Read the schema version of an SQLite file.

    Raises
    ------
    StateError
        It is newer than this version of the software.
    StoreUnavailableError
        It cannot be read.
    """
    uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    with _translated(str(path)), closing(sqlite3.connect(uri, uri=True)) as connection:
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if revision > SCHEMA_REVISION:
        raise StateError(
            f"the backup is at schema {revision}, this version knows {SCHEMA_REVISION}; install "
            "the version that made it, or a newer one"
        )
    return str(revision)


def _copy(source: str, target: str) -> None:
    """Copy every row, in one transaction on each side."""
    with _connected(source, "REPEATABLE READ") as read, _connected(target) as written:
        for table in Table.metadata.sorted_tables:
            if table.name in _MADE:
                written.execute(table.delete())
            rows = read.execution_options(yield_per=_BATCH).execute(select(table)).mappings()
            for batch in rows.partitions(_BATCH):
                written.execute(table.insert(), [dict(row) for row in batch])
            if written.dialect.name == "postgresql" and "id" in table.columns:
                _continue_ids(written, table.name)


def _continue_ids(connection: Connection, name: str) -> None:
    """Let the next row of a table get an id above those that it was given."""
    sequence = connection.scalar(select(func.pg_get_serial_sequence(name, "id")))
    newest = connection.scalar(text(f'SELECT max(id) FROM "{name}"'))  # noqa: S608 - our own table
    if sequence is not None and newest is not None:
        connection.execute(select(func.setval(sequence, newest)))


@contextmanager
def _connected(url: str, isolation: str | None = None) -> Iterator[Connection]:
    parsed = checked_url(url)
    level = isolation if parsed.get_backend_name() == "postgresql" else None
    options = {} if level is None else {"isolation_level": level}
    engine = create_engine(parsed, **options)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _translated(where: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = getattr(error, "orig", None) or error
        raise StoreUnavailableError(
            f"database {where} does not take or give data: {str(cause).strip()}; check that it "
            "runs, has room and is readable"
        ) from error
