"""What the answer of a destination changes: an object, its companions, the audit log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import ACCEPTED_STATES, STATE_AFTER, Answer
from rebrain_node.store.recall import issued_notes
from rebrain_node.store.series_end import Details
from rebrain_node.store.tables import DeliveryRow, DerivedInstanceRow


def concerns(row: DeliveryRow, answer: Answer) -> bool:
    """Whether an answer changes a row; one that has ended it changes only if it was taken."""
    accepted = STATE_AFTER[answer.outcome] in ACCEPTED_STATES
    return row.state not in ACCEPTED_STATES and (accepted or row.state in {"pending", "held"})


def apply(row: DeliveryRow, answer: Answer) -> None:
    """Write an answer into the row that it concerns."""
    row.state, row.status = STATE_AFTER[answer.outcome], answer.status
    row.reason, row.changed_at = answer.reason, datetime.now(UTC)
    if answer.outcome == "retry":
        row.attempts += 1


def leave_out_companions(
    session: Session, rows: Sequence[tuple[DeliveryRow, DerivedInstanceRow]]
) -> None:
    """Leave out what refers to a refused slice; a rejection note takes back what was accepted."""
    images = [row.state for row, one in rows if one.kind == "MR"]
    if "refused" not in images or "pending" in images:
        return
    notes = issued_notes(session, rows[0][0].set_id)
    for row, one in rows:
        if one.kind != "MR" and row.state == "pending" and one.sop_instance_uid not in notes:
            row.state, row.changed_at = "left-out", datetime.now(UTC)
            row.reason = "the destination has not accepted every slice of the MR series"


def told(
    set_id: int, changed: Sequence[tuple[DeliveryRow, Answer]]
) -> Iterator[tuple[Event, Details]]:
    """Audit rows of the answers: what was taken, what was refused or left out, what failed."""
    accepted = [answer for row, answer in changed if row.state in ACCEPTED_STATES]
    if accepted:
        yield (
            Event.DELIVERY_TAKEN,
            {
                "set": set_id,
                "taken": len(accepted),
                "warnings": {a.sop_instance_uid: a.status for a in accepted if a.status != 0},
            },
        )
    for event, states in (
        (Event.DELIVERY_REFUSED, ("refused", "left-out")),
        (Event.DELIVERY_FAILED, ("pending",)),
    ):
        others = [answer for row, answer in changed if row.state in states]
        if others:
            yield event, {"set": set_id, "objects": len(others), "reason": others[0].reason}
