"""Gathers what shadow mode has shown in a period, from the audit log of a node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rebrain_node.app.compose import find_state, stop_limits
from rebrain_node.app.reports import MOST_EVENTS
from rebrain_node.domain.acceptance import (
    AcceptanceFacts,
    AcceptanceLimits,
    ReaderVerdict,
    ShadowResult,
    shadow_times,
)
from rebrain_node.domain.audit import AuditEvent, Event
from rebrain_node.domain.stop_rules import ResultMeasures, drift_of

if TYPE_CHECKING:
    from rebrain_node.app.compose import State
    from rebrain_node.settings import Settings


def acceptance_of(settings: Settings, begin: datetime, end: datetime) -> AcceptanceFacts:
    """Gather what happened while shadow mode was active (aware, UTC, both ends included).

    Raises
    ------
    StoreUnavailableError
        The database does not answer.
    """
    with find_state(settings) as state:
        changes = [
            (one.recorded_at, bool(one.details["active"]))
            for one in state.audit.events(MOST_EVENTS, event=Event.SHADOW_CHANGED, until=end)
        ]
        active = shadow_times(changes, begin, min(end, datetime.now(UTC)))

        def during(event: Event) -> list[AuditEvent]:
            found = state.audit.events(MOST_EVENTS, event=event, since=begin, until=end)
            return [o for o in found if any(a <= o.recorded_at <= b for a, b in active)]

        measured = state.audit.events(
            MOST_EVENTS, event=Event.RESULT_MEASURED, since=begin, until=end
        )
        made = [one for one in measured if one.details["shadow"]]
        failed = [one for one in during(Event.SERIES_FAILED) if "codes" in one.details]
        gate = during(Event.GATE_REFUSED)
        return AcceptanceFacts(
            begin=begin,
            end=end,
            active=active,
            limits=AcceptanceLimits(**settings.acceptance.model_dump()),
            studies=len({one.subject for one in during(Event.STUDY_COMPLETE)}),
            results=_results(state, made, end),
            outside=len(measured) - len(made),
            refused=Counter(_refusal_codes(during(Event.SERIES_REFUSED))),
            failed=Counter(code for one in failed for code in one.details["codes"]),
            gate=Counter(code for one in gate for code in one.details["codes"]),
            failures=len({one.subject for one in (*failed, *gate)}),
            stops=[
                str(one.details["reason"])
                for one in during(Event.DELIVERY_STOPPED)
                if one.subject != "operator"
            ],
            drift=drift_of(
                [ResultMeasures.from_json(one.details) for one in made], stop_limits(settings)
            ),
        )


def write_acceptance_report(facts: AcceptanceFacts, path: Path) -> None:
    """Write one HTML page about shadow mode.

    Raises
    ------
    OSError
        The page cannot be written.
    """
    from rebrain_node.report.acceptance_page import acceptance_page

    path.write_text(acceptance_page(facts), encoding="utf-8")


def _results(state: State, made: Iterable[AuditEvent], end: datetime) -> tuple[ShadowResult, ...]:
    study_of = {o.series_instance_uid: o.study_instance_uid for o in state.ledger.series()}
    complete: dict[str, list[datetime]] = {}
    for one in state.audit.events(MOST_EVENTS, event=Event.STUDY_COMPLETE, until=end):
        complete.setdefault(one.subject, []).append(one.recorded_at)
    verdicts = _verdicts(state)
    found = []
    for one in made:
        before = [
            at for at in complete.get(study_of.get(one.subject, ""), ()) if at <= one.recorded_at
        ]
        set_id = int(one.details["set"])
        found.append(
            ShadowResult(
                series_instance_uid=one.subject,
                set_id=set_id,
                made_at=one.recorded_at,
                latency_s=(one.recorded_at - before[-1]).total_seconds() if before else None,
                measures=ResultMeasures.from_json(one.details),
                verdicts=tuple(verdicts.get(set_id, {}).values()),
            )
        )
    return tuple(found)


def _verdicts(state: State) -> Mapping[int, Mapping[str, ReaderVerdict]]:
    """Return the newest verdict of each person, by set; also those given after the period."""
    found: dict[int, dict[str, ReaderVerdict]] = {}
    for one in state.audit.events(MOST_EVENTS, event=Event.SERIES_VERDICT):
        said = one.details
        found.setdefault(int(said["set"]), {})[str(said["operator"])] = ReaderVerdict.from_json(
            said, one.recorded_at
        )
    return found


def _refusal_codes(refused: Iterable[AuditEvent]) -> Iterable[str]:
    """Yield each code with which a series was refused, once a series."""
    newest = {one.subject: one.details.get("findings", ()) for one in refused}
    for findings in newest.values():
        yield from dict.fromkeys(
            str(each["code"]) for each in findings if each.get("severity", "refuse") == "refuse"
        )
