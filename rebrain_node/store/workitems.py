"""Which workitems of workflow managers the node performs, and what became of their studies.

A row, with the Transaction UID that the node has made, is durable before the manager is asked for
anything; so the node holds its workitems over a restart. Facts only; when to try is the loop's.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import ACCEPTED_STATES
from rebrain_node.domain.notification import AvailableObject
from rebrain_node.domain.workitem import ScheduledWorkitem, StudyOutcome, Workitem, WorkitemState
from rebrain_node.ports import JsonValue
from rebrain_node.store.audit import append
from rebrain_node.store.database import Database
from rebrain_node.store.recall import issued_notes
from rebrain_node.store.tables import (
    DeliveryRow,
    DerivedInstanceRow,
    DerivedSetRow,
    SeriesRow,
    WorkitemRow,
)


class Workitems:
    """The workitems of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, study: str) -> tuple[Workitem, ...]:
        """Every workitem that names a study."""
        return self._read(WorkitemRow.study_instance_uid == study)

    def open(self, manager: str) -> tuple[Workitem, ...]:
        """Those of a manager that the node works on, oldest first."""
        return self._read(WorkitemRow.manager == manager, WorkitemRow.state == "open")

    def is_known(self, manager: str, workitem_uid: str) -> bool:
        """Whether the node has chosen a workitem before."""
        return bool(
            self._read(WorkitemRow.manager == manager, WorkitemRow.workitem_uid == workitem_uid)
        )

    def end_of(self, study: str) -> StudyOutcome | None:
        """What became of a study; None while a series of it can still get a result.

        Of a failed series an operator decides, so that its study has not ended. Objects that were
        recalled are left out.
        """
        with self._database.reading() as session:
            query = select(SeriesRow).where(SeriesRow.study_instance_uid == study)
            series = session.scalars(query.order_by(SeriesRow.series_instance_uid)).all()
            if not series or any(one.state not in ("published", "refused") for one in series):
                return None
            objects: list[tuple[str, AvailableObject]] = []
            reasons: list[str] = []
            for one in series:
                if one.state == "published":
                    held = _accepted(session, one)
                    objects += held
                    reasons += [] if held else [f"The result of {_name(one)} was recalled."]
                else:
                    sentences = [str(finding.get("sentence")) for finding in one.findings]
                    why = "; ".join(each.rstrip(".") for each in sentences)
                    reasons.append(f"{_name(one)} was refused: {why or 'it was not chosen'}.")
            return StudyOutcome(objects=tuple(objects), reasons=tuple(reasons))

    def choose(self, manager: str, scheduled: ScheduledWorkitem) -> int:
        """Record that the node is about to claim a workitem, with a new Transaction UID; its id."""
        with self._database.writing() as session:
            row = WorkitemRow(
                manager=manager,
                workitem_uid=scheduled.workitem_uid,
                study_instance_uid=scheduled.study_instance_uid,
                transaction_uid=f"2.25.{uuid.uuid4().int}",
                state="open",
                attempts=0,
                changed_at=datetime.now(UTC),
            )
            session.add(row)
            session.flush()
            append(session, Event.WORKITEM_CHOSEN, manager, _about(row))
            return row.id

    def claimed(self, workitem: Workitem) -> Workitem:
        """Record that the manager has taken the claim."""
        with self._database.writing() as session:
            row = session.get_one(WorkitemRow, workitem.id)
            row.claimed_at = datetime.now(UTC)
            _change(row, "open", None, row.status)
            append(session, Event.WORKITEM_CLAIMED, row.manager, _about(row))
            return _workitem(row)

    def ended(self, workitem: Workitem, end: StudyOutcome, status: int) -> None:
        """Record that the workitem is completed or cancelled."""
        reason = None if end.objects else " ".join(end.reasons)
        with self._database.writing() as session:
            row = session.get_one(WorkitemRow, workitem.id)
            _change(row, end.state, reason, status)
            details: dict[str, JsonValue] = {
                "state": end.state, "objects": len({one for _, one in end.objects}),
                "reason": reason,
            }  # fmt: skip
            append(session, Event.WORKITEM_ENDED, row.manager, _about(row) | details)

    def failed(
        self,
        workitem: Workitem,
        reason: str,
        status: int | None = None,
        *,
        is_trial: bool = False,
    ) -> None:
        """Record one failed attempt; the workitem stays open.

        A trial while the circuit breaker is open has no row of its own in the audit log.
        """
        with self._database.writing() as session:
            row = session.get_one(WorkitemRow, workitem.id)
            row.attempts, row.reason, row.status = row.attempts + 1, reason, status
            if not is_trial:
                append(session, Event.WORKITEM_FAILED, row.manager, _about(row, reason))

    def lost(self, workitem: Workitem, reason: str, status: int) -> None:
        """Record that the workitem is not this node's to perform any more."""
        self._end(workitem, "lost", Event.WORKITEM_LOST, reason, status)

    def refused(self, workitem: Workitem, reason: str, status: int) -> None:
        """Record that the manager refuses a request; the node tries again when it starts."""
        self._end(workitem, "refused", Event.WORKITEM_REFUSED, reason, status)

    def reopen(self, manager: str) -> None:
        """Work again on what the manager refused, for the settings may have changed."""
        query = select(WorkitemRow).where(
            WorkitemRow.manager == manager, WorkitemRow.state == "refused"
        )
        with self._database.writing() as session:
            for row in session.scalars(query):
                _change(row, "open", row.reason, row.status)

    def _end(
        self, workitem: Workitem, state: WorkitemState, event: Event, reason: str, status: int
    ) -> None:
        with self._database.writing() as session:
            row = session.get_one(WorkitemRow, workitem.id)
            _change(row, state, reason, status)
            append(session, event, row.manager, _about(row, reason))

    def _read(self, *conditions: ColumnElement[bool]) -> tuple[Workitem, ...]:
        query = select(WorkitemRow).where(*conditions).order_by(WorkitemRow.id)
        with self._database.reading() as session:
            return tuple(_workitem(row) for row in session.scalars(query))


