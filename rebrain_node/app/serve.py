"""The processes of `serve`: the supervisor, the receiver, the workers and the delivery."""

from __future__ import annotations

import errno
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event as StopEvent
from threading import Thread
from typing import TYPE_CHECKING, Final, Literal, NoReturn, get_args

import structlog

from rebrain_node import __version__
from rebrain_node.app.compose import (
    State,
    limit_decoding,
    lock_folders,
    make_audit_key,
    make_machine_folder,
    make_state_folder,
    open_model,
    open_state,
    read_limits,
    require_database,
    require_sqlite,
    stop_limits,
)
from rebrain_node.app.loops import once, start_delivery, start_judging
from rebrain_node.app.messages import begin_queue
from rebrain_node.app.model_check import ModelCheck, activate_bundle, record_fallback
from rebrain_node.app.presence import one_node, write_processes
from rebrain_node.app.reloading import CurrentConfiguration, Reload
from rebrain_node.app.service_manager import ServiceManager
from rebrain_node.domain.audit import Event
from rebrain_node.errors import SettingsError
from rebrain_node.logs import log_as_json
from rebrain_node.settings import Receiver as ReceiverSettings
from rebrain_node.settings import Settings
from rebrain_node.supervisor import ParentPipe, ProcessState, Role, supervise

if TYPE_CHECKING:
    from rebrain_node.network.receiver import Receiver
    from rebrain_node.pipeline import Ports
    from rebrain_node.ports import JsonValue
    from rebrain_node.worker.work import Work

#: what one machine does; ``all`` is the whole node
MachineRole = Literal["all", "receiver", "worker", "delivery"]
ROLES: Final[tuple[MachineRole, ...]] = get_args(MachineRole)
_RECEIVES: Final = ("all", "receiver")
_WORKS: Final = ("all", "worker")


@dataclass(frozen=True, kw_only=True)
class ChildOptions:
    """What the supervisor tells a process that it starts.

    Attributes
    ----------
    config
        The file that the settings came from.
    silent_s
        Silence after which the process that this one replaces was killed, s.
    run
        Drawn by the supervisor at its start.
    """

    config: Path | None
    silent_s: float | None = None
    run: str = field(default_factory=lambda: uuid.uuid4().hex)


def serve(settings: Settings, config: Path | None, role: MachineRole = "all") -> int:
    """Run the node, or the part of it that is this machine's, until it is stopped; the exit code.

    Raises
    ------
    SettingsError
        The limits or a folder of the node are not fit to run, another node has the folder, its
        database has vanished, or a part of a node is to run on SQLite.
    """
    log_as_json("supervisor")
    if role in _RECEIVES:
        structlog.get_logger("supervisor").info("listens", ports=settings.receiver.listening_words)
    read_limits(settings)
    require_sqlite(settings)
    make_state_folder(settings)
    folder = make_machine_folder(settings)
    with ExitStack() as stack:
        locks = [stack.enter_context(one_node(each)) for each in lock_folders(settings)]
        return supervise(
            _processes(settings, config, role),
            check=require_database(settings),
            report=partial(_report, folder, ServiceManager()),
            keep_open=locks,
        )


def _processes(settings: Settings, config: Path | None, role: MachineRole) -> list[Role]:
    """Return the processes of a machine.

    Raises
    ------
    SettingsError
        It is a part of a node, and the database is SQLite.
    """
    if role != "all" and not settings.storage.has_server:
        raise SettingsError(
            f"serve --role {role} is a part of a node on several machines, and SQLite is for one: "
            "set storage.database_url to a PostgreSQL database that all of them share, or leave "
            "--role out"
        )
    program = (sys.executable, "-P", "-m", "rebrain_node.cli")
    options: tuple[str, ...] = ("--run", uuid.uuid4().hex)
    if config is not None:
        options = (*options, "--config", str(config))
    roles = []
    if role in _RECEIVES:
        roles.append(Role(name="receiver", command=(*program, "receiver", *options)))
    if role in _WORKS:
        for slot in range(1, settings.workers + 1):
            command = (*program, "worker", "--slot", str(slot), *options)
            delivers = ("--delivers",) if role == "all" and slot == 1 else ()
            roles.append(Role(name=f"worker-{slot}", command=(*command, *delivers)))
    if role == "delivery":
        roles.append(Role(name="delivery", command=(*program, "delivery", *options)))
    return roles


def _report(folder: Path, manager: ServiceManager, states: Sequence[ProcessState]) -> None:
    write_processes(folder, states)
    manager.report(states)


