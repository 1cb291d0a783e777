"""Which destination has taken which object of the outbox, and what an operator decides about it.

Facts only; when to try again is the delivery loop's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import (
    OPEN_STATES,
    UNCONFIRMED_STATES,
    WAITING_STATES,
    Answer,
    DeliveredObject,
    Delivery,
    DeliveryState,
    PausedDestination,
    WaitingSet,
)
from rebrain_node.errors import StateError
from rebrain_node.store.answers import apply, concerns, leave_out_companions, told
from rebrain_node.store.audit import append
from rebrain_node.store.database import Database
from rebrain_node.store.disputes import undecided_by_series
from rebrain_node.store.notifications import cancel_notifications
from rebrain_node.store.recall import every_note, issued_notes
from rebrain_node.store.series_end import (
    Details,
    concluding,
    deliveries_of,
    reopen,
    settle_notifications,
)
from rebrain_node.store.stops import is_stopped
from rebrain_node.store.tables import (
    DeliveryRow,
    DerivedInstanceRow,
    DerivedSetRow,
    PausedDestinationRow,
)

#: the state whose reason describes a delivery, the most important first
_REASON_ORDER: Final = (
    "held", "refused", "altered", "pending", "kept", "left-out", "cancelled", "withdrawn",
    "unverified",
)  # fmt: skip


class Deliveries:
    """The deliveries of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, destination: str | None = None, set_id: int | None = None) -> tuple[Delivery, ...]:
        """Every set at every destination, oldest first; of one destination or one set."""
        return self._summaries(
            *(() if destination is None else (DeliveryRow.destination == destination,)),
            *(() if set_id is None else (DeliveryRow.set_id == set_id,)),
        )

    def open(self, *, unconfirmed: bool = False) -> tuple[Delivery, ...]:
        """Sets that are not wholly accepted or cancelled, oldest first; or not confirmed either.

        Reads no row of a set that is wholly delivered, however many there are.
        """
        states = OPEN_STATES | UNCONFIRMED_STATES if unconfirmed else OPEN_STATES
        some = select(DeliveryRow.set_id).where(DeliveryRow.state.in_(states)).distinct()
        found = self._summaries(DeliveryRow.set_id.in_(some))
        return tuple(each for each in found if not states.isdisjoint(each.states))

    def pending(self, destination: str | None = None) -> tuple[Delivery, ...]:
        """Sets that are not wholly delivered and are still tried, oldest first."""
        waiting = select(DeliveryRow.set_id).where(DeliveryRow.state == "pending").distinct()
        found = self._summaries(
            DeliveryRow.set_id.in_(waiting),
            *(() if destination is None else (DeliveryRow.destination == destination,)),
        )
        return tuple(delivery for delivery in found if delivery.outstanding)

    def waiting(self, destination: str) -> tuple[WaitingSet, ...]:
        """Sets that are to be sent to a destination now, oldest first.

        Those of which something is pending; while delivery is stopped, those of which a rejection
        note alone is. Asked before each delivery, so it reads no object: `pending` takes ten times
        as long where a thousand sets wait.
        """
        due = DeliveryRow.state == "pending", DeliveryRow.destination == destination
        waiting = select(DeliveryRow.set_id).where(*due)
        query = (
            select(DerivedSetRow.id, DerivedSetRow.study_instance_uid, DerivedSetRow.created_at)
            .where(DerivedSetRow.id.in_(waiting.distinct()))
            .order_by(DerivedSetRow.id)
        )
        with self._database.reading() as session:
            if is_stopped(session):
                query = query.where(*_notes_alone(session, due))
            return tuple(WaitingSet(*row) for row in session.execute(query))

    def needing_operator(self) -> tuple[Delivery, ...]:
        """Sets of which something is refused, held back or altered, oldest first."""
        states = ("refused", "held", "altered")
        needing = select(DeliveryRow.set_id).where(DeliveryRow.state.in_(states)).distinct()
        found = self._summaries(DeliveryRow.set_id.in_(needing))
        return tuple(delivery for delivery in found if delivery.needs_operator)

    def objects(self, set_id: int) -> tuple[DeliveredObject, ...]:
        """Every object of a set at every destination, in the order of sending."""
        query = (
            select(DeliveryRow, DerivedInstanceRow)
            .join(DerivedInstanceRow, DerivedInstanceRow.id == DeliveryRow.derived_instance_id)
            .where(DeliveryRow.set_id == set_id)
            .order_by(DeliveryRow.destination, DerivedInstanceRow.position)
        )
        with self._database.reading() as session:
            return tuple(
                DeliveredObject(
                    destination=row.destination,
                    kind=one.kind,
                    sop_instance_uid=one.sop_instance_uid,
                    state=cast(DeliveryState, row.state),
                    status=row.status,
                    attempts=row.attempts,
                    reason=row.reason,
                )
                for row, one in session.execute(query)
            )

    def _summaries(self, *conditions: ColumnElement[bool]) -> tuple[Delivery, ...]:
        # summed before the join: four times as fast where there are a million objects
        summed = (
            select(
                DeliveryRow.set_id,
                DeliveryRow.destination,
                DeliveryRow.state,
                func.count().label("objects"),
                func.max(DeliveryRow.attempts).label("attempts"),
                func.max(DeliveryRow.reason).label("reason"),
            )
            .where(*conditions)
            .group_by(DeliveryRow.set_id, DeliveryRow.destination, DeliveryRow.state)
            .subquery()
        )
        query = (
            select(
                DerivedSetRow,
                summed.c.destination,
                summed.c.state,
                summed.c.objects,
                summed.c.attempts,
                summed.c.reason,
            )
            .join(summed, summed.c.set_id == DerivedSetRow.id)
            .order_by(DerivedSetRow.id, summed.c.destination)
        )
        with self._database.reading() as session:
            rows = [tuple(row) for row in session.execute(query)]
        groups = groupby(rows, key=itemgetter(0, 1))
        return tuple(_delivery(one, name, list(group)) for (one, name), group in groups)

    def record(self, set_id: int, destination: str, answers: Sequence[Answer]) -> None:
        """Record what a destination answered; with the last of all, the series ends.

        Companions of an MR series that the destination has refused in part are left out: they
        refer to slices that it does not hold.
        """
        by_uid = {answer.sop_instance_uid: answer for answer in answers}
        with self._database.writing() as session, concluding(session, set_id):
            rows = deliveries_of(session, set_id, destination)
            changed = [
                (row, by_uid[one.sop_instance_uid])
                for row, one in rows
                if one.sop_instance_uid in by_uid and concerns(row, by_uid[one.sop_instance_uid])
            ]
            for row, answer in changed:
                apply(row, answer)
            leave_out_companions(session, rows)
            for event, details in told(set_id, changed):
                append(session, event, destination, details)

    def failed(self, set_id: int, destination: str, reason: str, *, is_trial: bool = False) -> None:
        """Record one failed attempt; what was not taken stays pending.

        A trial while the circuit breaker is open has no row of its own in the audit log.
        """
        with self._database.writing() as session:
            for row, _ in deliveries_of(session, set_id, destination):
                if row.state == "pending":
                    row.attempts += 1
                    row.reason = reason
                    row.changed_at = datetime.now(UTC)
            if not is_trial:
                details: Details = {"set": set_id, "reason": reason}
                append(session, Event.DELIVERY_FAILED, destination, details)

    def unreachable(self, destination: str, failures: int, reason: str) -> None:
        """Record that the circuit breaker of a destination opens."""
        with self._database.writing() as session:
            details: Details = {"failures": failures, "reason": reason}
            append(session, Event.DESTINATION_UNREACHABLE, destination, details)

    def reachable(self, destination: str, failures: int, seconds: float) -> None:
        """Record that the circuit breaker of a destination closes."""
        with self._database.writing() as session:
            details: Details = {"failures": failures, "seconds": round(seconds)}
            append(session, Event.DESTINATION_REACHABLE, destination, details)

    def refused(self, set_id: int, destination: str, reason: str) -> None:
        """Record that what is pending of a set is given up for a destination."""
        self._end(set_id, destination, "refused", (Event.DELIVERY_REFUSED, {"reason": reason}))

    def hold(self, set_id: int, destination: str, reason: str) -> None:
        """Keep what is pending of a set back until an operator retries or cancels it."""
        self._end(set_id, destination, "held", (Event.DELIVERY_HELD, {"reason": reason}))

    def cancel(self, set_id: int, destination: str, reason: str, operator: str) -> int:
        """Stop the delivery of a set to a destination; the number of objects cancelled.

        Raises
        ------
        StateError
            There is no such set for that destination, or nothing of it is pending.
        """
        details: Details = {"reason": reason, "operator": operator}
        count = self._end(set_id, destination, "cancelled", (Event.DELIVERY_CANCELLED, details))
        if not count:
            raise StateError(
                f"nothing of set {set_id} is pending for destination {destination!r}; "
                "`rebrain-node outbox list --all` shows what became of it"
            )
        return count

    def cancel_recalled(self, set_id: int, reason: str, operator: str) -> int:
        """Stop the delivery of a set to every destination, save its rejection notes.

        Nobody is notified of it any more.

        Returns the number of objects cancelled, each destination counted.
        """
        count = 0
        with self._database.writing() as session, concluding(session, set_id):
            notes = issued_notes(session, set_id)
            for name in _destinations_of(session, set_id):
                rows = [
                    row
                    for row, one in deliveries_of(session, set_id, name)
                    if row.state in WAITING_STATES and one.sop_instance_uid not in notes
                ]
                for row in rows:
                    row.state, row.reason = "cancelled", reason
                    row.changed_at = datetime.now(UTC)
                if rows:
                    details: Details = {"set": set_id, "reason": reason, "operator": operator}
                    append(session, Event.DELIVERY_CANCELLED, name, details)
                count += len(rows)
            cancel_notifications(session, set_id, reason, operator)
        return count

    def retry(
        self, set_id: int, destination: str, reason: str, operator: str, *, resend: bool = False
    ) -> int:
        """Make what a destination has not taken pending again; the number of objects.

        Parameters
        ----------
        resend : bool
            Also what it has taken, e.g. after the series was deleted there.

        Raises
        ------
        StateError
            There is no such set for that destination, nothing of it is to be sent again, its bytes
            were deleted, or its source series is in dispute, or was when the set was withdrawn.
        """
        with self._database.writing() as session:
            _refuse_disputed(session, set_id)
            found = [
                (row, one)
                for row, one in deliveries_of(session, set_id, destination)
                if row.state not in {"pending", "withdrawn"}
                and (resend or row.state not in {"taken", "confirmed"})
            ]
            _refuse_deleted(set_id, [one for _, one in found])
            rows = [row for row, _ in found]
            if not rows:
                raise StateError(
                    f"destination {destination!r} has taken or awaits all of set {set_id}, or it "
                    "was withdrawn because its source series is in dispute; "
                    "use --resend to send again what it has taken"
                )
            for row in rows:
                row.state, row.status, row.attempts, row.reason = "pending", None, 0, None
                row.changed_at = datetime.now(UTC)
            details: Details = {
                "set": set_id, "objects": len(rows), "reason": reason, "operator": operator,
            }  # fmt: skip
            append(session, Event.DELIVERY_RETRIED, destination, details)
            reopen(session, set_id)
            session.flush()
            settle_notifications(session, set_id)
        return len(rows)

    def pause(self, destination: str, reason: str, operator: str) -> None:
        """Stop all deliveries to a destination until `resume`; the durable switch of an operator.

        Raises
        ------
        StateError
            It is paused already.
        """
        with self._database.writing() as session:
            if session.get(PausedDestinationRow, destination) is not None:
                raise StateError(f"destination {destination!r} is paused already")
            session.add(
                PausedDestinationRow(
                    destination=destination, reason=reason, since=datetime.now(UTC)
                )
            )
            details = {"reason": reason, "operator": operator}
            append(session, Event.DELIVERY_PAUSED, destination, details)

    def resume(self, destination: str, reason: str, operator: str) -> None:
        """Deliver to a paused destination again.

        Raises
        ------
        StateError
            It is not paused.
        """
        with self._database.writing() as session:
            row = session.get(PausedDestinationRow, destination)
            if row is None:
                raise StateError(f"destination {destination!r} is not paused")
            session.delete(row)
            details = {"reason": reason, "operator": operator}
            append(session, Event.DELIVERY_RESUMED, destination, details)

    def paused(self) -> tuple[PausedDestination, ...]:
        """Destinations to which nothing is delivered until `resume`."""
        query = select(PausedDestinationRow).order_by(PausedDestinationRow.destination)
        with self._database.reading() as session:
            return tuple(
                PausedDestination(destination=row.destination, reason=row.reason, since=row.since)
                for row in session.scalars(query)
            )

    def _end(
        self,
        set_id: int,
        destination: str,
        state: DeliveryState,
        told: tuple[Event, Details],
    ) -> int:
        """Take what is pending of a set to a final state; the number of objects."""
        event, details = told
        with self._database.writing() as session, concluding(session, set_id):
            rows = [
                row
                for row, _ in deliveries_of(session, set_id, destination)
                if row.state in WAITING_STATES
            ]
            for row in rows:
                row.state, row.reason = state, str(details["reason"])
                row.changed_at = datetime.now(UTC)
            if rows:
                append(session, event, destination, {"set": set_id, **details})
        return len(rows)


