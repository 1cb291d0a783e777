"""From settings to running parts: limits, bundle, model, database and folders.

Heavy libraries are imported where they are needed: the receiver loads no engine, the supervisor
loads nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from rebrain_node import __version__
from rebrain_node.blobs import inbox_blobs, outbox_blobs, stored_files
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.stop_rules import StopLimits
from rebrain_node.errors import BundleError, EngineError, NoStateError, SettingsError
from rebrain_node.limits_file import load_limits, shipped_limits
from rebrain_node.settings import Settings

if TYPE_CHECKING:
    from rebrain_node.domain.release import Release
    from rebrain_node.engine.loaded import LoadedModel
    from rebrain_node.engine.tensorrt_backend import BuildReport
    from rebrain_node.model.bundle import ModelBundle
    from rebrain_node.model.signature import Signer
    from rebrain_node.pipeline import Configuration
    from rebrain_node.store.audit import AuditLog
    from rebrain_node.store.audit_check import AuditCheck
    from rebrain_node.store.audit_queue import AuditQueue
    from rebrain_node.store.backlog import Backlog
    from rebrain_node.store.confirmations import Confirmations
    from rebrain_node.store.database import Database
    from rebrain_node.store.deliveries import Deliveries
    from rebrain_node.store.executors import Executors
    from rebrain_node.store.fsck import StorageCheck
    from rebrain_node.store.inquiries import Inquiries
    from rebrain_node.store.ledger import Ledger
    from rebrain_node.store.listening import ListeningClock
    from rebrain_node.store.notifications import Notifications
    from rebrain_node.store.outbox import Outbox
    from rebrain_node.store.recall import Recall
    from rebrain_node.store.releases import Releases
    from rebrain_node.store.results import Results
    from rebrain_node.store.retention import Retention, RetentionRules
    from rebrain_node.store.short_names import ShortNames
    from rebrain_node.store.stops import Stops
    from rebrain_node.store.workitems import Workitems

#: the SQLite database within the folder of the node's state
DATABASE_FILE = "node.sqlite"
#: what TensorRT has built, within the folder of the machine
_PLANS = "plans"
#: of a node on Python 3.12 or newer
_LEAST_SQLITE = (3, 42)
_LOG = logging.getLogger(__name__)
_START_REMEDY = (
    "give the settings of the node (--config FILE), correct storage.folder or "
    "storage.database_url, or start the node with `rebrain-node serve`, which makes it"
)
_FSCK_REMEDY = (
    "received or derived bytes are there: restore the database from a backup, or see with "
    "`rebrain-node storage fsck` what it would have to know"
)


@dataclass(frozen=True)
class VerifiedBundle:
    """A bundle that is exactly what its manifest says, and who released it."""

    bundle: ModelBundle
    signer: Signer | None  #: None for an unsigned bundle that the settings accept


def read_limits(settings: Settings) -> Limits:
    """Read the limits of the settings, or those that ship.

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
        raise SettingsError(
            f"limits {settings.limits}: {error.strerror}; correct the setting `limits`, or leave "
            "it out for the limits that ship"
        ) from error


def read_bundle(settings: Settings) -> ModelBundle:
    """Load the bundle of the settings, whoever released it: to be shown, not to be used.

    Raises
    ------
    BundleError
        It is not exactly what its manifest says.
    """
    from rebrain_node.model.bundle import load_bundle

    if settings.model.bundle is not None:
        return load_bundle(settings.model.bundle)
    with resources.as_file(resources.files("rebrain_node") / "bundles" / "demo") as shipped:
        return load_bundle(shipped)


def open_bundle(settings: Settings) -> VerifiedBundle:
    """Load the bundle of the settings and verify who released it.

    Raises
    ------
    BundleError
        It is not exactly what its manifest says, is unsigned, or signed with an untrusted key.
    SettingsError
        A trusted key cannot be read.
    """
    from rebrain_node.trust import signer_of

    bundle = read_bundle(settings)
    return VerifiedBundle(bundle, signer_of(settings, bundle))


def configure(settings: Settings, bundle: ModelBundle) -> Configuration:
    """Collect what a result depends on beside the series itself.

    Raises
    ------
    SettingsError
        The limits are not fit to run.
    """
    from rebrain_node.pipeline import Configuration
    from rebrain_node.steps.write import COMPANIONS, ObjectOptions

    limits = read_limits(settings)
    objects = settings.objects.model_dump(mode="json") | settings.marks.model_dump(mode="json")
    content = json.dumps({"limits": limits.digest, "objects": objects}, sort_keys=True)
    options = ObjectOptions(**settings.objects.model_dump(exclude_none=True))
    options = replace(options, watermark=settings.marks.watermark == "on")
    visible = settings.marks.visible
    if visible == "presentation-state":
        with_state = {*options.companions, "PR"}
        options = replace(
            options, companions=tuple(each for each in COMPANIONS if each in with_state)
        )
    elif visible != "none":
        options = replace(options, ink=visible)
    if settings.objects.uncertain_above is None and bundle.recipe.abstain is not None:
        options = replace(options, uncertain_above=bundle.recipe.abstain.voxel_above)
    return Configuration(
        bundle=bundle,
        limits=limits,
        objects=options,
        software_version=__version__,
        digest=hashlib.sha256(content.encode()).hexdigest(),
    )