def run_receiver(settings: Settings, options: ChildOptions) -> None:
    """Be the receiver process until the supervisor ends it.

    Raises
    ------
    SettingsError
        It cannot listen on the port and address of the settings, or another machine has the name
        of this one.
    """
    parent = _start("receiver")
    from rebrain_node.app.membership import DutyLoop, joined
    from rebrain_node.network.receiver import Receiver
    from rebrain_node.reception.inbox import Spool

    limit_decoding(settings)
    with (
        open_state(settings) as state,
        joined(settings, state, "receiver", options.run, parent.stop) as member,
    ):
        begin_queue(settings, state)
        _record_restart(state, "receiver", options.silent_s)
        spool = Spool(state.inbox, state.ledger, hard_mark_bytes=settings.storage.hard_mark_bytes)
        counting = DutyLoop("listening", member, partial(_count_listening, state))
        counting.start(parent.stop)
        receiver = Receiver(
            settings.receiver,
            spool,
            state.audit,
            state.confirmations.commit,
            certificate_days=settings.notices.certificate_days,
        )
        with listening(receiver, settings.receiver), _health(settings, state):
            parent.works = lambda: (
                parent.stop.is_set() or (receiver.is_listening and counting.works)
            )
            take = partial(_reload, receiver)
            parent.at_reload(Reload("receiver", (options.config, settings), state.audit, take))
            state.audit.record(
                Event.NODE_STARTED,
                settings.receiver.ae_title,
                {"version": __version__, **_ports(settings.receiver)},
            )
            parent.report_ready()
            parent.stop.wait()
        state.audit.record(Event.NODE_STOPPED, settings.receiver.ae_title, {})


def _count_listening(state: State, stop: StopEvent) -> Sequence[Thread]:
    """Count how long the node listens: one receiver does, however many there are."""
    from rebrain_node.reception.listening import count_listening

    state.listening.begin()
    arguments = (state.listening, state.ledger.has_reception, stop)
    thread = Thread(target=count_listening, args=arguments, daemon=True)
    thread.start()
    return [thread]


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


def run_worker(settings: Settings, slot: int, options: ChildOptions, *, delivers: bool) -> NoReturn:
    """Be worker ``slot`` until the supervisor ends it.

    On shutdown the series being processed is abandoned; its workflow is queued again.

    Parameters
    ----------
    slot
        Number of the worker, from 1. Slot 1 judges studies, unless another machine does.
    delivers
        Whether it delivers too, unless another machine does.

    Raises
    ------
    BundleError
        The bundle is not what was released, is older than the last active one, or deviates on
        this machine.
    EngineError
        The engine cannot start.
    SettingsError
        Another machine has the name of this one.
    """
    name = f"worker-{slot}"
    parent = _start(name)
    check = ModelCheck.begin(settings)
    from rebrain_node.app.membership import DutyLoop, joined
    from rebrain_node.worker.workflow import launch, progress_url

    with (
        open_state(settings) as state,
        joined(settings, state, name, options.run, parent.stop) as member,
    ):
        _record_restart(state, name, options.silent_s)
        make_audit_key(state)
        work, configuration = _work(settings, state, name, check)
        parent.at_reload(
            Reload(name, (options.config, settings), state.audit, configuration.take_limits)
        )
        url = progress_url(state.folder, settings.storage.database_url)
        workflows = launch(work, url, member.executor_id)
        workflows.take_over(member.living)
        if state.database.is_shared:
            arguments = (member.living, parent.stop)
            Thread(target=workflows.keep_taking_over, args=arguments, daemon=True).start()
        duties = []
        if slot == 1:
            judging = partial(start_judging, settings, state, work, workflows)
            duties.append(DutyLoop("judging", member, judging))
        if delivers:
            duties.append(DutyLoop("delivery", member, partial(start_delivery, settings, state)))
        for duty in duties:
            duty.start(parent.stop)
        parent.works = lambda: (
            parent.stop.is_set()
            or (
                all(duty.works for duty in duties)
                and workflows.attempt.seconds() < settings.model.longest_synthesis_s
            )
        )
        parent.report_ready()
        parent.stop.wait()
        workflows.close()
    os._exit(0)  # the thread of the abandoned series would hold up a normal end


def run_delivery(settings: Settings, options: ChildOptions) -> None:
    """Be the process that delivers, on a machine that does nothing else.

    Raises
    ------
    SettingsError
        Another machine has the name of this one.
    """
    parent = _start("delivery")
    from rebrain_node.app.membership import DutyLoop, joined

    with (
        open_state(settings) as state,
        joined(settings, state, "delivery", options.run, parent.stop) as member,
    ):
        _record_restart(state, "delivery", options.silent_s)
        duty = DutyLoop("delivery", member, partial(start_delivery, settings, state))
        duty.start(parent.stop)
        parent.works = lambda: parent.stop.is_set() or duty.works
        parent.report_ready()
        parent.stop.wait()
    os._exit(0)  # a delivery that waits for its destination would hold up a normal end


def _start(process: str) -> ParentPipe:
    """Start a child process of the node: private files, JSON logs, the pipe to the supervisor."""
    os.umask(0o077)
    log_as_json(process)
    return ParentPipe.watch()


def _record_restart(state: State, process: str, silent_s: float | None) -> None:
    if silent_s is not None:
        state.audit.record(Event.PROCESS_RESTARTED, process, {"silent_s": silent_s})


def _work(
    settings: Settings, state: State, name: str, check: ModelCheck
) -> tuple[Work, CurrentConfiguration]:
    from rebrain_node.store.outbox import ResultOptions
    from rebrain_node.worker.work import Work

    verdict = activate_bundle(settings, state, check)
    details = {"engine": verdict.engine, "bundle": verdict.release.digest}
    state.audit.record(Event.WORKER_STARTED, name, details)

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
        ports=once(ports),
        configuration=configuration,
        destinations=settings.due_names,
        notified=settings.notified,
        options=ResultOptions(
            kept=settings.kept_names, shadow=settings.shadow.active, limits=stop_limits(settings)
        ),
        stops=state.stops,
    ), configuration