def _notes_alone(
    session: Session, due: tuple[ColumnElement[bool], ...]
) -> tuple[ColumnElement[bool], ...]:
    """Conditions on the sets of which only rejection notes of this node are due."""
    is_note = DerivedInstanceRow.sop_instance_uid.in_(every_note(session))
    sets = (
        select(DeliveryRow.set_id)
        .join(DerivedInstanceRow, DerivedInstanceRow.id == DeliveryRow.derived_instance_id)
        .where(*due)
    )
    return DerivedSetRow.id.in_(sets.where(is_note)), DerivedSetRow.id.not_in(sets.where(~is_note))


def _delivery(row: DerivedSetRow, destination: str, group: Sequence[tuple[Any, ...]]) -> Delivery:
    reasons = {state: reason for _, _, state, _, _, reason in group if reason is not None}
    return Delivery(
        set_id=row.id,
        destination=destination,
        study_instance_uid=row.study_instance_uid,
        source_series_uid=row.source_series_uid,
        revision=row.revision,
        states={state: count for _, _, state, count, _, _ in group},
        attempts=max(attempts for *_, attempts, _ in group),
        reason=next((reasons[state] for state in _REASON_ORDER if state in reasons), None),
        since=row.created_at,
    )


def _destinations_of(session: Session, set_id: int) -> Sequence[str]:
    query = select(DeliveryRow.destination).where(DeliveryRow.set_id == set_id).distinct()
    return session.scalars(query.order_by(DeliveryRow.destination)).all()