def limit_decoding(settings: Settings) -> None:
    """Let compressed pixels be decoded in this process within the limits of the settings."""
    from rebrain_node.instance.codecs import set_limits
    from rebrain_node.instance.decoding import DecodingLimits

    set_limits(DecodingLimits(**settings.decoding.model_dump()))


def open_model(settings: Settings, bundle: ModelBundle, workers: int = 1) -> LoadedModel:
    """Open the networks of a bundle, and its knowledge base.

    Each reproduces what the bundle was released with: engine and residual-scale head the golden
    output, the encoder the embeddings of the knowledge base. Where nothing is retrieved, the
    encoder serves the out-of-distribution score alone. Where an engine of a GPU is set and cannot
    start here, or deviates, OpenVINO takes its place and `LoadedModel.fallback` says why.

    Parameters
    ----------
    workers : int
        Processes that share the cores where ``model.threads`` is not set.

    Raises
    ------
    EngineError
        An engine cannot start here.
    BundleError
        A golden output is not reproduced on this machine, or the knowledge base is not fit to be
        searched or belongs to another encoder.
    """
    from rebrain_node.engine.open import GPU_ENGINES

    name = settings.model.engine
    if name not in GPU_ENGINES:
        return _open_networks(name, settings, bundle, workers)
    try:
        return _open_networks(name, settings, bundle, workers)
    except (EngineError, BundleError) as error:
        model = _open_networks("openvino", settings, bundle, workers)
        _LOG.warning("%s computes instead of %s: %s", model.engine.identity, name, error)
        return replace(model, fallback=str(error))


def compile_plans(settings: Settings, bundle: ModelBundle, target: str | None) -> list[BuildReport]:
    """Build what TensorRT loads of a bundle, and keep it in the folder of the node's state.

    Raises
    ------
    EngineError
        TensorRT is not installed or cannot build a graph for the target.
    SettingsError
        The folder cannot be made.
    """
    from rebrain_node.engine.open import compile_plans as compile_for

    return compile_for(bundle, make_machine_folder(settings) / _PLANS, target)


