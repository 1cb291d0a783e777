"""One database: SQLite by default, PostgreSQL by URL; migrated when it is opened.

Writing transactions are serial, across threads by a lock, across processes by a lock of the file
(SQLite) or an advisory lock (PostgreSQL), so that the audit chain has no gap and no fork, and no
two writers ever wait for each other crosswise. SQLite's checkpoints fall inside that lock too,
which keeps releases before 3.51.3 from the race that needs one beside a commit (decision 19).
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    PoolProxiedConnection,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from rebrain_node.errors import NoStateError, SettingsError, StateError, StoreUnavailableError
from rebrain_node.store.fence import FenceCheck, limit_standstill, take_turn
from rebrain_node.store.statements import DRIVER, DriverTransaction
from rebrain_node.store.writer_lock import WriterLock

#: revision of the newest migration; a test holds it equal to the migrations folder's head
SCHEMA_REVISION = "0011"

#: how long a writer waits for another process, s
_BUSY_TIMEOUT_S = 30.0
#: tables that every schema of ours has; another program's database lacks one of them
_OUR_TABLES: Final = frozenset({"alembic_version", "audit_head", "instance"})


class Database:
    """The open database; use as a context manager or call ``close``.

    Attributes
    ----------
    fence : FenceCheck or None
        Checked inside every writing transaction of this process.
    """

    def __init__(
        self, engine: Engine, looking: Engine, other_processes: WriterLock | None = None
    ) -> None:
        self._engine = engine
        self._looking = looking
        self._rows: PoolProxiedConnection | None = None  #: of ``writing_rows``
        self._one_writer = threading.Lock()
        self.fence: FenceCheck | None = None
        self._other_processes = other_processes

    @classmethod
    def open(cls, url: str, *, make: bool = True) -> Self:
        """Open the database at ``url`` and bring its tables to this version.

        Parameters
        ----------
        make
            Whether to make the tables where the database is missing or empty.

        Raises
        ------
        SettingsError
            The URL is not one of SQLite or PostgreSQL, the SQLite folder does not exist, or the
            database is another program's.
        NoStateError
            The database is missing or empty, and ``make`` is false; nothing was made.
        StateError
            The database was made by a newer version of this software.
        StoreUnavailableError
            The database cannot be reached, read or written now.
        """
        parsed = checked_url(url)
        sqlite_file: Path | None = None
        if parsed.get_backend_name() == "sqlite":
            sqlite_file = Path(str(parsed.database))
            _require_our_file(sqlite_file, make=make)
        database = cls(*_engines(parsed), None if sqlite_file is None else WriterLock(sqlite_file))
        try:
            with database.writing() as session:
                connection = session.connection()
                if connection.dialect.name == "postgresql":
                    tables = inspect(connection).get_table_names()
                    others = {"alembic_version"} & set(tables)  # one database may serve several
                    _require_our_tables(database.description, tables, others, make=make)
                _migrate(connection)
        except BaseException:
            database.close()
            raise
        return database

    @property
    def description(self) -> str:
        """URL without the password, for messages."""
        return self._engine.url.render_as_string(hide_password=True)

    @property
    def is_shared(self) -> bool:
        """Whether several machines may use it: PostgreSQL."""
        return self._engine.dialect.name == "postgresql"

    def now_ms(self, session: Session) -> int:
        """Read the clock of the database's machine, ms since 1970."""
        if not self.is_shared:
            return time.time_ns() // 1_000_000
        moment = session.connection().execute(select(func.clock_timestamp())).scalar_one()
        return int(moment.timestamp() * 1000.0)

    def clock_offset_s(self) -> float | None:
        """Seconds by which the clock of the database's machine is ahead; None for an SQLite file.

        Raises
        ------
        StoreUnavailableError
            The database does not answer.
        """
        if not self.is_shared:
            return None
        with self.reading() as session:
            moment = session.connection().execute(select(func.clock_timestamp())).scalar_one()
        return float((moment - datetime.now(UTC)).total_seconds())

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session for one consistent look.

        Raises
        ------
        StoreUnavailableError
            The database does not answer.
        """
        with (
            self._translated(),
            Session(self._looking, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a session whose changes become durable together when the block ends, or not at all.

        Raises
        ------
        StoreUnavailableError
            The database does not answer, is full or stays locked; nothing was written.
        """
        with (
            self._translated(),
            self._one_writer,
            self._alone(),
            Session(self._engine) as session,
            session.begin(),
        ):
            connection = session.connection()
            if self.is_shared:
                take_turn(connection.connection.cursor(), self.fence)
            session.info[DRIVER] = DriverTransaction(connection.connection, connection.dialect)
            yield session

    @contextmanager
    def beside(self) -> Iterator[Session]:
        """Open a session for a change that waits for no other writer of a shared database.

        For rows that only this process changes. With SQLite it is `writing`.

        Raises
        ------
        StoreUnavailableError
            The database does not answer; nothing was written.
        """
        if not self.is_shared:
            with self.writing() as session:
                yield session
            return
        with self._translated(), Session(self._engine) as session, session.begin():
            limit_standstill(session.connection().connection.cursor())
            yield session

    @contextmanager
    def writing_rows(self) -> Iterator[DriverTransaction]:
        """Do as ``writing`` does, for `Statement` only.

        Raises
        ------
        StoreUnavailableError
            The database does not answer, is full or stays locked; nothing was written.
        """
        with self._translated(), self._one_writer, self._alone():
            connection, self._rows = self._rows or self._engine.raw_connection(), None
            transaction = DriverTransaction(connection, self._engine.dialect)
            try:
                if self.is_shared:
                    take_turn(transaction.cursor(), self.fence)
                else:
                    transaction.cursor().execute("BEGIN IMMEDIATE")
                yield transaction
                connection.commit()
            except BaseException:
                connection.invalidate()
                raise
            if self.is_shared:
                connection.close()  # back to the pool, which notices a server that restarted
            else:
                self._rows = connection  # to ask the pool takes longer than the statements

    def close(self) -> None:
        """Close all connections; may be called again."""
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.close()
        self._engine.dispose()
        self._looking.dispose()
        lock, self._other_processes = self._other_processes, None
        if lock is not None:
            lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _alone(self) -> AbstractContextManager[None]:
        """Keep other processes from writing; PostgreSQL has a lock of its own."""
        lock = self._other_processes
        return nullcontext() if lock is None else lock.held(_BUSY_TIMEOUT_S)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        driver: Any = self._engine.dialect.loaded_dbapi
        try:
            yield
        except (SQLAlchemyError, driver.Error) as error:
            cause = getattr(error, "orig", None) or error
            raise StoreUnavailableError(
                f"database {self.description} does not take or give data: "
                f"{str(cause).strip()}; check that it runs, has room and is not locked"
            ) from error


