"""What the processes of `serve` do for all machines: judging and delivery, as loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event as StopEvent
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rebrain_node.app.compose import State, retention_rules
from rebrain_node.app.messages import audit_message_loops, notice_loops, self_check_loop
from rebrain_node.domain.audit import Event
from rebrain_node.settings import (
    DestinationSettings,
    NotificationSettings,
    Settings,
    WebDestinationSettings,
    WorkflowManagerSettings,
)

if TYPE_CHECKING:
    from rebrain_node.ports import Destination, NotificationReceiver, WorkitemManager
    from rebrain_node.reception.inbox import InboxFolder
    from rebrain_node.steps.write.rejection import RejectionReason
    from rebrain_node.worker.checkpoints import CheckpointLoop
    from rebrain_node.worker.delivery import DeliveryLoop
    from rebrain_node.worker.notification import NotificationLoop
    from rebrain_node.worker.sources import SourceInquiry
    from rebrain_node.worker.watcher import Watcher
    from rebrain_node.worker.work import Work
    from rebrain_node.worker.workflow import Workflows
    from rebrain_node.worker.workitem import WorkitemLoop

T = TypeVar("T")
Loop = Callable[[StopEvent], None]


def start_judging(
    settings: Settings, state: State, work: Work, workflows: Workflows, stop: StopEvent
) -> Sequence[Thread]:
    """Judge studies, start their syntheses, and look after stored bytes and the audit log."""
    from rebrain_node.worker.purge import PurgeLoop

    record_mode(settings, state)
    purge = PurgeLoop(retention=state.retention, rules=retention_rules(settings))
    watcher = _watcher(settings, state, work, workflows)
    signing = _checkpoint_loop(settings, state)
    checking = self_check_loop(settings, state)
    return _threads([watcher.run, purge.run, signing.run, checking.run], stop)


def start_delivery(settings: Settings, state: State, stop: StopEvent) -> Sequence[Thread]:
    """Deliver results, and tell others what they are to be told."""
    loops: list[Loop] = [each.run for each in delivery_loops(settings, state)]
    loops += [each.run for each in notification_loops(settings, state)]
    loops += [each.run for each in workitem_loops(settings, state)]
    loops += [each.run for each in audit_message_loops(settings, state)]
    loops += [each.run for each in notice_loops(settings, state)]
    return _threads(loops, stop)


def _threads(loops: Sequence[Loop], stop: StopEvent) -> Sequence[Thread]:
    threads = [Thread(target=loop, args=(stop,), daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    return threads


def record_mode(settings: Settings, state: State) -> None:
    """Record that shadow mode began, ended or has another destination since the last start."""
    shadow = settings.shadow
    before = next(iter(state.audit.events(1, event=Event.SHADOW_CHANGED)), None)
    known = {"active": False} if before is None else dict(before.details)
    now = {"active": shadow.active, "destination": shadow.destination if shadow.active else None}
    if shadow.active != known["active"] or now["destination"] != known.get("destination"):
        state.audit.record(Event.SHADOW_CHANGED, settings.receiver.ae_title, now)


def once(make: Callable[[], T]) -> Callable[[], T]:
    """Return a function that makes something at its first call, in whichever thread."""
    lock, made = Lock(), list[T]()

    def get() -> T:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return get


@dataclass(frozen=True)
class _LateRemote:
    """A remote whose network library is loaded when something is to be sent."""

    name: str
    make: Callable[[], object]

    def __getattr__(self, word: str) -> Any:
        return getattr(self.make(), word)


def _late(name: str, make: Callable[[], T]) -> T:
    return cast("T", _LateRemote(name, once(make)))


def _checkpoint_loop(settings: Settings, state: State) -> CheckpointLoop:
    from rebrain_node.store.audit_retention import AuditRetention
    from rebrain_node.store.checkpoints import Checkpoints
    from rebrain_node.worker.checkpoints import CheckpointLoop

    return CheckpointLoop(
        checkpoints=Checkpoints(state.database, state.folder),
        rows=settings.audit.checkpoint_rows,
        minutes=settings.audit.checkpoint_minutes,
        retention=AuditRetention(state.database, state.folder),
        years=settings.audit.years,
    )


def delivery_loops(settings: Settings, state: State) -> list[DeliveryLoop]:
    """Return a loop for each destination; in shadow mode for the test destination alone."""
    from rebrain_node.worker.delivery import DeliveryLoop

    def pacs(each: DestinationSettings) -> Destination:
        from rebrain_node.network.sender import PacsDestination

        return PacsDestination(each, settings.receiver.ae_title)

    def web(each: WebDestinationSettings) -> Destination:
        from rebrain_node.network.dicomweb import WebDestination

        return WebDestination(each)

    destinations: list[tuple[Destination, DestinationSettings | WebDestinationSettings]] = [
        (_late(each.name, partial(pacs, each)), each) for each in settings.destinations
    ]
    destinations += [
        (_late(each.name, partial(web, each)), each) for each in settings.dicomweb_destinations
    ]
    earlier = None
    if settings.revisions != "keep":
        from rebrain_node.worker.revisions import RevisionRule

        reason: RejectionReason = "safety" if settings.revisions == "reject-safety" else "quality"
        earlier = RevisionRule(recall=state.recall, outbox=state.outbox, reason=reason)
    return [
        DeliveryLoop(
            outbox=state.outbox,
            deliveries=state.deliveries,
            confirmations=state.confirmations,
            destination=destination,
            deadline_h=each.deadline_h,
            confirmation=each.confirmation,
            earlier=earlier,
        )
        for destination, each in destinations
        if each.name in settings.due_names
    ]


def notification_loops(settings: Settings, state: State) -> list[NotificationLoop]:
    """Return a loop for each receiver of notifications; none in shadow mode."""
    if not settings.notifications or settings.shadow.active:
        return []
    from rebrain_node.worker.notification import NotificationLoop

    def receiver(each: NotificationSettings) -> NotificationReceiver:
        from rebrain_node.network.notification import AvailabilityReceiver

        return AvailabilityReceiver(each, settings.receiver.ae_title)

    titles = {each.name: each.ae_title for each in settings.destinations}
    return [
        NotificationLoop(
            notifications=state.notifications,
            deliveries=state.deliveries,
            receiver=_late(each.name, partial(receiver, each)),
            retrieve_ae_titles=titles,
        )
        for each in settings.notifications
    ]


def workitem_loops(settings: Settings, state: State) -> list[WorkitemLoop]:
    """Return a loop for each workflow manager; none in shadow mode."""
    if not settings.workflow_managers or settings.shadow.active:
        return []
    from rebrain_node.worker.workitem import WorkitemLoop

    def manager(each: WorkflowManagerSettings) -> WorkitemManager:
        from rebrain_node.network.workitems import WorkflowManager

        places = {one.name: one.ae_title for one in settings.destinations}
        places |= {one.name: one.url for one in settings.dicomweb_destinations}
        return WorkflowManager(each, settings.receiver.ae_title, places)

    return [
        WorkitemLoop(
            workitems=state.workitems,
            deliveries=state.deliveries,
            manager=_late(each.name, partial(manager, each)),
        )
        for each in settings.workflow_managers
    ]


def _watcher(settings: Settings, state: State, work: Work, workflows: Workflows) -> Watcher:
    from rebrain_node.reception.completeness import QuietPeriodTracker
    from rebrain_node.worker.watcher import Watcher

    def inbox() -> InboxFolder:
        from rebrain_node.reception.inbox import InboxFolder

        return InboxFolder(state.inbox, state.ledger)

    return Watcher(
        work=work,
        workflows=workflows,
        inbox=once(inbox),
        settling=QuietPeriodTracker(
            quiet_period_s=settings.completeness.quiet_period_s,
            maximum_wait_s=settings.completeness.maximum_wait_s,
            resume_wait_s=settings.completeness.resume_wait_s,
        ),
        listening=state.listening,
        folder=state.folder,
        soft_mark_bytes=settings.storage.soft_mark_bytes,
        recall=state.recall,
        sources=_source_inquiry(settings, state),
    )


def _source_inquiry(settings: Settings, state: State) -> SourceInquiry | None:
    rules = settings.completeness
    if rules.verify == "never":
        return None
    from rebrain_node.app.tasks import open_source
    from rebrain_node.reception.asking import AskingRules
    from rebrain_node.worker.sources import SourceInquiry

    queries = {p.ae_title: p.query for p in settings.receiver.peers if p.query is not None}
    return SourceInquiry(
        inquiries=state.inquiries,
        sources={name: open_source(settings, name) for name in set(queries.values())},
        source_of=queries,
        rules=AskingRules(
            required=rules.verify == "require",
            pause_s=rules.verify_pause_s,
            wait_s=rules.verify_wait_s,
        ),
        clock=lambda: state.listening.read().listened_s,
    )
