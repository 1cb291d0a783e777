"""How much is open, counted: what probes and metrics ask every few seconds.

What is delivered costs nothing here, however much of it there is: only rows in open states are
read, by their index.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.orm import Session

from rebrain_node.domain.backlog import BacklogCounts, DestinationCounts
from rebrain_node.domain.ledger import PENDING
from rebrain_node.store.database import Database
from rebrain_node.store.tables import (
    DeliveryRow,
    DerivedSetRow,
    NotificationRow,
    SeriesRow,
    WorkitemRow,
)

#: states of an object with which nothing more happens by itself
_NEEDING = ("refused", "held", "altered")


class Backlog:
    """What is open in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self, late_before: datetime, failed_since: datetime) -> BacklogCounts:
        """Count at one instant.

        Parameters
        ----------
        late_before : datetime
            A series or set is late that has been open since before (aware).
        failed_since : datetime
            Series are counted that failed then or later (aware).
        """
        late_series = select(func.count()).where(
            SeriesRow.state.in_(PENDING), SeriesRow.changed_at < late_before, ~_is_kept()
        )
        failed = select(func.count()).where(
            SeriesRow.state == "failed", SeriesRow.changed_at >= failed_since
        )
        refused = select(func.count()).where(NotificationRow.state == "refused")
        workitems = select(func.count()).where(WorkitemRow.state == "refused")
        kept = select(func.count(func.distinct(DeliveryRow.set_id))).where(
            DeliveryRow.state == "kept"
        )
        with self._database.reading() as session:
            destinations, late_sets = _deliveries(session, late_before)
            return BacklogCounts(
                destinations=destinations,
                late=late_sets + session.scalars(late_series).one(),
                failed=session.scalars(failed).one(),
                notifications_refused=session.scalars(refused).one(),
                workitems_refused=session.scalars(workitems).one(),
                kept=session.scalars(kept).one(),
            )


def _is_kept() -> ColumnElement[bool]:
    """Whether a series has a result of which nothing is due anywhere: it waits for a person."""
    due = (
        select(DeliveryRow.id)
        .join(DerivedSetRow, DerivedSetRow.id == DeliveryRow.set_id)
        .where(
            DerivedSetRow.source_series_uid == SeriesRow.series_instance_uid,
            DeliveryRow.state.in_(("pending", "held")),
        )
    )
    return and_(SeriesRow.state == "synthesised", ~due.exists())


def _deliveries(
    session: Session, late_before: datetime
) -> tuple[dict[str, DestinationCounts], int]:
    """Count sets by destination: those that wait, and those that need the operator."""
    pending = func.max(case((DeliveryRow.state == "pending", 1), else_=0)).label("pending")
    needing = func.max(case((DeliveryRow.state == "pending", 0), else_=1)).label("needing")
    each = (
        select(DeliveryRow.destination, DeliveryRow.set_id, pending, needing)
        .where(DeliveryRow.state.in_(("pending", *_NEEDING)))
        .group_by(DeliveryRow.destination, DeliveryRow.set_id)
        .subquery()
    )
    is_late = case((DerivedSetRow.created_at < late_before, each.c.pending), else_=0)
    query = (
        select(
            each.c.destination,
            func.sum(each.c.pending),
            func.sum(each.c.needing),
            func.sum(is_late),
        )
        .join(DerivedSetRow, DerivedSetRow.id == each.c.set_id)
        .group_by(each.c.destination)
        .order_by(each.c.destination)
    )
    rows = session.execute(query).all()
    counts = {name: DestinationCounts(waiting, refused) for name, waiting, refused, _ in rows}
    return counts, sum(late for *_, late in rows)