def _refuse_deleted(set_id: int, instances: Sequence[DerivedInstanceRow]) -> None:
    """Refuse to send what retention has deleted.

    Raises
    ------
    StateError
        The bytes of an instance were deleted.
    """
    purged = [one.purged_at for one in instances if one.purged_at is not None]
    if purged:
        raise StateError(
            f"the bytes of {len(purged)} objects of set {set_id} were deleted by retention on "
            f"{purged[0]:%Y-%m-%d} (retention.delivered_days), so they cannot be sent again; send "
            "the whole source study to the node again"
        )


def _refuse_disputed(session: Session, set_id: int) -> None:
    """Refuse to send what a dispute about the patient has stopped.

    Raises
    ------
    StateError
        The source series is in dispute, or the set was withdrawn because of one.
    """
    row = session.get(DerivedSetRow, set_id)
    if row is None:
        return  # said by whoever looks for its deliveries
    uid = row.source_series_uid
    withdrawn = select(DeliveryRow.id).where(
        DeliveryRow.set_id == set_id, DeliveryRow.state == "withdrawn"
    )
    if session.scalars(withdrawn.limit(1)).first() is not None:
        raise StateError(
            f"set {set_id} was withdrawn because series {uid} came into dispute; the set of a "
            "later revision takes its place"
        )
    if undecided_by_series(session).get(uid, 0):
        raise StateError(
            f"series {uid} is in dispute; decide with `rebrain-node queue dispute {uid}` first"
        )
