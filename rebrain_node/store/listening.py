"""How long the receiver has listened: a clock that stands still while it does not."""

from __future__ import annotations

from sqlalchemy import update

from rebrain_node.domain.ledger import ListeningTime
from rebrain_node.store.database import Database
from rebrain_node.store.tables import ListeningRow


class ListeningClock:
    """The clock of one database; only the receiver moves it, in every run from where it stood."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self) -> None:
        """Count a start of the receiver."""
        with self._database.writing() as session:
            row = session.get_one(ListeningRow, 1)
            row.run += 1
            row.run_began_ms = row.listened_ms

    def add(self, seconds: float) -> None:
        """Add to how long the receiver has listened; resolution 1 ms."""
        with self._database.writing() as session:
            session.get_one(ListeningRow, 1).listened_ms += round(1000.0 * seconds)

    def rewrite(self) -> None:
        """Write the row as it is: shows that the database takes a write.

        Raises
        ------
        StoreUnavailableError
            It does not.
        """
        with self._database.writing() as session:
            same = {ListeningRow.run: ListeningRow.run}
            session.execute(update(ListeningRow).values(same))

    def read(self) -> ListeningTime:
        """Read how long the receiver has listened."""
        with self._database.reading() as session:
            row = session.get_one(ListeningRow, 1)
            return ListeningTime(
                run=row.run,
                run_began_s=row.run_began_ms / 1000.0,
                listened_s=row.listened_ms / 1000.0,
            )
