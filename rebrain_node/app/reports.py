"""Pages of the audit log: all series, one series, a period; from the state of a node."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rebrain_node.app.compose import audit_check, find_state, stop_limits
from rebrain_node.domain.audit import Event
from rebrain_node.domain.stop_rules import drift_of
from rebrain_node.errors import AlteredBytesError, StoreUnavailableError
from rebrain_node.settings import Settings

if TYPE_CHECKING:
    from rebrain_node.app.compose import State
    from rebrain_node.domain.ledger import SeriesRecord
    from rebrain_node.domain.result import ResultRecord

#: so many events stand in an audit report
NEWEST_EVENTS = 5000
#: of one kind in the report of a period
MOST_EVENTS = 1_000_000
_OF_DESTINATIONS = (
    Event.DELIVERY_TAKEN, Event.DELIVERY_FAILED, Event.DELIVERY_REFUSED, Event.DELIVERY_VERIFIED,
    Event.DESTINATION_UNREACHABLE,
)  # fmt: skip


def write_audit_report(settings: Settings, path: Path) -> None:
    """Write one HTML page over all series, events and deliveries.

    Raises
    ------
    StoreUnavailableError
        The database does not answer.
    OSError
        The page cannot be written.
    """
    from rebrain_node.report.audit import render

    with find_state(settings) as state:
        state.audit.record(Event.AUDIT_READ, "audit report", {"operator": getpass.getuser()})
        series = state.ledger.series()
        page = render(
            series=series,
            events=state.audit.events(NEWEST_EVENTS),
            verdict=audit_check(state).verify(),
            deliveries=state.deliveries.pending(),
            results=_results(state, series),
        )
    path.write_text(page, encoding="utf-8")


def write_series_report(settings: Settings, series: str, path: Path) -> None:
    """Write one HTML page about a series, with pictures of its result.

    Raises
    ------
    StateError
        No series is named so, or several are.
    StoreUnavailableError
        The database does not answer.
    OSError
        The page cannot be written.
    """
    from rebrain_node.report.result_pictures import pictures_of
    from rebrain_node.report.series_page import SeriesFacts, series_page

    with find_state(settings) as state:
        uid = state.names.series(series)
        every = state.ledger.series()
        (record,) = (one for one in every if one.series_instance_uid == uid)
        result = state.results.of_series(uid)
        number = None if result is None else result.set_id
        state.audit.record(Event.REPORT_MADE, uid, {"operator": getpass.getuser(), "set": number})
        pictures = None
        if result is not None:
            # retention may have deleted the bytes; the page says so
            with suppress(AlteredBytesError, StoreUnavailableError):
                pictures = pictures_of(state.outbox.instances_of(result.set_id))
        page = series_page(
            SeriesFacts(
                record=record,
                study=[o for o in every if o.study_instance_uid == record.study_instance_uid],
                result=result,
                pictures=pictures,
                events=state.audit.about_series(uid),
                verdict=audit_check(state).verify(),
            )
        )
    path.write_text(page, encoding="utf-8")


def write_site_report(settings: Settings, begin: datetime, end: datetime, path: Path) -> None:
    """Write one HTML page about a period (aware, UTC, both ends included).

    Raises
    ------
    StoreUnavailableError
        The database does not answer.
    OSError
        The page cannot be written.
    """
    from rebrain_node.report.site_page import PeriodFacts, site_page

    limits = stop_limits(settings)
    with find_state(settings) as state:
        state.audit.record(
            Event.AUDIT_READ, "audit report --period", {"operator": getpass.getuser()}
        )
        every = state.ledger.series()
        series = [one for one in every if begin <= one.changed_at <= end]
        facts = PeriodFacts(
            begin=begin,
            end=end,
            series=series,
            results=_results(state, series),
            waited_s=_waited_s(state, every, begin, end),
            deliveries=_delivery_events(state, begin, end),
            verdict=audit_check(state).verify(),
            shadow=settings.shadow.active,
            stops=state.stops.active(),
            readings=state.stops.readings(limits),
            drift=drift_of(state.stops.recent(limits), limits),
            stop_events=_stop_events(state, begin, end),
        )
    path.write_text(site_page(facts), encoding="utf-8")


def _results(state: State, series: Sequence[SeriesRecord]) -> dict[str, ResultRecord]:
    """Gather the result of each series of which one was made."""
    uids = [o.series_instance_uid for o in series if o.state in ("synthesised", "published")]
    found = {uid: state.results.of_series(uid) for uid in uids}
    return {uid: result for uid, result in found.items() if result is not None}


def _waited_s(
    state: State, series: Sequence[SeriesRecord], begin: datetime, end: datetime
) -> dict[str, float]:
    """Return the seconds from complete to published of what was published in the period."""
    study_of = {one.series_instance_uid: one.study_instance_uid for one in series}
    complete = {
        one.subject: one.recorded_at
        for one in state.audit.events(MOST_EVENTS, event=Event.STUDY_COMPLETE, until=end)
    }
    published = state.audit.events(
        MOST_EVENTS, event=Event.SERIES_PUBLISHED, since=begin, until=end
    )
    return {
        one.subject: (one.recorded_at - complete[study]).total_seconds()
        for one in published
        if (study := study_of.get(one.subject)) in complete
    }


def _stop_events(
    state: State, begin: datetime, end: datetime
) -> list[tuple[datetime, str, str, str]]:
    """List what stopped delivery in the period, and who released it; oldest first."""
    words = {Event.DELIVERY_STOPPED: "stopped", Event.DELIVERY_RELEASED: "released"}
    found = [
        (one.recorded_at, one.subject, what, str(one.details["reason"]))
        for event, what in words.items()
        for one in state.audit.events(MOST_EVENTS, event=event, since=begin, until=end)
    ]
    return sorted(found)


def _delivery_events(state: State, begin: datetime, end: datetime) -> dict[str, dict[str, int]]:
    """Count the events of each destination in the period."""
    counts: dict[str, dict[str, int]] = {}
    for event in _OF_DESTINATIONS:
        for one in state.audit.events(MOST_EVENTS, event=event, since=begin, until=end):
            by_event = counts.setdefault(one.subject, {})
            by_event[str(event)] = by_event.get(str(event), 0) + 1
    return counts
