"""Whether the node runs and what needs attention: one report for `status`, probes and metrics.

Sentences name counts, never a patient or a UID, because probes and metrics show them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from rebrain_node.app.certificates import known_ends
from rebrain_node.app.compose import retention_rules
from rebrain_node.app.presence import SUPERVISOR_SILENT_S, node_processes
from rebrain_node.domain.audit import AuditEvent, Event
from rebrain_node.domain.backlog import BacklogCounts, OverdueItem, late
from rebrain_node.domain.executor import SILENT_S
from rebrain_node.domain.ledger import PENDING
from rebrain_node.domain.text import utc
from rebrain_node.errors import StoreUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from rebrain_node.app.compose import State
    from rebrain_node.domain.delivery import Delivery
    from rebrain_node.domain.executor import ExecutorRecord
    from rebrain_node.domain.ledger import LedgerCounts
    from rebrain_node.domain.stop_rules import DeliveryStop
    from rebrain_node.settings import Settings
    from rebrain_node.store.audit_queue import QueueState

#: a failed series is a reason for exit code 1 so long
RECENT: Final = timedelta(hours=24)
LATE_AFTER_MINUTES: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """One thing that was looked at.

    Attributes
    ----------
    needed_for : {'life', 'readiness', 'results'}
        Without it the node does not live, takes or judges nothing, or results need a hand.
    sentence : str
        Empty where it is fit; else what is wrong, the limit, and what helps.
    """

    name: str
    needed_for: Literal["life", "readiness", "results"]
    sentence: str = ""

    @property
    def fit(self) -> bool:
        """Whether nothing is wrong."""
        return not self.sentence


@dataclass(frozen=True, kw_only=True)
class HealthReport:
    """What is known of the node now."""

    node: Mapping[str, Any]  #: `node_processes`
    checks: tuple[HealthCheck, ...]
    counts: LedgerCounts
    backlog: BacklogCounts
    waiting: tuple[Delivery, ...]  #: empty unless they are listed
    refused: tuple[Delivery, ...]  #: that need the operator; empty unless they are listed
    overdue: tuple[OverdueItem, ...]  #: empty unless they are listed
    paused: tuple[str, ...]  #: destinations
    storage: Mapping[str, Any]  #: `storage_use`
    bundle: (
        Mapping[str, Any] | None
    )  #: name, version, digest, signed_by, engine, fallback; None before one
    last_result: datetime | None  #: when a series was last published
    stops: tuple[DeliveryStop, ...]  #: of delivery, in force
    certificates: Mapping[str, datetime]  #: when those of the settings end, by setting
    shadow: Mapping[str, Any]  #: whether shadow mode is active, and the destination then
    audit_queue: tuple[QueueState, ...] = ()  #: receivers of audit messages and notices
    executors: tuple[ExecutorRecord, ...] = ()  #: of all machines; empty with SQLite

    @property
    def failed_lately(self) -> int:
        """Number of series that failed within `RECENT`."""
        return self.backlog.failed

    @property
    def why(self) -> str | None:
        """The first thing that is wrong, in one line; None where all is well."""
        return next((each.sentence for each in self.checks if not each.fit), None)


def processes_check(node: Mapping[str, Any]) -> HealthCheck:
    """Judge what `node_processes` gives."""
    silent_s = node.get("supervisor_silent_s")
    bad = [f"{p['role']}: {p['state']}" for p in node["processes"] if _is_bad(p)]
    sentence = ""
    if not node["running"]:
        sentence = "the node does not run; start it with `rebrain-node serve`"
    elif silent_s is not None and silent_s > SUPERVISOR_SILENT_S:
        sentence = (
            f"the supervisor (process {node['pid']}) has not reported for {silent_s:.0f} s, more "
            f"than {SUPERVISOR_SILENT_S:.0f} s; see the node's log, and start the node again"
        )
    elif bad:
        sentence = f"a process is not well ({', '.join(bad)}); see the node's log"
    return HealthCheck(name="processes", needed_for="life", sentence=sentence)


def machines_check(executors: Sequence[ExecutorRecord]) -> HealthCheck:
    """Say which processes of all machines have given no sign of life for too long."""
    silent = [f"{each.name} ({each.state})" for each in executors if each.state != "runs"]
    sentence = ""
    if silent:
        sentence = (
            f"of all machines {len(silent)} processes do not answer: {', '.join(silent)}; others "
            f"do their work after {SILENT_S:.0f} s; start the machine again, or end it in order"
        )
    return HealthCheck(name="machines", needed_for="results", sentence=sentence)


def starting_check(node: Mapping[str, Any]) -> HealthCheck:
    """Say whether every process has said that it is ready."""
    starting = [p["role"] for p in node["processes"] if p["state"] == "starting"]
    if node["running"] and not node["processes"]:
        starting = ["all processes: the supervisor has reported none"]
    sentence = f"still starting: {', '.join(starting)}; wait, or see the log" if starting else ""
    return HealthCheck(name="started", needed_for="readiness", sentence=sentence)


def disk_check(settings: Settings, folder: Path) -> HealthCheck:
    """Hold the free bytes of the disk against the soft mark."""
    free, mark = shutil.disk_usage(folder).free, settings.storage.soft_mark_bytes
    sentence = (
        f"{free / 1e9:.1f} GB free, below storage.soft_mark_bytes, {mark / 1e9:.1f} GB: no new "
        "study is judged; make room, or let `rebrain-node storage purge` delete what may be"
        if free < mark
        else ""
    )
    return HealthCheck(name="disk", needed_for="readiness", sentence=sentence)


def database_check(state: State) -> HealthCheck:
    """Write one row of the database as it is, and see whether that becomes durable."""
    try:
        state.listening.rewrite()
    except StoreUnavailableError as error:
        return HealthCheck(name="database", needed_for="readiness", sentence=str(error))
    return HealthCheck(name="database", needed_for="readiness")


def health_of(
    settings: Settings,
    state: State,
    late_after_minutes: float = LATE_AFTER_MINUTES,
    *,
    listed: bool = False,
    storage: Mapping[str, Any] | None = None,
) -> HealthReport:
    """Look at everything.

    Parameters
    ----------
    listed : bool
        Whether deliveries and what is late are listed too, beside their counts.
    storage : mapping, optional
        What `storage_use` gave lately; without it storage is measured, which reads every row.

    Raises
    ------
    StoreUnavailableError
        The database cannot be read now.
    """
    now = datetime.now(UTC)
    node = node_processes(settings.storage.own_folder)
    counts = state.ledger.counts()
    backlog = state.backlog.counts(now - timedelta(minutes=late_after_minutes), now - RECENT)
    waiting = state.deliveries.pending() if listed else ()
    refused = state.deliveries.needing_operator() if listed else ()
    due = {one.source_series_uid for one in waiting}
    unfinished = [
        one
        for name in PENDING
        for one in (state.ledger.series(name) if listed else ())
        if name != "synthesised" or one.series_instance_uid in due
    ]
    stops = state.stops.active()
    published = _newest(state, Event.SERIES_PUBLISHED)
    receivers = state.audit_queue.states()
    certificates = known_ends(settings)
    executors = state.executors.all() if state.database.is_shared else ()
    return HealthReport(
        node=node,
        checks=(
            processes_check(node),
            starting_check(node),
            machines_check(executors),
            disk_check(settings, state.folder),
            database_check(state),
            *_bundle_checks(state),
            _stop_check(stops, backlog),
            *_result_checks(counts, backlog, late_after_minutes),
            queue_check(receivers, now, late_after_minutes),
            _certificate_check(settings, state, certificates, now),
        ),
        certificates=certificates,
        audit_queue=receivers,
        executors=executors,
        counts=counts,
        backlog=backlog,
        waiting=waiting,
        refused=refused,
        overdue=late(unfinished, waiting, now, late_after_minutes),
        paused=tuple(one.destination for one in state.deliveries.paused()),
        storage=storage_use(settings, state) if storage is None else storage,
        bundle=_bundle(state),
        last_result=None if published is None else published.recorded_at,
        stops=stops,
        shadow=settings.shadow.model_dump(),
    )


def storage_use(settings: Settings, state: State) -> dict[str, object]:
    """Measure storage: bytes, growth, and the days until no new study is judged."""
    use = state.retention.use()
    free = shutil.disk_usage(state.folder).free
    purgeable = state.retention.purgeable(retention_rules(settings), datetime.now(UTC))
    left = free - settings.storage.soft_mark_bytes
    return asdict(use) | {
        "daily_bytes": round(use.daily_bytes),
        "purgeable_bytes": sum(one.received_bytes + one.derived_bytes for one in purgeable),
        "free_bytes": free,
        "days_left": round(max(0, left) / use.daily_bytes, 1) if use.daily_bytes else None,
    }


def queue_check(
    receivers: Sequence[QueueState], now: datetime, late_after_minutes: float
) -> HealthCheck:
    """Say which receivers of audit messages or notices have not been told for too long."""
    border = now - timedelta(minutes=late_after_minutes)
    late_ones = [r for r in receivers if r.failures and r.since is not None and r.since < border]
    sentence = ""
    if late_ones:
        names = ", ".join(each.reader for each in late_ones)
        sentence = (
            f"{names} could not be told of the audit log for more than {late_after_minutes:g} "
            "minutes; nothing is lost, the node goes on trying; see `rebrain-node status`"
        )
    return HealthCheck(name="audit-queue", needed_for="results", sentence=sentence)


def _certificate_check(
    settings: Settings, state: State, ends: Mapping[str, datetime], now: datetime
) -> HealthCheck:
    """Say whether the receiver could read its certificates, and which have ended."""
    sentence = ""
    refused = _newest(state, Event.CERTIFICATE_NOT_READ)
    read = _newest(state, Event.CERTIFICATE_READ)
    failed = refused is not None and (read is None or refused.sequence > read.sequence)
    ended = [name for name, end in ends.items() if end < now]
    if ended:
        sentence = f"{ended[0]} ended at {utc(ends[ended[0]])}; renew it (docs/how-to/tls.md)"
    elif settings.receiver.tls is not None and refused is not None and failed:
        sentence = f"changed certificate files were not taken: {refused.details['reason']}"
    return HealthCheck(name="certificates", needed_for="results", sentence=sentence)


def _is_bad(process: Mapping[str, Any]) -> bool:
    return process["state"] in {"no answer", "ended"}


def _newest(state: State, event: Event) -> AuditEvent | None:
    return next(iter(state.audit.events(1, event=event)), None)


def _bundle(state: State) -> dict[str, Any] | None:
    verified = _newest(state, Event.BUNDLE_VERIFIED)
    if verified is None:
        return None
    started = _newest(state, Event.WORKER_STARTED)
    fallback = _newest(state, Event.ENGINE_FALLBACK)
    if fallback is not None and fallback.sequence < verified.sequence:
        fallback = None
    signer = verified.details.get("signed_by")
    return {
        "name": verified.details.get("name"),
        "version": verified.details.get("version"),
        "digest": verified.subject,
        "signed_by": signer and signer["name"],
        "engine": started and started.details.get("engine"),
        "fallback": fallback and {"set": fallback.subject, "reason": fallback.details["reason"]},
    }


def _bundle_checks(state: State) -> Iterator[HealthCheck]:
    """Say whether the last verification of the bundle, and of the engine, went well."""
    verified = _newest(state, Event.BUNDLE_VERIFIED)
    last = 0 if verified is None else verified.sequence
    for name, event in (
        ("bundle", Event.BUNDLE_REFUSED),
        ("engine", Event.SELF_TEST_FAILED),
    ):
        refused, sentence = _newest(state, event), ""
        if refused is not None and refused.sequence > last:
            sentence = f"the {name} failed its last check: {refused.details['reason']}"
        yield HealthCheck(name=name, needed_for="readiness", sentence=sentence)


def _stop_check(stops: Sequence[DeliveryStop], backlog: BacklogCounts) -> HealthCheck:
    waiting = max((each.waiting for each in backlog.destinations.values()), default=0)
    sentence = stops[0].sentence(waiting) if stops else ""
    return HealthCheck(name="stops", needed_for="results", sentence=sentence)


def _result_checks(
    counts: LedgerCounts, backlog: BacklogCounts, late_after_minutes: float
) -> Iterator[HealthCheck]:
    sentences = {
        "conservation": "" if counts.conserved else "series do not add up; report this defect",
        "deliveries": backlog.refused
        and f"{backlog.refused} deliveries need you: refused, held back or altered; see "
        "`rebrain-node outbox list`",
        "notifications": backlog.notifications_refused
        and f"{backlog.notifications_refused} notifications were refused; see "
        "`rebrain-node outbox list`",
        "workitems": backlog.workitems_refused
        and f"{backlog.workitems_refused} workitems were refused; see "
        "`rebrain-node audit list --event workitem.refused`",
        "failures": backlog.failed
        and f"{backlog.failed} series failed in the last {RECENT.total_seconds() / 3600:.0f} "
        "hours; see `rebrain-node queue list --state failed`",
        "late": backlog.late
        and f"{backlog.late} series or deliveries wait longer than {late_after_minutes:g} minutes; "
        "see `rebrain-node status`",
    }
    for name, sentence in sentences.items():
        yield HealthCheck(name=name, needed_for="results", sentence=str(sentence or ""))
