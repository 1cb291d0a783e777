"""Where a set stands as a whole, and how its series ends: published or failed, confirmed or not.

Every change of deliveries is made inside `concluding`, in the transaction of the change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import ACCEPTED_STATES, RELEASED_STATES, WAITING_STATES
from rebrain_node.errors import StateError
from rebrain_node.ports import JsonValue
from rebrain_node.store.audit import append
from rebrain_node.store.series import move, transition
from rebrain_node.store.tables import (
    DeliveryRow,
    DerivedInstanceRow,
    DerivedSetRow,
    NotificationRow,
    SeriesRow,
)

Details = dict[str, JsonValue]

#: of the deliveries of one set: all are confirmed, save what was left out or cancelled
_CONFIRMED: Final = (
    func.sum(case((DeliveryRow.state == "confirmed", 1), else_=0)) > 0,
    func.sum(case((DeliveryRow.state.in_(RELEASED_STATES), 0), else_=1)) == 0,
)


def deliveries_of(
    session: Session, set_id: int, destination: str
) -> Sequence[tuple[DeliveryRow, DerivedInstanceRow]]:
    """Read the rows of a set at a destination, in the order of sending.

    Raises
    ------
    StateError
        There are none.
    """
    query = (
        select(DeliveryRow, DerivedInstanceRow)
        .join(DerivedInstanceRow, DerivedInstanceRow.id == DeliveryRow.derived_instance_id)
        .where(DeliveryRow.set_id == set_id, DeliveryRow.destination == destination)
        .order_by(DerivedInstanceRow.position)
    )
    found = [(row, one) for row, one in session.execute(query)]
    if not found:
        raise StateError(f"the outbox holds no set {set_id} for destination {destination!r}")
    return found


@contextmanager
def concluding(session: Session, set_id: int) -> Iterator[None]:
    """Change deliveries of a set inside; the series then ends, or is confirmed, where that is due.

    It ends when nothing of its set is pending, held or kept in shadow mode: published, or failed by
    a refusal. The audit log has ``series.confirmed`` whenever the set becomes confirmed at every
    destination. What other systems are told about the set becomes due once its destination has
    confirmed it.
    """
    before = _is_confirmed(session, set_id)
    yield
    session.flush()
    _settle(session, set_id)
    settle_notifications(session, set_id)
    if before or not _is_confirmed(session, set_id):
        return
    row = session.get_one(DerivedSetRow, set_id)
    confirmed = select(DeliveryRow.destination).where(
        DeliveryRow.set_id == set_id, DeliveryRow.state == "confirmed"
    )
    details: Details = {
        "set": set_id,
        "revision": row.revision,
        "destinations": sorted(set(session.scalars(confirmed))),
    }
    append(session, Event.SERIES_CONFIRMED, row.source_series_uid, details)


def reopen(session: Session, set_id: int) -> None:
    """Take a series that failed by its deliveries back to ``synthesised``."""
    row = session.get_one(DerivedSetRow, set_id)
    series = session.get_one(SeriesRow, row.source_series_uid)
    if series.revision == row.revision and series.state == "failed":
        move(series, "synthesised")


def settle_notifications(session: Session, set_id: int) -> None:
    """Make due what other systems are told of a confirmed set, or let it wait again."""
    query = select(NotificationRow).where(
        NotificationRow.set_id == set_id, NotificationRow.state.in_(("waiting", "pending"))
    )
    rows = session.scalars(query).all()
    if not rows:
        return
    confirmed = (
        select(DeliveryRow.destination)
        .where(DeliveryRow.set_id == set_id)
        .group_by(DeliveryRow.destination)
        .having(*_CONFIRMED)
    )
    names = set(session.scalars(confirmed))
    for row in rows:
        state = "pending" if row.destination in names else "waiting"
        if row.state != state:
            row.state, row.changed_at = state, datetime.now(UTC)


def confirmed_series(session: Session, *conditions: ColumnElement[bool]) -> frozenset[str]:
    """UIDs of the published series whose result is confirmed at every destination."""
    query = (
        select(SeriesRow.series_instance_uid)
        .join(
            DerivedSetRow,
            (DerivedSetRow.source_series_uid == SeriesRow.series_instance_uid)
            & (DerivedSetRow.revision == SeriesRow.revision),
        )
        .join(DeliveryRow, DeliveryRow.set_id == DerivedSetRow.id)
        .where(SeriesRow.state == "published", *conditions)
        .group_by(SeriesRow.series_instance_uid)
        .having(*_CONFIRMED)
    )
    return frozenset(session.scalars(query))


def _is_confirmed(session: Session, set_id: int) -> bool:
    query = (
        select(DeliveryRow.set_id)
        .where(DeliveryRow.set_id == set_id)
        .group_by(DeliveryRow.set_id)
        .having(*_CONFIRMED)
    )
    return session.scalars(query).first() is not None


def _settle(session: Session, set_id: int) -> None:
    query = (
        select(DeliveryRow.state, func.count())
        .where(DeliveryRow.set_id == set_id)
        .group_by(DeliveryRow.state)
    )
    held = dict(session.execute(query).all())
    if not held.keys().isdisjoint(WAITING_STATES):
        return
    row = session.get_one(DerivedSetRow, set_id)
    series = session.get_one(SeriesRow, row.source_series_uid)
    if series.revision != row.revision or series.state != "synthesised":
        return  # a newer revision has its own set and its own end, or this one has ended before
    taken = sum(held.get(state, 0) for state in ACCEPTED_STATES)
    details: Details = {"set": set_id}
    if held.get("refused", 0) or not taken:
        told = Event.SERIES_FAILED, details | held
        transition(session, row.source_series_uid, row.revision, "failed", told)
    else:
        told = Event.SERIES_PUBLISHED, details | {"taken": taken}
        transition(session, row.source_series_uid, row.revision, "published", told)
