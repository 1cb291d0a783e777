"""The states of a series and the ways between them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, cast

from sqlalchemy.orm import Session

from rebrain_node.domain.ledger import SeriesState
from rebrain_node.errors import StateError, SupersededError
from rebrain_node.ports import JsonValue
from rebrain_node.store.audit import append
from rebrain_node.store.tables import SeriesRow

#: from where a series may go where; a late instance takes it back to ``receiving`` from anywhere
TRANSITIONS: Mapping[SeriesState, frozenset[SeriesState]] = {
    "receiving": frozenset({"complete"}),
    "complete": frozenset({"accepted", "held", "refused"}),
    "held": frozenset({"complete", "refused"}),
    "refused": frozenset({"accepted", "held", "complete"}),
    "accepted": frozenset({"synthesised", "held", "refused", "failed"}),
    "synthesised": frozenset({"published", "held", "failed"}),
    "published": frozenset(),
    "failed": frozenset({"complete", "synthesised"}),  # an operator has it or its delivery retried
}

#: nothing more happens to a series by itself
ENDED: Final = frozenset({"published", "refused", "failed"})


def move(row: SeriesRow, state: SeriesState) -> None:
    """Change the state of a series; the caller writes the audit row.

    Raises
    ------
    StateError
        ``TRANSITIONS`` knows no such way.
    """
    allowed = TRANSITIONS[cast(SeriesState, row.state)]
    if state not in allowed:
        raise StateError(
            f"series {row.series_instance_uid} is {row.state} and cannot become {state}; "
            f"from there it may become {', '.join(sorted(allowed)) or 'nothing else'}"
        )
    row.state = state
    row.changed_at = datetime.now(UTC)


def transition(
    session: Session,
    series_instance_uid: str,
    revision: int,
    state: SeriesState,
    told: tuple[str, Mapping[str, JsonValue]],
) -> bool:
    """Take a series to ``state`` inside the caller's transaction; false where it already is there.

    ``told`` is the audit event and its details.

    Raises
    ------
    SupersededError
        A late instance made a newer revision than ``revision``.
    StateError
        ``TRANSITIONS`` knows no such way, or the ledger no such series.
    """
    row = at_revision(session, series_instance_uid, revision)
    if row.state == state:
        return False
    move(row, state)
    event, details = told
    append(session, event, series_instance_uid, {**details, "revision": revision, "state": state})
    return True


def at_revision(session: Session, series_instance_uid: str, revision: int) -> SeriesRow:
    """Read a series that must stand at ``revision``.

    Raises
    ------
    SupersededError
        A late instance made a newer revision.
    StateError
        The ledger knows no such series.
    """
    row = session.get(SeriesRow, series_instance_uid)
    if row is None:
        raise StateError(f"the ledger knows no series {series_instance_uid}")
    if row.revision != revision:
        raise SupersededError(
            f"series {series_instance_uid} is at revision {row.revision}, this work at {revision}; "
            "nothing to do: the newer revision is judged by itself"
        )
    return row
