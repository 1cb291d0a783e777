"""What a destination was found to hold, and what it has committed itself to keep.

Only this makes a delivery confirmed: an answer to C-STORE is no proof.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, cast

from sqlalchemy import select

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import (
    ACCEPTED_STATES,
    CommitmentReport,
    DeliveryState,
    HeldObject,
)
from rebrain_node.store.audit import append
from rebrain_node.store.database import Database
from rebrain_node.store.series_end import Details, concluding, deliveries_of, reopen
from rebrain_node.store.tables import CommitmentRow, DeliveryRow

#: accepted, and neither confirmed nor found to be another object
_IN_DOUBT: Final = frozenset({"taken", "unverified"})


class Confirmations:
    """The confirmations of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def verify(self, set_id: int, destination: str, found: Sequence[HeldObject]) -> None:
        """Record what a destination was found to hold of what it has taken.

        What it does not hold is pending again; what it holds otherwise than it was sent is
        `altered`; what it holds as sent, or holds and was answered 0000, is `confirmed`.
        """
        by_uid = {one.sop_instance_uid: one for one in found}
        counts: Counter[str] = Counter()
        with self._database.writing() as session, concluding(session, set_id):
            for row, one in deliveries_of(session, set_id, destination):
                if one.sop_instance_uid in by_uid and row.state in _IN_DOUBT:
                    row.state, row.reason = _verified(row, by_uid[one.sop_instance_uid])
                    row.attempts += row.state == "pending"
                    row.changed_at = datetime.now(UTC)
                    counts[row.state] += 1
            details: Details = {"set": set_id, **counts}
            append(session, Event.DELIVERY_VERIFIED, destination, details)
            if counts["pending"]:
                session.flush()
                reopen(session, set_id)

    def unconfirmed(self, destination: str, *, in_doubt: bool = False) -> tuple[int, ...]:
        """Sets of which a destination has accepted all and not yet confirmed all, oldest first.

        Parameters
        ----------
        in_doubt : bool
            Only those with an object that it accepted with a warning or as a duplicate.
        """
        of_destination = DeliveryRow.destination == destination
        waiting = select(DeliveryRow.set_id).where(of_destination, DeliveryRow.state == "pending")
        states = ("unverified",) if in_doubt else tuple(_IN_DOUBT)
        query = (
            select(DeliveryRow.set_id)
            .where(
                of_destination, DeliveryRow.state.in_(states), DeliveryRow.set_id.not_in(waiting)
            )
            .distinct()
            .order_by(DeliveryRow.set_id)
        )
        with self._database.reading() as session:
            return tuple(session.scalars(query))

    def accepted(self, set_id: int, destination: str) -> Mapping[str, DeliveryState]:
        """State by SOP Instance UID of what a destination has accepted of a set."""
        with self._database.reading() as session:
            return {
                one.sop_instance_uid: cast(DeliveryState, row.state)
                for row, one in deliveries_of(session, set_id, destination)
                if row.state in ACCEPTED_STATES
            }

    def request_commitment(self, set_id: int, destination: str, transaction_uid: str) -> None:
        """Record a request for storage commitment before it is sent."""
        with self._database.writing() as session:
            session.add(
                CommitmentRow(
                    transaction_uid=transaction_uid,
                    set_id=set_id,
                    destination=destination,
                    requested_at=datetime.now(UTC),
                )
            )
            details: Details = {"set": set_id, "transaction": transaction_uid}
            append(session, Event.COMMITMENT_REQUESTED, destination, details)

    def commit(self, report: CommitmentReport) -> bool:
        """Record what a destination has committed itself to; False for an unknown transaction.

        An object to which it does not commit itself is `unverified`: Orthanc answers so for objects
        that it holds. A late answer counts as any other. An answer that comes again confirms, and
        takes no confirmation back: a later request may have been answered in between.
        """
        with self._database.writing() as session:
            request = session.get(CommitmentRow, report.transaction_uid)
            if request is None:
                details: Details = {"objects": len(report.committed) + len(report.failed)}
                append(session, Event.COMMITMENT_UNKNOWN, report.transaction_uid[:64], details)
                return False
            repeated = request.answered_at is not None
            request.answered_at = datetime.now(UTC)
            counts: Counter[str] = Counter()
            with concluding(session, request.set_id):
                for row, one in deliveries_of(session, request.set_id, request.destination):
                    state = _committed(row, one.sop_instance_uid, report, repeated=repeated)
                    if state is not None:
                        row.state, row.reason = state
                        row.changed_at = datetime.now(UTC)
                        counts[row.state] += 1
                details = {
                    "set": request.set_id, "transaction": report.transaction_uid, **counts,
                }  # fmt: skip
                append(session, Event.COMMITMENT_ANSWERED, request.destination, details)
        return True


def _verified(row: DeliveryRow, found: HeldObject) -> tuple[DeliveryState, str | None]:
    if not found.held:
        return "pending", "the destination answered that it took the object, but does not hold it"
    if found.changed:
        changed = ", ".join(found.changed[:8])
        return "altered", f"the destination holds the object with other values of {changed}"
    if found.changed is None and row.state == "unverified":
        return "unverified", row.reason
    return "confirmed", None


def _committed(
    row: DeliveryRow, sop_instance_uid: str, report: CommitmentReport, *, repeated: bool
) -> tuple[DeliveryState, str | None] | None:
    """Find the state of an object after a report; None where the report changes nothing."""
    if row.state not in _IN_DOUBT and (row.state != "confirmed" or repeated):
        return None
    if sop_instance_uid in report.failed:
        code = report.failed[sop_instance_uid]
        return "unverified", f"the destination does not commit itself to the object (0x{code:04X})"
    return ("confirmed", None) if sop_instance_uid in report.committed else None