def _accepted(session: Session, series: SeriesRow) -> list[tuple[str, AvailableObject]]:
    """Objects that destinations hold of the result of a series; none where it was recalled."""
    query = (
        select(DeliveryRow.destination, DerivedInstanceRow)
        .join(DerivedInstanceRow, DerivedInstanceRow.id == DeliveryRow.derived_instance_id)
        .join(DerivedSetRow, DerivedSetRow.id == DeliveryRow.set_id)
        .where(
            DerivedSetRow.source_series_uid == series.series_instance_uid,
            DerivedSetRow.revision == series.revision,
            DeliveryRow.state.in_(ACCEPTED_STATES),
        )
        .order_by(DerivedInstanceRow.position, DeliveryRow.destination)
    )
    found = [(destination, row) for destination, row in session.execute(query)]
    if any(issued_notes(session, set_id) for set_id in {row.set_id for _, row in found}):
        return []
    return [
        (
            destination,
            AvailableObject(
                series_instance_uid=row.series_instance_uid,
                sop_class_uid=row.sop_class_uid,
                sop_instance_uid=row.sop_instance_uid,
            ),
        )
        for destination, row in found
    ]


def _name(series: SeriesRow) -> str:
    return f"Series {series.series_instance_uid}"


def _change(row: WorkitemRow, state: WorkitemState, reason: str | None, status: int | None) -> None:
    row.state, row.reason, row.status = state, reason, status
    row.changed_at = datetime.now(UTC)


def _about(row: WorkitemRow, reason: str | None = None) -> dict[str, JsonValue]:
    about: dict[str, JsonValue] = {"workitem": row.workitem_uid, "study": row.study_instance_uid}
    return about if reason is None else about | {"reason": reason}


def _workitem(row: WorkitemRow) -> Workitem:
    return Workitem(
        id=row.id,
        manager=row.manager,
        workitem_uid=row.workitem_uid,
        study_instance_uid=row.study_instance_uid,
        transaction_uid=row.transaction_uid,
        state=cast(WorkitemState, row.state),
        claimed_at=row.claimed_at,
        status=row.status,
        attempts=row.attempts,
        reason=row.reason,
        since=row.changed_at,
    )
