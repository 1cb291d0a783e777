"""The processes of `serve`: the supervisor, the receiver and the workers."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import structlog

from rebrain_node import __version__
from rebrain_node.app.compose import (
    State,
    limit_decoding,
    make_audit_key,
    make_state_folder,
    open_model,
    open_state,
    read_limits,
    require_database,
    retention_rules,
    stop_limits,
)
from rebrain_node.app.messages import (
    audit_message_loops,
    begin_queue,
    notice_loops,
    self_check_loop,
)
from rebrain_node.app.model_check import ModelCheck, activate_bundle, record_fallback
from rebrain_node.app.presence import one_node, write_processes
from rebrain_node.app.reloading import CurrentConfiguration, Reload
from rebrain_node.app.service_manager import ServiceManager
from rebrain_node.domain.audit import Event
from rebrain_node.errors import SettingsError
from rebrain_node.logs import log_as_json
from rebrain_node.settings import (
    DestinationSettings,
    NotificationSettings,
    Settings,
    WebDestinationSettings,
    WorkflowManagerSettings,
)
from rebrain_node.settings import Receiver as ReceiverSettings
from rebrain_node.supervisor import ParentPipe, ProcessState, Role, supervise

if TYPE_CHECKING:
    from rebrain_node.network.receiver import Receiver
    from rebrain_node.pipeline import Ports
    from rebrain_node.ports import Destination, JsonValue, NotificationReceiver, WorkitemManager
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


def serve(settings: Settings, config: Path | None) -> int:
    """Run the node until it is stopped; the exit code.

    Raises
    ------
    SettingsError
        The limits or the folder of the node's state are not fit to run, another node has the
        folder, or its database has vanished.
    """
    log_as_json("supervisor")
    structlog.get_logger("supervisor").info("listens", ports=settings.receiver.listening_words)
    read_limits(settings)
    folder = make_state_folder(settings)
    program = (sys.executable, "-P", "-m", "rebrain_node.cli")
    options = () if config is None else ("--config", str(config))
    workers = [
        Role(name=f"worker-{slot}", command=(*program, "worker", "--slot", str(slot), *options))
        for slot in range(1, settings.workers + 1)
    ]
    receiver = Role(name="receiver", command=(*program, "receiver", *options))
    with one_node(folder) as lock:
        return supervise(
            [receiver, *workers],
            check=require_database(settings),
            report=partial(_report, folder, ServiceManager()),
            keep_open=(lock,),
        )


def _report(folder: Path, manager: ServiceManager, states: Sequence[ProcessState]) -> None:
    write_processes(folder, states)
    manager.report(states)


def run_receiver(settings: Settings, config: Path | None, silent_s: float | None = None) -> None:
    """Be the receiver process until the supervisor ends it.

    Parameters
    ----------
    config
        The file that the settings came from.
    silent_s
        Silence after which the process that this one replaces was killed, s.

    Raises
    ------
    SettingsError
        It cannot listen on the port and address of the settings.
    """
    parent = _start("receiver")
    from rebrain_node.network.receiver import Receiver
    from rebrain_node.reception.inbox import Spool
    from rebrain_node.reception.listening import count_listening

    limit_decoding(settings)
    with open_state(settings) as state:
        begin_queue(settings, state)
        _record_restart(state, "receiver", silent_s)
        spool = Spool(state.inbox, state.ledger, hard_mark_bytes=settings.storage.hard_mark_bytes)
        state.listening.begin()
        receiver = Receiver(
            settings.receiver,
            spool,
            state.audit,
            state.confirmations.commit,
            certificate_days=settings.notices.certificate_days,
        )
        with listening(receiver, settings.receiver), _health(settings, state):
            parent.works = lambda: parent.stop.is_set() or receiver.is_listening
            take = partial(_reload, receiver)
            parent.at_reload(Reload("receiver", (config, settings), state.audit, take))
            state.audit.record(
                Event.NODE_STARTED,
                settings.receiver.ae_title,
                {"version": __version__, **_ports(settings.receiver)},
            )
            parent.report_ready()
            count_listening(state.listening, state.ledger.has_reception, parent.stop)
        state.audit.record(Event.NODE_STOPPED, settings.receiver.ae_title, {})


def _ports(receiver: ReceiverSettings) -> dict[str, JsonValue]:
    return {"port": receiver.port, "tls_port": None if receiver.tls is None else receiver.tls.port}


def _reload(receiver: Receiver, settings: Settings) -> list[str]:
    """Let the receiver take over what it can while it listens; name what changed."""
    receiver.reload_certificates()
    return ["receiver.peers"] if receiver.take_peers(settings.receiver.peers) else []


def _health(settings: Settings, state: State) -> AbstractContextManager[None]:
    if settings.health.port is None:
        return nullcontext()
    from rebrain_node.app.health_server import health_server

    return health_server(settings, state)


@contextmanager
def listening(
    receiver: AbstractContextManager[object], settings: ReceiverSettings
) -> Iterator[None]:
    """Let the receiver listen; an error of the address or port names setting and remedy.

    Raises
    ------
    SettingsError
        The port is taken, or the address is not of this machine.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(receiver)
        except OSError as error:
            raise SettingsError(_cannot_listen(error, settings)) from error
        yield


