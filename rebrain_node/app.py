"""Composition root: from settings to running parts; the only file that names concrete adapters.

Heavy libraries are imported where they are needed: the receiver loads no engine, the supervisor
loads nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NoReturn

from rebrain_node import __version__
from rebrain_node.domain.audit import Event
from rebrain_node.domain.limits import Limits, load_limits, shipped_limits
from rebrain_node.domain.release import refuse_older
from rebrain_node.errors import BundleRefused, EngineFailed, SettingsError
from rebrain_node.logs import log_as_json
from rebrain_node.settings import DestinationSettings, Settings
from rebrain_node.supervisor import LifeLine, Role, supervise

if TYPE_CHECKING:
    from rebrain_node.folder import Folder, Progress, SeriesResult
    from rebrain_node.model.bundle import ModelBundle
    from rebrain_node.network.sender import SentFile
    from rebrain_node.pipeline import Configuration
    from rebrain_node.ports import JsonValue, Model
    from rebrain_node.store.audit import AuditLog
    from rebrain_node.store.ledger import Ledger
    from rebrain_node.store.outbox import Outbox
    from rebrain_node.store.recall import Recall
    from rebrain_node.store.releases import Releases
    from rebrain_node.worker.durable import Durable
    from rebrain_node.worker.watcher import Watcher
    from rebrain_node.worker.work import Work

#: so many events stand in an audit report
NEWEST_EVENTS = 5000
#: the SQLite database within the folder of the node's state
_DATABASE = "node.sqlite"


def limits(settings: Settings) -> Limits:
    """Read the limits in force.

    Raises
    ------
    SettingsError
        The file cannot be read, or a limit is missing, unknown or outside its range.
    """
    if settings.limits is None:
        return shipped_limits()
    try:
        return load_limits(settings.limits.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"limits {settings.limits}: {error.strerror}") from error


def bundle(settings: Settings) -> ModelBundle:
    """Load the bundle in force, verified and released by somebody whom the settings trust.

    Raises
    ------
    BundleRefused
        It is not exactly what its manifest says, is unsigned, or signed by a stranger.
    SettingsError
        A trusted key cannot be read.
    """
    from rebrain_node.trust import signer

    found = intact_bundle(settings)
    signer(settings, found)
    return found


def intact_bundle(settings: Settings) -> ModelBundle:
    """Load the bundle in force whoever released it: to be looked at, not to be used.

    Raises
    ------
    BundleRefused
        It is not exactly what its manifest says.
    """
    from rebrain_node.model.bundle import load_bundle

    if settings.model.bundle is not None:
        return load_bundle(settings.model.bundle)
    with resources.as_file(resources.files("rebrain_node") / "bundles" / "demo") as shipped:
        return load_bundle(shipped)


def configuration(settings: Settings) -> Configuration:
    """Gather what shapes a result beside the series itself.

    Raises
    ------
    SettingsError
        The limits or the trusted keys are not fit to run.
    BundleRefused
        `bundle` refuses it.
    """
    from rebrain_node.pipeline import Configuration
    from rebrain_node.steps.write import ObjectOptions

    clinical, verified = limits(settings), bundle(settings)
    objects = settings.objects.model_dump(mode="json")
    shaping = json.dumps({"limits": clinical.digest, "objects": objects}, sort_keys=True)
    options = ObjectOptions(**settings.objects.model_dump(exclude_none=True))
    if settings.objects.uncertain_above is None and verified.recipe.abstain is not None:
        options = replace(options, uncertain_above=verified.recipe.abstain.voxel_above)
    return Configuration(
        bundle=verified,
        limits=clinical,
        objects=options,
        software_version=__version__,
        digest=hashlib.sha256(shaping.encode()).hexdigest(),
    )


def model(settings: Settings, verified: ModelBundle, workers: int = 1) -> Model:
    """Open a bundle: its engine, and what else is asked for.

    Each proves itself: engine and residual-scale head by the golden output, the encoder by the
    knowledge base. Where nothing is retrieved, the encoder only serves the out-of-domain score.

    Parameters
    ----------
    workers : int
        Processes that share the cores where ``model.threads`` is not set.

    Raises
    ------
    EngineFailed
        An engine cannot start here.
    BundleRefused
        The golden output is not reproduced on this machine, or the knowledge base is not fit to
        be searched or belongs to another encoder.
    """
    from rebrain_node.engine.open import open_encoder, open_engine, open_scale
    from rebrain_node.ports import Model

    name = settings.model.engine
    threads = settings.model.threads or max(1, len(os.sched_getaffinity(0)) // workers)
    engine = open_engine(name, verified, threads)
    scale = None if verified.calibration is None else open_scale(name, verified, threads)
    encoder = open_encoder(name, verified, threads) if verified.embeds else None
    if encoder is None or not verified.recipe.retrieves:
        return Model(engine=engine, encoder=encoder, scale=scale)
    from rebrain_node.retrieval.open import open_exemplars

    exemplars = open_exemplars(verified, encoder)
    return Model(engine=engine, encoder=encoder, exemplars=exemplars, scale=scale)


@dataclass(frozen=True, kw_only=True)
class State:
    """The facts of a node: one database, the inbox's and the outbox's folders."""

    ledger: Ledger
    audit: AuditLog
    outbox: Outbox
    recall: Recall
    releases: Releases
    folder: Path

    @property
    def inbox(self) -> Path:
        """Where received instances lie."""
        return self.folder / "inbox"


def make_folder(settings: Settings) -> Path:
    """Make the folder of the node's state, for the owner alone.

    Raises
    ------
    SettingsError
        It cannot be made.
    """
    folder = settings.storage.folder
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"storage.folder {folder}: {error.strerror}; make it, or set another one"
        ) from error
    return folder


def has_state(settings: Settings) -> bool:
    """Say whether a node ran with these settings before; makes nothing."""
    url = settings.storage.database_url
    return url is not None or (settings.storage.folder / _DATABASE).is_file()


@contextmanager
def open_state(settings: Settings) -> Iterator[State]:
    """Open the node's database and folders.

    Raises
    ------
    SettingsError
        The folder cannot be made.
    StoreUnavailable, StateRefused
        The database cannot be used now, or not by this version.
    """
    from rebrain_node.store.audit import AuditLog
    from rebrain_node.store.database import Database
    from rebrain_node.store.ledger import Ledger
    from rebrain_node.store.outbox import Outbox
    from rebrain_node.store.recall import Recall
    from rebrain_node.store.releases import Releases

    folder = make_folder(settings)
    url = settings.storage.database_url or f"sqlite:///{folder.absolute() / _DATABASE}"
    with Database.open(url) as database:
        yield State(
            ledger=Ledger(database),
            audit=AuditLog(database),
            outbox=Outbox(database, folder / "outbox"),
            recall=Recall(database),
            releases=Releases(database),
            folder=folder,
        )


def refuse_left_behind(settings: Settings, state: State, found: ModelBundle) -> None:
    """Refuse a bundle that is older than one that was in force on this node.

    Raises
    ------
    BundleRefused
        It is, and ``model.accept_older`` does not name it.
    """
    known = state.releases.named(found.name)
    refuse_older(found.release, known, settings.model.accept_older)


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
    from rebrain_node.folder import judge, read_folder, write_out

    begun = time.monotonic()
    shaping = configuration(settings)
    opened: list[Model] = []

    def model_in_force() -> Model:
        if not opened:
            opened.append(model(settings, shaping.bundle))
        return opened[0]

    folder = read_folder(study, progress)
    results = tuple(judge(folder, shaping, model_in_force, progress))
    made = [result.receipt.derived for result in results if result.receipt is not None]
    outputs = [path for derived in made for path in write_out(derived, out)]
    return FolderRun(
        folder=folder,
        results=results,
        outputs=tuple(outputs),
        seconds=time.monotonic() - begun,
        engine=opened[0].engine.identity if opened else None,
        bundle_digest=shaping.bundle.digest,
    )


def destination(settings: Settings, name: str) -> DestinationSettings:
    """Find a destination by its name.

    Raises
    ------
    SettingsError
        There is none of that name.
    """
    for found in settings.destinations:
        if found.name == name:
            return found
    names = ", ".join(each.name for each in settings.destinations) or "none"
    raise SettingsError(f"no destination is called {name!r}; the settings name {names}")


def echo(settings: Settings, name: str) -> float:
    """Send C-ECHO to a destination; the seconds it took.

    Raises
    ------
    DeliveryFailed
        It does not answer.
    """
    from rebrain_node.network.sender import echo

    return echo(destination(settings, name), settings.receiver.ae_title)


def send_files(
    settings: Settings, name: str, paths: Sequence[Path], progress: Callable[[SentFile], None]
) -> tuple[SentFile, ...]:
    """Send files to a destination by hand.

    Raises
    ------
    SettingsError
        There is no destination of that name.
    DeliveryFailed
        There is no association: nothing was sent.
    """
    from rebrain_node.network.sender import send_files

    return send_files(destination(settings, name), settings.receiver.ae_title, paths, progress)


def write_audit_report(settings: Settings, path: Path) -> None:
    """Write one HTML page over all series, events and deliveries.

    Raises
    ------
    StoreUnavailable
        The database does not answer.
    OSError
        The page cannot be written.
    """
    from rebrain_node.report.audit import render

    with open_state(settings) as state:
        page = render(
            series=state.ledger.series(),
            events=state.audit.events(NEWEST_EVENTS),
            verdict=state.audit.verify(),
            deliveries=state.outbox.pending(),
        )
    path.write_text(page, encoding="utf-8")


def serve(settings: Settings, config: Path | None) -> int:
    """Run the node until it is stopped; the exit code.

    Raises
    ------
    SettingsError
        The limits or the folder of the node's state are not fit to run.
    """
    log_as_json("supervisor")
    limits(settings)
    make_folder(settings)
    program = (sys.executable, "-m", "rebrain_node.cli")
    options = () if config is None else ("--config", str(config))
    workers = [
        Role(name=f"worker-{slot}", command=(*program, "worker", "--slot", str(slot), *options))
        for slot in range(1, settings.workers + 1)
    ]
    return supervise([Role(name="receiver", command=(*program, "receiver", *options)), *workers])


def run_receiver(settings: Settings) -> None:
    """Be the receiver process until the supervisor ends it."""
    from rebrain_node.network.receiver import Receiver
    from rebrain_node.reception.inbox import Spool

    life = _begin("receiver")
    with open_state(settings) as state:
        spool = Spool(state.inbox, state.ledger, hard_mark_bytes=settings.storage.hard_mark_bytes)
        with Receiver(settings.receiver, spool, state.audit) as receiver:
            told: dict[str, JsonValue] = {"version": __version__, "port": receiver.port}
            state.audit.record(Event.NODE_STARTED, settings.receiver.ae_title, told)
            life.say_ready()
            life.stop.wait()
        state.audit.record(Event.NODE_STOPPED, settings.receiver.ae_title, {})


def run_worker(settings: Settings, slot: int) -> NoReturn:
    """Be worker ``slot`` until the supervisor ends it.

    A series in the making is given up then: its work is handed back and made anew.

    Raises
    ------
    BundleRefused
        The bundle is not what was released, was left behind, or deviates on this machine.
    EngineFailed
        The engine cannot start.
    """
    from rebrain_node.worker.durable import launch, progress_url

    life = _begin(f"worker-{slot}")
    with open_state(settings) as state:
        work = _work(settings, state, slot)
        url = progress_url(state.folder, settings.storage.database_url)
        durable = launch(work, url, slot, settings.workers)
        if slot == 1:
            watcher = _watcher(settings, state, work, durable)
            Thread(target=watcher.run, args=(life.stop,), daemon=True, name="watcher").start()
        life.say_ready()
        life.stop.wait()
        durable.close()
    os._exit(0)  # the thread of a series in the making would hold up a normal end


def _begin(process: str) -> LifeLine:
    """Begin a child process of the node: private files, JSON logs, the line to the supervisor."""
    os.umask(0o077)
    log_as_json(process)
    return LifeLine.hold()


def _work(settings: Settings, state: State, slot: int) -> Work:
    from rebrain_node.network.sender import PacsDestination
    from rebrain_node.pipeline import Ports
    from rebrain_node.reception.inbox import InboxFolder
    from rebrain_node.worker.work import Work

    shaping, opened = in_force(settings, state)
    told = {"engine": opened.engine.identity, "bundle": shaping.bundle.digest}
    state.audit.record(Event.WORKER_STARTED, f"worker-{slot}", told)
    return Work(
        ledger=state.ledger,
        outbox=state.outbox,
        ports=Ports(
            inbox=InboxFolder(state.inbox, state.ledger),
            audit=state.audit,
            model=opened,
        ),
        configuration=shaping,
        destinations={
            each.name: PacsDestination(each, settings.receiver.ae_title)
            for each in settings.destinations
        },
    )


def in_force(settings: Settings, state: State) -> tuple[Configuration, Model]:
    """Put the bundle into force: from its row on the audit log on, no older one is taken.

    Raises
    ------
    BundleRefused
        It is not what was released, or was left behind; the reason stands on the audit log.
    EngineFailed
        The engine cannot start; so does this.
    """
    from rebrain_node.trust import signer

    try:
        shaping = configuration(settings)
        refuse_left_behind(settings, state, shaping.bundle)
        opened = model(settings, shaping.bundle, settings.workers)
    except BundleRefused as error:
        state.audit.record(Event.BUNDLE_REFUSED, "bundle", {"reason": str(error)})
        raise
    except EngineFailed as error:
        state.audit.record(Event.SELF_TEST_FAILED, settings.model.engine, {"reason": str(error)})
        raise
    found = shaping.bundle
    signed_by = signer(settings, found)
    told = {
        "name": found.name,
        "version": found.version,
        "signed_by": None if signed_by is None else asdict(signed_by),
    }
    state.audit.record(Event.BUNDLE_VERIFIED, found.digest, told)
    return shaping, opened


def _watcher(settings: Settings, state: State, work: Work, durable: Durable) -> Watcher:
    from rebrain_node.reception.completeness import Settling
    from rebrain_node.reception.inbox import InboxFolder
    from rebrain_node.worker.watcher import Watcher

    return Watcher(
        work=work,
        durable=durable,
        inbox=InboxFolder(state.inbox, state.ledger),
        settling=Settling(
            quiet_period_s=settings.completeness.quiet_period_s,
            maximum_wait_s=settings.completeness.maximum_wait_s,
        ),
        folder=state.folder,
        soft_mark_bytes=settings.storage.soft_mark_bytes,
    )
