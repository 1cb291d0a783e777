"""Which system was told that a destination holds a set, and what an operator decides about it.

A notification enters the outbox with its set and waits until its destination has confirmed the
whole set (`series_end.settle_notifications`). Facts only; when to try is the loop's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.notification import AvailableObject, Notification, NotificationState
from rebrain_node.errors import StateError
from rebrain_node.ports import JsonValue
from rebrain_node.store.audit import append
from rebrain_node.store.database import Database
from rebrain_node.store.recall import issued_notes
from rebrain_node.store.series_end import settle_notifications
from rebrain_node.store.tables import (
    DeliveryRow,
    DerivedInstanceRow,
    DerivedSetRow,
    NotificationRow,
)


class Notifications:
    """The notifications of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, set_id: int) -> tuple[Notification, ...]:
        """Every notification about a set."""
        return self._read(NotificationRow.set_id == set_id)

    def open(self, receiver: str | None = None) -> tuple[Notification, ...]:
        """Those that are due or refused, oldest first; of one receiver."""
        return self._read(
            NotificationRow.state.in_(("pending", "refused")),
            *(() if receiver is None else (NotificationRow.receiver == receiver,)),
        )

    def pending(self, receiver: str) -> tuple[Notification, ...]:
        """Those that are due to a receiver, oldest first."""
        return self._read(NotificationRow.state == "pending", NotificationRow.receiver == receiver)

    def content(self, notification: Notification) -> tuple[str, tuple[AvailableObject, ...]]:
        """Study Instance UID, and the objects that the destination has confirmed.

        Rejection notes of this node are left out: they take objects back.
        """
        query = (
            select(DerivedInstanceRow)
            .join(DeliveryRow, DeliveryRow.derived_instance_id == DerivedInstanceRow.id)
            .where(
                DeliveryRow.set_id == notification.set_id,
                DeliveryRow.destination == notification.destination,
                DeliveryRow.state == "confirmed",
            )
            .order_by(DerivedInstanceRow.position)
        )
        with self._database.reading() as session:
            notes = issued_notes(session, notification.set_id)
            study = session.get_one(DerivedSetRow, notification.set_id).study_instance_uid
            return study, tuple(
                AvailableObject(
                    series_instance_uid=row.series_instance_uid,
                    sop_class_uid=row.sop_class_uid,
                    sop_instance_uid=row.sop_instance_uid,
                )
                for row in session.scalars(query)
                if row.sop_instance_uid not in notes
            )

    def sent(self, notification: Notification, status: int, objects: int) -> None:
        """Record that a receiver has taken a notification."""
        with self._database.writing() as session:
            row = session.get_one(NotificationRow, notification.id)
            _change(row, "sent", None, status)
            details: dict[str, JsonValue] = {
                "set": row.set_id, "destination": row.destination,
                "notification": row.sop_instance_uid, "objects": objects, "status": status,
            }  # fmt: skip
            append(session, Event.NOTIFICATION_SENT, row.receiver, details)

    def failed(
        self,
        notification: Notification,
        reason: str,
        status: int | None = None,
        *,
        is_trial: bool = False,
    ) -> None:
        """Record one failed attempt; the notification stays due.

        A trial while the circuit breaker is open has no row of its own in the audit log.
        """
        with self._database.writing() as session:
            row = session.get_one(NotificationRow, notification.id)
            row.attempts, row.reason, row.status = row.attempts + 1, reason, status
            if not is_trial:
                append(session, Event.NOTIFICATION_FAILED, row.receiver, _about(row, reason))

    def refused(self, notification: Notification, reason: str, status: int | None = None) -> None:
        """Record that a notification is given up until an operator retries it."""
        with self._database.writing() as session:
            row = session.get_one(NotificationRow, notification.id)
            _change(row, "refused", reason, status)
            append(session, Event.NOTIFICATION_REFUSED, row.receiver, _about(row, reason))

    def retry(
        self, set_id: int, receiver: str, reason: str, operator: str, *, resend: bool = False
    ) -> int:
        """Make notifications due again that a receiver has not taken; their number.

        Parameters
        ----------
        resend : bool
            Also those that it has taken.

        Raises
        ------
        StateError
            There is none about this set.
        """
        states = ("refused", "cancelled", *(("sent",) if resend else ()))
        with self._database.writing() as session:
            rows = _of(session, set_id, receiver, states)
            if not rows:
                raise StateError(
                    f"no notification of {receiver!r} about set {set_id} is refused or cancelled; "
                    "use --resend to send one again that it has taken"
                )
            for row in rows:
                _change(row, "waiting", None, None)
                row.attempts = 0
            session.flush()
            settle_notifications(session, set_id)
            details: dict[str, JsonValue] = {
                "set": set_id, "objects": len(rows), "reason": reason, "operator": operator,
            }  # fmt: skip
            append(session, Event.NOTIFICATION_RETRIED, receiver, details)
        return len(rows)

    def cancel(self, set_id: int, receiver: str, reason: str, operator: str) -> int:
        """Stop what a receiver was to be told about a set; the number of notifications.

        Raises
        ------
        StateError
            Nothing of it is left to be sent.
        """
        with self._database.writing() as session:
            count = cancel_notifications(session, set_id, reason, operator, receiver)
        if not count:
            raise StateError(f"no notification of {receiver!r} about set {set_id} waits to be sent")
        return count

    def _read(self, *conditions: ColumnElement[bool]) -> tuple[Notification, ...]:
        query = select(NotificationRow).where(*conditions).order_by(NotificationRow.id)
        with self._database.reading() as session:
            return tuple(_notification(row) for row in session.scalars(query))


def cancel_notifications(
    session: Session, set_id: int, reason: str, operator: str, receiver: str | None = None
) -> int:
    """Stop what receivers were to be told about a set, in the caller's transaction."""
    rows = _of(session, set_id, receiver, ("waiting", "pending", "refused"))
    for row in rows:
        _change(row, "cancelled", reason, row.status)
        details: dict[str, JsonValue] = {"set": set_id, "reason": reason, "operator": operator}
        append(session, Event.NOTIFICATION_CANCELLED, row.receiver, details)
    return len(rows)


def _of(
    session: Session, set_id: int, receiver: str | None, states: Sequence[str]
) -> Sequence[NotificationRow]:
    query = select(NotificationRow).where(
        NotificationRow.set_id == set_id, NotificationRow.state.in_(states)
    )
    if receiver is not None:
        query = query.where(NotificationRow.receiver == receiver)
    return session.scalars(query.order_by(NotificationRow.id)).all()


def _change(
    row: NotificationRow, state: NotificationState, reason: str | None, status: int | None
) -> None:
    row.state, row.reason, row.status = state, reason, status
    row.changed_at = datetime.now(UTC)


def _about(row: NotificationRow, reason: str) -> dict[str, JsonValue]:
    return {"set": row.set_id, "destination": row.destination, "reason": reason}


def _notification(row: NotificationRow) -> Notification:
    return Notification(
        id=row.id,
        set_id=row.set_id,
        destination=row.destination,
        receiver=row.receiver,
        sop_instance_uid=row.sop_instance_uid,
        state=cast(NotificationState, row.state),
        status=row.status,
        attempts=row.attempts,
        reason=row.reason,
        since=row.changed_at,
    )