def _open_networks(name: str, settings: Settings, bundle: ModelBundle, workers: int) -> LoadedModel:
    from rebrain_node.engine.loaded import LoadedModel
    from rebrain_node.engine.open import open_encoder, open_engine, open_scale
    from rebrain_node.engine.processor import physical_cores

    threads = settings.model.threads or max(1, physical_cores() // workers)
    folder = settings.storage.own_folder
    plans = folder / _PLANS if folder.is_dir() else None
    engine = open_engine(name, bundle, threads, plans)
    scale = None if bundle.calibration is None else open_scale(name, bundle, threads, plans)
    encoder = open_encoder(name, bundle, threads, plans) if bundle.embeds else None
    if encoder is None or not bundle.recipe.retrieves:
        return LoadedModel.of(bundle, engine, encoder=encoder, scale=scale)
    from rebrain_node.retrieval.open import open_exemplars

    exemplars = open_exemplars(bundle, encoder)
    return LoadedModel.of(bundle, engine, encoder=encoder, exemplars=exemplars, scale=scale)


@dataclass(frozen=True, kw_only=True)
class State:
    """The facts of a node: one database, the inbox's and the outbox's folders."""

    database: Database
    ledger: Ledger
    audit: AuditLog
    outbox: Outbox
    deliveries: Deliveries
    stops: Stops
    notifications: Notifications
    workitems: Workitems
    backlog: Backlog
    confirmations: Confirmations
    retention: Retention
    recall: Recall
    releases: Releases
    listening: ListeningClock
    inquiries: Inquiries
    results: Results
    audit_queue: AuditQueue
    names: ShortNames
    executors: Executors
    folder: Path

    @property
    def inbox(self) -> Path:
        """Where received instances lie."""
        return self.folder / "inbox"


def make_state_folder(settings: Settings) -> Path:
    """Make the folder of the node's state, readable by its owner alone.

    Raises
    ------
    SettingsError
        It cannot be made.
    """
    return _make_folder("storage.folder", settings.storage.folder)


def make_machine_folder(settings: Settings) -> Path:
    """Make the folder of this machine alone, readable by its owner alone.

    Raises
    ------
    SettingsError
        It cannot be made.
    """
    if settings.storage.machine_folder is None:
        return make_state_folder(settings)
    return _make_folder("storage.machine_folder", settings.storage.machine_folder)


def lock_folders(settings: Settings) -> tuple[Path, ...]:
    """Folders whose lock a node holds: its machine's, and that of an SQLite database elsewhere."""
    own, database = settings.storage.own_folder, sqlite_file(settings)
    if database is None or database.parent.resolve() == own.resolve():
        return (own,)
    return own, database.parent


def sqlite_file(settings: Settings) -> Path | None:
    """Path of the node's SQLite database; None with PostgreSQL."""
    url = database_url(settings)
    if not url.startswith("sqlite:///"):
        return None
    return Path(url.removeprefix("sqlite:///").partition("?")[0])


def _make_folder(setting: str, folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise SettingsError(
            f"{setting} {folder} cannot be made: it, or what it would lie in, is no folder; "
            "correct the path"
        ) from error
    except OSError as error:
        raise SettingsError(
            f"{setting} {folder}: {error.strerror}; make it, or set another one"
        ) from error
    return folder


@contextmanager
def open_state(settings: Settings) -> Iterator[State]:
    """Open the node's database and folders; they are made where there are none.

    Raises
    ------
    SettingsError
        The folder cannot be made, or the database is another program's.
    NoStateError
        The database is missing or empty although received or derived bytes are there.
    StoreUnavailableError, StateError
        The database cannot be used now, or not by this version.
    """
    folder = make_state_folder(settings)
    with _database(settings, make=not has_bytes(folder)) as database:
        yield _state(database, folder)


@contextmanager
def find_state(settings: Settings) -> Iterator[State]:
    """Open the state of a node that ran before; none is made.

    Raises
    ------
    NoStateError
        There is no folder, or no database in it.
    SettingsError
        The database is another program's.
    StoreUnavailableError, StateError
        The database cannot be used now, or not by this version.
    """
    with _database(settings, make=False) as database:
        yield _state(database, settings.storage.folder)


@contextmanager
def open_storage_check(settings: Settings) -> Iterator[StorageCheck]:
    """Open what compares stored bytes with the database, which may be missing.

    Raises
    ------
    NoStateError
        There are neither bytes nor a database.
    SettingsError
        The database is another program's.
    StoreUnavailableError, StateError
        The database cannot be used now, or not by this version.
    """
    from rebrain_node.store.fsck import StorageCheck

    folder = settings.storage.folder
    with ExitStack() as stack:
        database = None
        try:
            database = stack.enter_context(_database(settings, make=False))
        except NoStateError:
            if not has_bytes(folder):
                raise
        yield StorageCheck(database, folder)


def has_bytes(folder: Path) -> bool:
    """Say whether received or derived bytes lie in the folder of a node's state."""
    return next(stored_files(folder), None) is not None


def require_database(settings: Settings) -> Callable[[], None]:
    """Return a check that raises `NoStateError` once an SQLite database vanishes or is replaced.

    Without it, the processes of a running node would write to a file that has no name any more.
    """
    path = sqlite_file(settings)
    if path is None:
        return lambda: None
    first: list[int] = []

    def check() -> None:
        inode = path.stat().st_ino if path.exists() else None
        if not first and inode is not None:
            first.append(inode)
        if first and inode != first[0]:
            what = "has vanished" if inode is None else "was replaced"
            raise NoStateError(f"the database {path} {what} while the node ran; {_FSCK_REMEDY}")

    return check


def require_sqlite(settings: Settings) -> None:
    """Refuse a Python whose SQLite is too old for the progress of workflows.

    On Python 3.12 and newer DBOS writes times that only SQLite 3.42 and newer compute.

    Raises
    ------
    SettingsError
        This Python is such a one, and the database is no PostgreSQL.
    """
    found = sqlite3.sqlite_version_info
    if not settings.storage.has_server and sys.version_info >= (3, 12) and found < _LEAST_SQLITE:
        raise SettingsError(
            f"Python {sys.version_info.major}.{sys.version_info.minor} is linked with SQLite "
            f"{sqlite3.sqlite_version} here, with which no series can be processed: use Python "
            "3.11, or one that is linked with SQLite 3.42 or newer, or set storage.database_url "
            "to a PostgreSQL database"
        )


def database_url(settings: Settings) -> str:
    """Return the URL of the node's database."""
    default = f"sqlite:///{settings.storage.folder.absolute() / DATABASE_FILE}"
    return settings.storage.database_url or default


@contextmanager
def _database(settings: Settings, *, make: bool) -> Iterator[Database]:
    from rebrain_node.store.database import Database

    folder = settings.storage.folder
    remedy = _FSCK_REMEDY if has_bytes(folder) else _START_REMEDY
    if not folder.is_dir():
        raise NoStateError(f"there is no node's state: storage.folder {folder} is absent; {remedy}")
    try:
        database = Database.open(database_url(settings), make=make)
    except NoStateError as error:
        raise NoStateError(
            f"there is no node's state in storage.folder {folder}: {error}; {remedy}"
        ) from error
    with database:
        yield database


def _state(database: Database, folder: Path) -> State:
    from rebrain_node.store.audit import AuditLog
    from rebrain_node.store.audit_queue import AuditQueue
    from rebrain_node.store.backlog import Backlog
    from rebrain_node.store.confirmations import Confirmations
    from rebrain_node.store.deliveries import Deliveries
    from rebrain_node.store.executors import Executors
    from rebrain_node.store.inquiries import Inquiries
    from rebrain_node.store.ledger import Ledger
    from rebrain_node.store.listening import ListeningClock
    from rebrain_node.store.notifications import Notifications
    from rebrain_node.store.outbox import Outbox
    from rebrain_node.store.recall import Recall
    from rebrain_node.store.releases import Releases
    from rebrain_node.store.results import Results
    from rebrain_node.store.retention import Retention
    from rebrain_node.store.short_names import ShortNames
    from rebrain_node.store.stops import Stops
    from rebrain_node.store.workitems import Workitems

    return State(
        ledger=Ledger(database),
        database=database,
        audit=AuditLog(database, folder),
        outbox=Outbox(database, folder / "outbox"),
        deliveries=Deliveries(database),
        stops=Stops(database),
        notifications=Notifications(database),
        workitems=Workitems(database),
        backlog=Backlog(database),
        confirmations=Confirmations(database),
        retention=Retention(
            database,
            inbox_blobs(folder / "inbox"),
            outbox_blobs(folder / "outbox"),
        ),
        recall=Recall(database),
        releases=Releases(database),
        listening=ListeningClock(database),
        inquiries=Inquiries(database),
        results=Results(database),
        audit_queue=AuditQueue(database),
        names=ShortNames(database),
        executors=Executors(database),
        folder=folder,
    )


def make_audit_key(state: State) -> None:
    """Make the key that signs the audit log, where the node has none, and record it.

    Raises
    ------
    KeyFileError
        The private key was lost.
    """
    from rebrain_node.domain.audit import Event
    from rebrain_node.model.keys import PUBLIC_FILE, make_node_key

    key = make_node_key(state.folder)
    if key is not None:
        state.audit.record(Event.AUDIT_KEY_MADE, key, {"file": PUBLIC_FILE})


def audit_check(state: State, keys: Sequence[Path] = ()) -> AuditCheck:
    """Return what verifies the audit log of a node, by its own key or those in files.

    Raises
    ------
    KeyFileError
        A key cannot be read.
    """
    from rebrain_node.store.audit_check import AuditCheck

    return AuditCheck(state.database, state.folder, audit_keys(state, keys))


def audit_keys(state: State, files: Sequence[Path] = ()) -> tuple[str, ...]:
    """Public keys (hexadecimal) whose checkpoints count: those in files, or the node's own.

    Raises
    ------
    KeyFileError
        A key cannot be read.
    """
    from rebrain_node.model.keys import PUBLIC_FILE, read_key_file

    own = state.folder / PUBLIC_FILE
    return tuple(map(read_key_file, files or ([own] if own.exists() else [])))


def retention_rules(settings: Settings) -> RetentionRules:
    """Read the rules of retention from the settings."""
    from rebrain_node.store.retention import RetentionRules

    return RetentionRules(**settings.retention.model_dump())


def stop_limits(settings: Settings) -> StopLimits:
    """Read the limits of the stop rules from the settings."""
    return StopLimits(**settings.stop.model_dump())


def refuse_rollback(settings: Settings, state: State, release: Release) -> None:
    """Refuse a bundle that is older than the last active one of its name.

    Raises
    ------
    BundleError
        It is, and ``model.accept_older`` does not name it.
    """
    from rebrain_node.trust import refuse_older

    refuse_older(release, state.releases.named(release.name), settings.model.accept_older)


def hold_against_history(settings: Settings, bundle: ModelBundle) -> bool:
    """Refuse a rollback where a node ran before; false where none did, and none is made.

    Raises
    ------
    BundleError
        The bundle is older than the last active one of its name.
    """
    try:
        with find_state(settings) as state:
            refuse_rollback(settings, state, bundle.release)
    except NoStateError:
        return False
    return True
