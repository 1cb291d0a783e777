"""Statements that the driver runs itself, for what every received instance needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Dialect, PoolProxiedConnection
from sqlalchemy.orm import Session
from sqlalchemy.sql.expression import ClauseElement

#: where a writing session keeps its `DriverTransaction`
DRIVER: Final = "driver"


class DriverTransaction:
    """A writing transaction without a session: what every instance needs at a third of the time."""

    def __init__(self, connection: PoolProxiedConnection, dialect: Dialect) -> None:
        self.dialect = dialect
        self.cursor = connection.cursor
        self.roll_back = connection.rollback


class Statement:
    """A statement that is compiled once for each dialect: a tenth of the time of `Session.execute`.

    Parameters and results are the driver's: a time is text, a structure JSON.

    Parameters
    ----------
    clause
        Its parameters are ``bindparam`` by name; those of an INSERT are the columns.
    columns
        Columns that an INSERT gives a value, where not all.
    """

    def __init__(self, clause: ClauseElement, columns: Sequence[str] | None = None) -> None:
        self._clause = clause
        self._columns = columns
        self._compiled: dict[str, tuple[str, dict[str, Any], Sequence[str] | None]] = {}

    def run(
        self, transaction: Session | DriverTransaction, **parameters: object
    ) -> Sequence[Any] | None:
        """Run it in a writing transaction; its first row, if it has rows."""
        driver = transaction if isinstance(transaction, DriverTransaction) else _of(transaction)
        text, constants, order = self._for(driver.dialect)
        values = constants | parameters
        cursor = driver.cursor()
        try:
            cursor.execute(text, values if order is None else [values[name] for name in order])
            return cursor.fetchone() if cursor.description else None
        finally:
            cursor.close()

    def _for(self, dialect: Dialect) -> tuple[str, dict[str, Any], Sequence[str] | None]:
        """Return text, constant parameters, and the order of parameters where they have no name."""
        found = self._compiled.get(dialect.name)
        if found is None:
            compiled: Any = self._clause.compile(dialect=dialect, column_keys=self._columns)
            order = compiled.positiontup if compiled.positional else None
            found = self._compiled[dialect.name] = str(compiled), dict(compiled.params), order
        return found


def _of(session: Session) -> DriverTransaction:
    """Write what waits in the session, and return what is below it."""
    session.flush()
    driver: DriverTransaction = session.info[DRIVER]
    return driver
