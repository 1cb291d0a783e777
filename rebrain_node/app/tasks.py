"""What a command does with the parts: process a folder, send by hand, write the audit report."""

from __future__ import annotations

import getpass
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rebrain_node.app.compose import (
    configure,
    find_state,
    limit_decoding,
    open_bundle,
    open_model,
)
from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import ACCEPTED_STATES
from rebrain_node.errors import (
    AlteredBytesError,
    DeliveryError,
    SettingsError,
    StoreUnavailableError,
)
from rebrain_node.settings import (
    DestinationSettings,
    DicomRemote,
    NotificationSettings,
    Settings,
    WorkflowManagerSettings,
)

if TYPE_CHECKING:
    from rebrain_node.app.compose import State
    from rebrain_node.domain.delivery import RecalledSet
    from rebrain_node.domain.ledger import SeriesRecord
    from rebrain_node.domain.result import ResultRecord
    from rebrain_node.engine.loaded import LoadedModel
    from rebrain_node.folder import Folder, Progress, SeriesResult
    from rebrain_node.network.sender import SentFile
    from rebrain_node.ports import Source
    from rebrain_node.steps.write.rejection import RejectionReason

#: so many events stand in an audit report
NEWEST_EVENTS = 5000
#: of one kind in the report of a period
MOST_EVENTS = 1_000_000
_OF_DESTINATIONS = (
    Event.DELIVERY_TAKEN, Event.DELIVERY_FAILED, Event.DELIVERY_REFUSED, Event.DELIVERY_VERIFIED,
    Event.DESTINATION_UNREACHABLE,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FolderRun:
    """What `process` did with a folder."""

    folder: Folder
    results: tuple[SeriesResult, ...]
    outputs: tuple[Path, ...]
    seconds: float
    engine: str | None  #: None if no series got that far
    bundle_digest: str


def process_folder(settings: Settings, study: Path, out: Path, progress: Progress) -> FolderRun:
    """Judge the studies of a folder and write what is synthesised into another.

    Raises
    ------
    RebrainError
        Settings, bundle or engine are not fit, or a file would be overwritten.
    OSError
        A folder cannot be read or written.
    """
    from rebrain_node.folder import process_studies, read_folder, write_out

    start = time.monotonic()
    limit_decoding(settings)
    bundle = open_bundle(settings).bundle
    configuration = configure(settings, bundle)
    identities: list[str] = []

    @cache
    def model() -> LoadedModel:
        loaded = open_model(settings, bundle)
        identities.append(loaded.engine.identity)
        return loaded

    folder = read_folder(study, progress)
    results = tuple(process_studies(folder, configuration, model, progress))
    derived = [result.receipt.derived for result in results if result.receipt is not None]
    outputs = [path for each in derived for path in write_out(each, out)]
    return FolderRun(
        folder=folder,
        results=results,
        outputs=tuple(outputs),
        seconds=time.monotonic() - start,
        engine=identities[0] if identities else None,
        bundle_digest=bundle.digest,
    )


def find_destination(settings: Settings, name: str) -> DestinationSettings:
    """Find a destination by its name.

    Raises
    ------
    SettingsError
        There is none of that name.
    """
    for destination in settings.destinations:
        if destination.name == name:
            return destination
    names = ", ".join(each.name for each in settings.destinations) or "none"
    raise SettingsError(f"there is no destination {name!r}; the settings name {names}")


def echo(settings: Settings, name: str) -> float:
    """Send C-ECHO to a destination and return the seconds it took.

    Raises
    ------
    DeliveryError
        It does not answer.
    """
    from rebrain_node.network.sender import echo

    return echo(find_destination(settings, name), settings.receiver.ae_title)


def check_receiver(settings: Settings, each: NotificationSettings) -> None:
    """Ask whether a receiver takes notifications; nothing is sent.

    Raises
    ------
    DeliveryError
        It cannot be reached, or takes none.
    """
    from rebrain_node.network.notification import AvailabilityReceiver

    AvailabilityReceiver(each, settings.receiver.ae_title).check()


def check_manager(settings: Settings, each: WorkflowManagerSettings) -> int:
    """Search a workflow manager for scheduled workitems; nothing is claimed.

    Returns
    -------
    int
        How many there are on the first page of the answer.

    Raises
    ------
    DeliveryError
        It cannot be reached, or does not answer with workitems.
    """
    from rebrain_node.network.workitems import WorkflowManager

    return WorkflowManager(each, settings.receiver.ae_title, {}).check()


def source_names(settings: Settings) -> tuple[str, ...]:
    """Name what is configured as a source, and each destination that is asked as one."""
    named = [each.name for each in (*settings.sources, *settings.dicomweb_sources)]
    asked = [peer.query for peer in settings.receiver.peers if peer.query is not None]
    return tuple(dict.fromkeys([*named, *asked]))


def open_source(settings: Settings, name: str) -> Source:
    """Make what asks one source."""
    remote = settings.remotes[name]
    if isinstance(remote, DicomRemote):
        from rebrain_node.network.query import DicomSource

        return DicomSource(remote, settings.receiver.ae_title)
    from rebrain_node.network.dicomweb import WebSource

    return WebSource(remote)


def try_source(settings: Settings, name: str) -> str:
    """Verify the connection with a source, and ask it for a series that nobody has.

    Returns
    -------
    str
        What it answered and how long that took.

    Raises
    ------
    DeliveryError
        It does not answer, or with instances of another series.
    """
    remote, answered = settings.remotes[name], ""
    query, remedy = "QIDO-RS", "check url and token_file, and that queries are allowed there"
    if isinstance(remote, DicomRemote):
        from rebrain_node.network.sender import echo

        ae_title = settings.receiver.ae_title
        answered = f"C-ECHO in {1000 * echo(remote, ae_title):.0f} ms and "
        query, remedy = "C-FIND", f"allow queries of AE title {ae_title} there"
    study, series = (f"2.25.{uuid.uuid4().int}" for _ in range(2))
    begun = time.monotonic()
    try:
        count = open_source(settings, name).ask(study, {series: 0})[series].count
    except DeliveryError as error:
        raise DeliveryError(
            f"{error}; {remedy}: without an answer no series whose sender has query = {name!r} is "
            "verified as complete"
        ) from error
    if count:
        raise DeliveryError(
            f"source {name} answered {query} with {count} instances of a series that nobody has: "
            "it ignores Series Instance UID; name another source as query of its senders"
        )
    return f"answered {answered}{query} in {1000 * (time.monotonic() - begun):.0f} ms"


def send_files(
    settings: Settings, name: str, paths: Sequence[Path], progress: Callable[[SentFile], None]
) -> tuple[SentFile, ...]:
    """Send files to a destination by hand.

    Raises
    ------
    SettingsError
        There is no destination of that name.
    DeliveryError
        There is no association: nothing was sent.
    """
    from rebrain_node.network.sender import send_files

    return send_files(find_destination(settings, name), settings.receiver.ae_title, paths, progress)


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
        series = state.ledger.series()
        page = render(
            series=series,
            events=state.audit.events(NEWEST_EVENTS),
            verdict=state.audit.verify(),
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
                verdict=state.audit.verify(),
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

    with find_state(settings) as state:
        every = state.ledger.series()
        series = [one for one in every if begin <= one.changed_at <= end]
        facts = PeriodFacts(
            begin=begin,
            end=end,
            series=series,
            results=_results(state, series),
            waited_s=_waited_s(state, every, begin, end),
            deliveries=_delivery_events(state, begin, end),
            verdict=state.audit.verify(),
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


def _delivery_events(state: State, begin: datetime, end: datetime) -> dict[str, dict[str, int]]:
    """Count the events of each destination in the period."""
    counts: dict[str, dict[str, int]] = {}
    for event in _OF_DESTINATIONS:
        for one in state.audit.events(MOST_EVENTS, event=event, since=begin, until=end):
            by_event = counts.setdefault(one.subject, {})
            by_event[str(event)] = by_event.get(str(event), 0) + 1
    return counts


@dataclass(frozen=True, kw_only=True)
class IssuedRecall:
    """What a recall did, by set."""

    notes: dict[int, int]  #: number of destinations that get a rejection note
    cancelled: dict[int, int]  #: number of objects that no destination gets any more


def issue_recall(
    state: State, recalled: Sequence[RecalledSet], reason: RejectionReason, comment: str
) -> IssuedRecall:
    """Have a rejection note sent for each recalled set.

    What a destination has not got yet is cancelled. Rejected are the objects that a destination
    holds; a set that none holds gets no note.

    Raises
    ------
    StateError
        The bytes of a set were deleted, so that no note can be written.
    """
    from rebrain_node.steps.write.rejection import write_rejection

    issued = IssuedRecall(notes={}, cancelled={})
    operator = getpass.getuser()
    for each in recalled:
        issued.cancelled[each.set_id] = state.deliveries.cancel_recalled(
            each.set_id, f"recalled: {comment}", operator
        )
        held = [
            one
            for one in state.recall.refreshed(each).objects
            if not one.is_note and ACCEPTED_STATES & set(one.destinations.values())
        ]
        if held:
            note = write_rejection(
                held, state.outbox.kept_of(each.set_id), reason, comment, datetime.now(UTC)
            )
            issued.notes[each.set_id] = state.outbox.add_note(each.set_id, note, comment, operator)
    return issued
