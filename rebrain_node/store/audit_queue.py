"""How far each receiver of audit messages or notices has been told of the audit log.

The log itself is the queue: a receiver has a position in it and nothing else, so that nothing is
lost by an outage, a restart or a kill. A position moves once what was made of the rows before it
is taken; rows behind it are kept by retention.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import AuditEvent
from rebrain_node.domain.audit_message import AuditFacts, SetFacts
from rebrain_node.store.audit import read_events
from rebrain_node.store.database import Database
from rebrain_node.store.tables import (
    AuditHead,
    AuditQueueRow,
    AuditRow,
    DerivedInstanceRow,
    DerivedSetRow,
    SeriesRow,
)


def message_reader(collector: str) -> str:
    """Return the name under which the position of a collector of audit messages is kept."""
    return f"audit-messages:{collector}"


def notice_reader(channel: str) -> str:
    """Return the name under which the position of a channel of notices is kept."""
    return f"notices:{channel}"


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """What one receiver has still to be told."""

    reader: str
    rows: int  #: events behind its position
    since: datetime | None  #: of the oldest of them
    failures: int  #: attempts that failed in a row
    reason: str | None  #: of the last failure


class AuditQueue:
    """The positions of all receivers in the audit log of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, readers: Collection[str]) -> None:
        """Give each new receiver the newest row as its position, and forget the others."""
        with self._database.writing() as session:
            session.execute(delete(AuditQueueRow).where(AuditQueueRow.reader.not_in(readers)))
            known = set(session.scalars(select(AuditQueueRow.reader)))
            head = session.scalars(select(AuditHead.sequence)).one()
            for reader in set(readers) - known:
                session.add(_row(reader, head))

    def read(self, reader: str, limit: int, after: int | None = None) -> tuple[AuditEvent, ...]:
        """Return the oldest events that a receiver has not taken; none where it is unknown.

        Parameters
        ----------
        after : int, optional
            Read on after this row instead.
        """
        with self._database.reading() as session:
            row = session.get(AuditQueueRow, reader)
            if row is None:
                return ()
            return read_events(session, row.sequence if after is None else after, limit)

    def taken(self, reader: str, sequence: int) -> None:
        """Record that a receiver has taken everything up to a row."""
        with self._database.writing() as session:
            row = session.get_one(AuditQueueRow, reader)
            row.sequence, row.failures, row.reason = sequence, 0, None
            row.changed_at = datetime.now(UTC)

    def failed(self, reader: str, reason: str) -> None:
        """Record a failed attempt."""
        with self._database.writing() as session:
            row = session.get_one(AuditQueueRow, reader)
            row.failures, row.reason, row.changed_at = row.failures + 1, reason, datetime.now(UTC)

    def states(self) -> tuple[QueueState, ...]:
        """What every receiver has still to be told."""
        with self._database.reading() as session:
            head = session.scalars(select(AuditHead.sequence)).one()
            found = []
            for row in session.scalars(select(AuditQueueRow).order_by(AuditQueueRow.reader)):
                oldest = select(func.min(AuditRow.sequence)).where(AuditRow.sequence > row.sequence)
                since = session.scalars(
                    select(AuditRow.recorded_at).where(
                        AuditRow.sequence == oldest.scalar_subquery()
                    )
                ).first()
                found.append(
                    QueueState(
                        reader=row.reader,
                        rows=max(0, head - row.sequence),
                        since=None if since is None else datetime.fromisoformat(since),
                        failures=row.failures,
                        reason=row.reason,
                    )
                )
            return tuple(found)

    def facts(self, events: Sequence[AuditEvent]) -> AuditFacts:
        """Look up the studies and sets that events are about."""
        series = {one.subject for one in events if one.subject and one.subject[0].isdigit()}
        sets = {_number(one.details) for one in events} - {None}
        studies = select(SeriesRow.series_instance_uid, SeriesRow.study_instance_uid)
        with self._database.reading() as session:
            named = session.execute(studies.where(SeriesRow.series_instance_uid.in_(series)))
            derived = session.scalars(select(DerivedSetRow).where(DerivedSetRow.id.in_(sets))).all()
            return AuditFacts(
                studies={row[0]: row[1] for row in named},
                sets={
                    row.id: SetFacts(row.study_instance_uid, _classes(session, row.id))
                    for row in derived
                },
            )


def _classes(session: Session, set_id: int) -> dict[str, int]:
    """Number of objects of a set by SOP Class UID."""
    query = (
        select(DerivedInstanceRow.sop_class_uid, func.count())
        .where(DerivedInstanceRow.set_id == set_id)
        .group_by(DerivedInstanceRow.sop_class_uid)
        .order_by(DerivedInstanceRow.sop_class_uid)
    )
    return {row[0]: row[1] for row in session.execute(query)}


def _row(reader: str, sequence: int) -> AuditQueueRow:
    return AuditQueueRow(
        reader=reader, sequence=sequence, failures=0, reason=None, changed_at=datetime.now(UTC)
    )


def _number(details: Mapping[str, Any]) -> int | None:
    number = details.get("set")
    return number if isinstance(number, int) else None