def _cannot_listen(error: OSError, settings: ReceiverSettings) -> str:
    encrypted = settings.tls is not None and error.filename == str(settings.tls.port)
    setting = "receiver.tls.port" if encrypted else "receiver.port"
    where = f"the receiver cannot listen on {settings.address}, port {error.filename}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{where}: another program has the port; stop it, or set another {setting}"
        case errno.EACCES:
            return f"{where}: the account may not; set a {setting} of 1024 or above"
        case _:
            return f"{where}: {error.strerror or error}; correct receiver.address"


def run_worker(
    settings: Settings, slot: int, config: Path | None, silent_s: float | None = None
) -> NoReturn:
    """Be worker ``slot`` until the supervisor ends it.

    On shutdown the series being processed is abandoned; its workflow is queued again.

    Parameters
    ----------
    slot
        Number of the worker, from 1.
    config
        The file that the settings came from.
    silent_s
        Silence after which the process that this one replaces was killed, s.

    Raises
    ------
    BundleError
        The bundle is not what was released, is older than the last active one, or deviates on
        this machine.
    EngineError
        The engine cannot start.
    """
    parent = _start(f"worker-{slot}")
    check = ModelCheck.begin(settings)
    from rebrain_node.worker.purge import PurgeLoop
    from rebrain_node.worker.workflow import launch, progress_url

    with open_state(settings) as state:
        _record_restart(state, f"worker-{slot}", silent_s)
        make_audit_key(state)
        work, configuration = _work(settings, state, slot, check)
        name = f"worker-{slot}"
        parent.at_reload(Reload(name, (config, settings), state.audit, configuration.take_limits))
        url = progress_url(state.folder, settings.storage.database_url)
        workflows = launch(work, url, slot, settings.workers)
        if slot == 1:
            record_mode(settings, state)
            watcher = _watcher(settings, state, work, workflows)
            purge = PurgeLoop(retention=state.retention, rules=retention_rules(settings))
            signing = _checkpoint_loop(settings, state)
            loops = [watcher.run, purge.run, signing.run]
            loops += [each.run for each in delivery_loops(settings, state)]
            loops += [each.run for each in notification_loops(settings, state)]
            loops += [each.run for each in workitem_loops(settings, state)]
            loops += [each.run for each in audit_message_loops(settings, state)]
            loops += [each.run for each in notice_loops(settings, state)]
            loops.append(self_check_loop(settings, state).run)
            threads = [Thread(target=loop, args=(parent.stop,), daemon=True) for loop in loops]
            for thread in threads:
                thread.start()
            parent.works = lambda: parent.stop.is_set() or all(t.is_alive() for t in threads)
        parent.report_ready()
        parent.stop.wait()
        workflows.close()
    os._exit(0)  # the thread of the abandoned series would hold up a normal end


def _start(process: str) -> ParentPipe:
    """Start a child process of the node: private files, JSON logs, the pipe to the supervisor."""
    os.umask(0o077)
    log_as_json(process)
    return ParentPipe.watch()


def _record_restart(state: State, process: str, silent_s: float | None) -> None:
    if silent_s is not None:
        state.audit.record(Event.PROCESS_RESTARTED, process, {"silent_s": silent_s})


def record_mode(settings: Settings, state: State) -> None:
    """Record that shadow mode began, ended or has another destination since the last start."""
    shadow = settings.shadow
    before = next(iter(state.audit.events(1, event=Event.SHADOW_CHANGED)), None)
    known = {"active": False} if before is None else dict(before.details)
    now = {"active": shadow.active, "destination": shadow.destination if shadow.active else None}
    if shadow.active != known["active"] or now["destination"] != known.get("destination"):
        state.audit.record(Event.SHADOW_CHANGED, settings.receiver.ae_title, now)


def _work(
    settings: Settings, state: State, slot: int, check: ModelCheck
) -> tuple[Work, CurrentConfiguration]:
    from rebrain_node.store.outbox import ResultOptions
    from rebrain_node.worker.work import Work

    verdict = activate_bundle(settings, state, check)
    details = {"engine": verdict.engine, "bundle": verdict.release.digest}
    state.audit.record(Event.WORKER_STARTED, f"worker-{slot}", details)

    configuration = CurrentConfiguration(settings, verdict.release.digest)

    def ports() -> Ports:
        from rebrain_node.model.keys import node_key
        from rebrain_node.pipeline import Ports
        from rebrain_node.reception.inbox import InboxFolder
        from rebrain_node.steps.sign import NodeSigner

        limit_decoding(settings)
        model = open_model(settings, configuration().bundle, settings.workers)
        if model.fallback is not None and verdict.fallback is None:  # the GPU has gone since
            record_fallback(settings, state, model.engine.identity, model.fallback)
        inbox = InboxFolder(state.inbox, state.ledger)
        signer = NodeSigner(ae_title=settings.receiver.ae_title, key=node_key(state.folder))
        return Ports(inbox=inbox, audit=state.audit, model=model, signer=signer)

    return Work(
        ledger=state.ledger,
        outbox=state.outbox,
        ports=_once(ports),
        configuration=configuration,
        destinations=settings.due_names,
        notified=settings.notified,
        options=ResultOptions(
            kept=settings.kept_names, shadow=settings.shadow.active, limits=stop_limits(settings)
        ),
        stops=state.stops,
    ), configuration


def _once(make: Callable[[], T]) -> Callable[[], T]:
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
    return cast("T", _LateRemote(name, _once(make)))


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
        inbox=_once(inbox),
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