def require_our_database(url: str) -> None:
    """Refuse a URL that names no database of this node, or another program's; nothing is changed.

    A database that is missing or empty is fit: the node makes its tables when it starts.

    Raises
    ------
    SettingsError
        The URL is not one of SQLite or PostgreSQL, the SQLite folder does not exist, or the
        database is another program's.
    StoreUnavailableError
        The database cannot be reached or read now.
    """
    parsed = checked_url(url)
    if parsed.get_backend_name() == "sqlite":
        _require_our_file(Path(str(parsed.database)), make=True)
        return
    with Database(*_engines(parsed)) as database, database.reading() as session:
        tables = inspect(session.connection()).get_table_names()
        others = {"alembic_version"} & set(tables)  # one database may serve several
        _require_our_tables(database.description, tables, others, make=True)


def checked_url(url: str) -> URL:
    """Return the URL with our driver.

    Raises
    ------
    SettingsError
        It is not one of SQLite or PostgreSQL, or the folder of SQLite does not exist.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsError(
            "storage.database_url is no URL; write sqlite:////folder/node.sqlite "
            "or postgresql://user@host/name"
        ) from error
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite":
        raise SettingsError(
            f"storage.database_url names {parsed.get_backend_name()!r}; "
            "it must be sqlite or postgresql"
        )
    if not parsed.database or parsed.database == ":memory:":
        raise SettingsError("storage.database_url names no file; SQLite in memory is not durable")
    folder = Path(parsed.database).absolute().parent
    if not folder.is_dir():
        raise SettingsError(f"the database's folder {folder} does not exist; create it")
    return parsed


def _require_our_file(path: Path, *, make: bool) -> None:
    """Refuse an SQLite file that is not ours, before anything of it is changed.

    Raises
    ------
    SettingsError
        It is another program's, or (`NoStateError`) missing or empty while ``make`` is false.
    StoreUnavailableError
        It cannot be read.
    """
    tables: list[str] = []
    if path.is_file() and path.stat().st_size:  # SQLite would delete the journal of an empty one
        uri = f"file:{quote(str(path.absolute()))}?mode=rw"  # rw: never made, journal rolled back
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S)) as connection:
                query = "SELECT name FROM sqlite_master WHERE type = 'table'"
                tables = [name for (name,) in connection.execute(query)]
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise SettingsError(
                    f"{path} is no SQLite database; move it away or set another storage.folder"
                ) from error
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CORRUPT:
                raise StoreUnavailableError(
                    f"{path} is damaged ({error}); stop the node, restore the database from a "
                    "backup, and run `rebrain-node storage fsck`"
                ) from error
            raise StoreUnavailableError(f"{path}: {error}; check owner and mode") from error
    _require_our_tables(str(path), tables, tables, make=make)


def _require_our_tables(
    where: str, tables: Collection[str], others: Collection[str], *, make: bool
) -> None:
    """Require the tables of a node; ``others`` are those that show another program's database.

    Raises
    ------
    SettingsError
        There are ``others``.
    NoStateError
        There are none, and ``make`` is false.
    """
    if set(tables) >= _OUR_TABLES:
        return
    if others:
        raise SettingsError(
            f"{where} is another program's database: of a node's tables it lacks "
            f"{', '.join(sorted(_OUR_TABLES - set(tables)))}; set another storage.folder or "
            "storage.database_url"
        )
    if not make:
        raise NoStateError(f"the database {where} is missing or empty")


def _engines(url: URL) -> tuple[Engine, Engine]:
    """Return what writes and what only looks; with SQLite the latter cannot write by mistake."""
    if url.get_backend_name() == "postgresql":
        engine = create_engine(url, pool_pre_ping=True)
        return engine, engine
    assert url.database is not None  # noqa: S101 - checked before; for the type checker
    _make_private(Path(url.database))
    made = []
    for begin, query_only in (("BEGIN IMMEDIATE", "OFF"), ("BEGIN", "ON")):
        engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})
        event.listen(engine, "connect", partial(_prepare_sqlite, query_only))
        event.listen(engine, "begin", partial(_begin_sqlite, begin))
        made.append(engine)
    return made[0], made[1]


def _make_private(path: Path) -> None:
    """Make the file, if it is missing, so that nobody but the owner reads it.

    SQLite gives its journal the same mode. A file that exists is not opened: closing any descriptor
    of it would drop the locks of all connections of this process (POSIX), and another process
    could then delete a write-ahead log that is in use (sqlite.org/howtocorrupt.html, 2.2).

    Raises
    ------
    StoreUnavailableError
        The file cannot be made, or not be read and written.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreUnavailableError(f"{path}: {error.strerror}; check owner and mode") from error
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreUnavailableError(f"{path}: {os.strerror(errno.EACCES)}; check owner and mode")


def _prepare_sqlite(query_only: str, connection: sqlite3.Connection, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    """Choose durable journalling (no acknowledged commit is lost at a power cut).

    WAL with full syncs: one sync a commit. A file system without shared memory has no WAL.
    """
    connection.isolation_level = None  # BEGIN is ours: see _begin_sqlite
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute(f"PRAGMA synchronous = {'FULL' if mode == 'wal' else 'EXTRA'}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA query_only = {query_only}")


def _begin_sqlite(begin: str, connection: Connection) -> None:
    connection.exec_driver_sql(begin)


def _migrate(connection: Connection) -> None:
    """Bring the tables to this version; costs no import of alembic when they already are.

    Raises
    ------
    StateError
        A newer version of this software made them.
    """
    revision = _revision(connection)
    if revision == SCHEMA_REVISION:
        return
    if revision is not None and revision > SCHEMA_REVISION:
        raise StateError(
            f"the database is at schema {revision}, this version knows {SCHEMA_REVISION}; "
            "install the newer version or restore the backup made before its installation"
        )
    from rebrain_node.store.migration import upgrade

    upgrade(connection)


def _revision(connection: Connection) -> Any:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
