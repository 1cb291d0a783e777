"""Stops of delivery: judged from the audit log, kept in a table until a person releases them.

A stop is set in the transaction that makes it due (`judge`), so that the result that is beyond a
limit is never due at a destination before.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.stop_rules import (
    JUDGED_RULES,
    DeliveryStop,
    JudgedRule,
    ResultMeasures,
    RuleReading,
    SeriesOutcome,
    StopLimits,
    StopRule,
    read_rule,
)
from rebrain_node.errors import StateError
from rebrain_node.ports import JsonValue
from rebrain_node.store.audit import append, read_details
from rebrain_node.store.database import Database
from rebrain_node.store.tables import AuditRow, DeliveryStopRow

#: how the work on an accepted series ends; a failed delivery is another `series.failed`
_ENDS = (Event.RESULT_MEASURED, Event.GATE_REFUSED, Event.SERIES_FAILED)
_BY_WORK = '"codes":'


class Stops:
    """The stops of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def active(self) -> tuple[DeliveryStop, ...]:
        """Stops that are in force; while there is one, nothing but rejection notes is sent."""
        query = select(DeliveryStopRow).order_by(DeliveryStopRow.since)
        with self._database.reading() as session:
            return tuple(_stop(row) for row in session.scalars(query))

    def readings(self, limits: StopLimits) -> tuple[RuleReading, ...]:
        """Read where each rule stands now, also those that are not applied."""
        with self._database.reading() as session:
            return tuple(_read(session, rule, limits) for rule in JUDGED_RULES)

    def recent(self, limits: StopLimits) -> tuple[ResultMeasures, ...]:
        """Measures of the newest results since the rule `drift` was released last."""
        with self._database.reading() as session:
            outcomes = _outcomes(session, _released(session, "drift"), limits.results)
        return tuple(one.measures for one in outcomes if one.measures is not None)

    def judge(self, limits: StopLimits) -> None:
        """Stop delivery where a rule is beyond its limit; a stop in force stays as it is."""
        with self._database.writing() as session:
            judge(session, limits)

    def stop(self, reason: str, operator: str) -> None:
        """Stop delivery by hand.

        Raises
        ------
        StateError
            It is stopped by hand already.
        """
        with self._database.writing() as session:
            if session.get(DeliveryStopRow, "operator") is not None:
                raise StateError(
                    "delivery is stopped by hand already; `rebrain-node stop list` shows why"
                )
            _enter(session, "operator", reason, {"operator": operator})

    def release(self, rule: StopRule, reason: str, operator: str) -> DeliveryStop:
        """End a stop; what is kept is due again unless another stop is in force.

        Raises
        ------
        StateError
            The rule has not stopped delivery.
        """
        with self._database.writing() as session:
            row = session.get(DeliveryStopRow, rule)
            if row is None:
                raise StateError(
                    f"the rule {rule} has not stopped delivery; `rebrain-node stop list` shows "
                    "what has"
                )
            ended = _stop(row)
            session.delete(row)
            append(session, Event.DELIVERY_RELEASED, rule, {"reason": reason, "operator": operator})
        return ended


def judge(session: Session, limits: StopLimits) -> None:
    """Stop delivery, inside the caller's transaction, where a rule is beyond its limit."""
    for rule in limits.rules:
        if session.get(DeliveryStopRow, rule) is not None:
            continue
        reading = _read(session, rule, limits)
        if reading.exceeded:
            details: dict[str, JsonValue] = {
                "value": reading.value, "limit": reading.limit, "results": reading.results,
                "operator": None,
            }  # fmt: skip
            _enter(session, rule, reading.sentence, details)


def is_stopped(session: Session) -> bool:
    """Whether a stop is in force."""
    return session.scalars(select(DeliveryStopRow.rule).limit(1)).first() is not None


def _enter(session: Session, rule: StopRule, reason: str, details: Mapping[str, JsonValue]) -> None:
    session.add(DeliveryStopRow(rule=rule, reason=reason, since=datetime.now(UTC)))
    append(session, Event.DELIVERY_STOPPED, rule, {"reason": reason, **details})


def _read(session: Session, rule: JudgedRule, limits: StopLimits) -> RuleReading:
    outcomes = _outcomes(session, _released(session, rule), limits.results)
    return read_rule(rule, outcomes, limits)


def _released(session: Session, rule: StopRule) -> int:
    """Sequence of the newest release of a rule; 0 before one."""
    query = select(func.max(AuditRow.sequence)).where(
        AuditRow.event == str(Event.DELIVERY_RELEASED), AuditRow.subject == rule
    )
    return session.scalars(query).one() or 0


def _outcomes(session: Session, after: int, count: int) -> list[SeriesOutcome]:
    """Newest outcome of each of the newest series after a row of the log, oldest first."""
    rows: list[tuple[int, str, str, str]] = []
    for event in _ENDS:  # one by one: each is read by the index from its end
        query = select(AuditRow.sequence, AuditRow.event, AuditRow.subject, AuditRow.details).where(
            AuditRow.event == str(event), AuditRow.sequence > after
        )
        if event == Event.SERIES_FAILED:
            query = query.where(AuditRow.details.contains(_BY_WORK))
        newest = session.execute(query.order_by(AuditRow.sequence.desc()).limit(count))
        rows += [(sequence, name, uid, details) for sequence, name, uid, details in newest]
    by_series = {row[2]: row for row in sorted(rows)}  # a series that is retried counts once
    return [
        SeriesOutcome(
            sequence=sequence,
            measures=(
                ResultMeasures.from_json(read_details(details))
                if event == Event.RESULT_MEASURED
                else None
            ),
        )
        for sequence, event, _, details in sorted(by_series.values())[-count:]
    ]


def _stop(row: DeliveryStopRow) -> DeliveryStop:
    return DeliveryStop(rule=cast(StopRule, row.rule), reason=row.reason, since=row.since)
