"""Copies the state of a node to a folder while it runs, and makes a node of the copy.

A backup has the layout of ``storage.folder`` and a manifest. Rows and bytes are of one moment:
bytes are durable before their row is, so every file that the copied database names is there,
unless retention or an erasure removed it meanwhile; then the database is copied again. Progress of
the work engine is left out: the worker queues again what the ledger says is not done.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rebrain_node import __version__
from rebrain_node.app.compose import (
    DATABASE_FILE,
    audit_check,
    database_url,
    find_state,
    has_bytes,
    make_machine_folder,
    make_state_folder,
    open_storage_check,
)
from rebrain_node.app.presence import one_node
from rebrain_node.blobs import sync_folder, write_file
from rebrain_node.domain.audit import Event
from rebrain_node.errors import NoStateError, StateError
from rebrain_node.settings import Settings

MANIFEST: Final = "backup.json"
_SETTINGS: Final = "settings"
_NAME: Final = re.compile(r"rebrain-node-\d{8}T\d{6}Z")
#: what of the folder is no fact: the lock, progress, what fsck moved away, unfinished files
_LEFT_OUT: Final = re.compile(
    r"(node\.sqlite|progress\.sqlite|node\.lock|processes\.json|inbox$|outbox$|lost-found$).*"
    r"|.*\.writing"
)
_BLOBS: Final = ("inbox", "outbox")
#: how often the database is copied again because files were removed meanwhile
_ROUNDS: Final = 5


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a backup is."""

    made_at: str  #: UTC
    version: str  #: of the software
    schema: str
    sequence: int  #: newest row of the audit log
    hash: str  #: of that row
    blobs: int  #: files of inbox and outbox, each named by its SHA-256
    size_bytes: int
    lost: tuple[str, ...]  #: files of inbox and outbox that were missing or altered
    files: dict[str, str]  #: SHA-256 of every other file, by path


@dataclass(frozen=True, kw_only=True)
class RestoreResult:
    """What stands after a restore; nothing may differ."""

    manifest: Manifest
    storage: tuple[str, ...]  #: what `storage fsck` lists
    audit: tuple[str, ...]  #: what `audit verify` lists
    rows: int  #: of the audit log


def back_up(settings: Settings, config: Path | None, parent: Path) -> tuple[Path, Manifest]:
    """Copy the state into a new folder below ``parent``; the node may run.

    Raises
    ------
    StateError
        The folder is within storage.folder, the disk has not enough room, or files keep vanishing.
    NoStateError
        There is no node's state.
    StoreUnavailableError, OSError
        Database or disk cannot be read or written.
    """
    _require_outside(settings.storage.folder, parent)
    with find_state(settings) as state:
        target = parent / f"rebrain-node-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        partial = target.with_name(f"{target.name}.writing")
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_room(settings.storage.folder, parent)
        partial.mkdir(mode=0o700)
        try:
            lost = _copy_state(settings, partial)
            _copy_settings(settings, config, partial / _SETTINGS)
            manifest = _describe(partial, lost)
            content = json.dumps(asdict(manifest), indent=1).encode()
            write_file(partial / MANIFEST, content, mode=0o600)
            sync_folder(partial)
            partial.rename(target)
            sync_folder(parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        details = {"files": manifest.blobs, "bytes": manifest.size_bytes, "lost": len(lost)}
        operator = {"operator": getpass.getuser()}
        state.audit.record(Event.BACKUP_MADE, str(target), {**operator, **details})
    return target, manifest


def remove_older(parent: Path, keep: int) -> tuple[Path, ...]:
    """Remove all but the newest ``keep`` backups below ``parent``.

    Raises
    ------
    OSError
        One cannot be removed.
    """
    whole = [p for p in parent.iterdir() if _NAME.fullmatch(p.name) and (p / MANIFEST).is_file()]
    older = sorted(whole)[:-keep]
    for path in older:
        shutil.rmtree(path)
    return tuple(older)


def restore(settings: Settings, backup: Path) -> RestoreResult:
    """Make the state of a node from a backup, and verify it.

    Raises
    ------
    StateError
        It is no backup, is altered, was made by a newer version, or there is a state already.
    StoreUnavailableError, OSError
        Database or disk cannot be read or written.
    """
    from rebrain_node.store.snapshot import put_back, revision_of

    manifest = read_manifest(backup)
    revision_of(backup / DATABASE_FILE)
    _require_nothing(settings)
    folder = make_state_folder(settings)
    with one_node(make_machine_folder(settings)):
        for path in sorted(backup.rglob("*")):
            place = path.relative_to(backup)
            if path.is_file() and place.parts[0] not in (MANIFEST, _SETTINGS, DATABASE_FILE):
                _copy_file(path, folder / place, manifest.files.get(str(place), path.name))
        url = database_url(settings)
        digest = manifest.files[DATABASE_FILE]
        if url.startswith("sqlite"):
            database = Path(url.removeprefix("sqlite:///").partition("?")[0])
            _copy_file(backup / DATABASE_FILE, database, digest)
        else:
            from rebrain_node.store.database import Database

            with tempfile.TemporaryDirectory(dir=folder) as made:
                copy = Path(made) / DATABASE_FILE
                _copy_file(backup / DATABASE_FILE, copy, digest)
                Database.open(f"sqlite:///{copy}").close()  # brings it to this version's tables
                put_back(copy, url)
        sync_folder(folder)
    return _verified(settings, backup, manifest)


def read_manifest(backup: Path) -> Manifest:
    """Read what a backup is, and hold its files against it.

    Raises
    ------
    StateError
        It is no whole backup, or a file was altered.
    """
    try:
        values: dict[str, Any] = json.loads((backup / MANIFEST).read_text(encoding="utf-8"))
        manifest = Manifest(**values | {"lost": tuple(values["lost"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StateError(
            f"{backup} is no whole backup: {MANIFEST} cannot be read ({error}); name a folder that "
            "`rebrain-node backup` made"
        ) from error
    wrong = [name for name, digest in manifest.files.items() if _sha256(backup / name) != digest]
    if wrong or DATABASE_FILE not in manifest.files:
        names = ", ".join(wrong) or DATABASE_FILE
        raise StateError(f"the backup {backup} was altered: {names}; use another backup")
    return manifest


def _copy_state(settings: Settings, partial: Path) -> tuple[str, ...]:
    """Copy database, bytes and the files beside them; what is missing or altered.

    Raises
    ------
    StateError
        Files keep vanishing.
    """
    from rebrain_node.store.database import Database
    from rebrain_node.store.fsck import StorageCheck
    from rebrain_node.store.snapshot import take_snapshot

    source, snapshot = settings.storage.folder, partial / DATABASE_FILE
    copied: set[Path] = set()
    missing: frozenset[Path] = frozenset()
    for _ in range(_ROUNDS):
        for path in source.iterdir():  # before the database: it may then be ahead of them
            if not _LEFT_OUT.fullmatch(path.name):
                _copy_tree(path, partial / path.name)
        snapshot.unlink(missing_ok=True)
        take_snapshot(database_url(settings), snapshot)
        with Database.open(f"sqlite:///{snapshot.absolute()}") as database:
            named = StorageCheck(database, partial).paths()
        before, missing = missing, frozenset(p for p in named if not _taken(source, partial, p))
        copied |= named
        if missing == before:  # none, or lost for good
            break
    else:
        raise StateError(
            f"files of {source} vanished while they were copied, {_ROUNDS} times; stop what "
            "removes them (`rebrain-node storage fsck` lists what is missing) and back up again"
        )
    for path in copied - named:
        (partial / path).unlink(missing_ok=True)  # removed meanwhile, e.g. erased
    snapshot.with_name(f"{DATABASE_FILE}-writer").unlink(missing_ok=True)
    return tuple(sorted(map(str, missing)))


def _taken(source: Path, partial: Path, path: Path) -> bool:
    """Copy one file of inbox or outbox, unless it is there; whether its bytes are as named."""
    if (partial / path).exists():
        return True
    try:
        _copy_file(source / path, partial / path, path.name)
    except (FileNotFoundError, StateError):
        return False
    return True


def _copy_settings(settings: Settings, config: Path | None, target: Path) -> None:
    """Copy what the settings name, for a new machine; files with passwords are left out."""
    target.mkdir(mode=0o700)
    named = {"node.toml": config, "limits.toml": settings.limits, "bundle": settings.model.bundle}
    for name, path in named.items():
        if path is not None:
            _copy_tree(path, target / name)
    for path in settings.model.trusted_keys:
        _copy_tree(path, target / "trusted-keys" / path.name)


def _copy_tree(path: Path, target: Path) -> None:
    if path.is_dir():
        for each in sorted(path.rglob("*")):
            if each.is_file():
                _copy_file(each, target / each.relative_to(path), None)
    else:
        _copy_file(path, target, None)


def _copy_file(path: Path, target: Path, sha256: str | None) -> None:
    """Copy a file durably, in blocks of memory of its size.

    Raises
    ------
    StateError
        Its bytes have another SHA-256.
    OSError
        It cannot be read or written.
    """
    content = path.read_bytes()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise StateError(f"{path} was altered; use another backup")
    _make_private(target.parent)
    write_file(target, content, mode=0o600)


def _make_private(folder: Path) -> None:
    if not folder.exists():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700)


def _describe(partial: Path, lost: tuple[str, ...]) -> Manifest:
    from rebrain_node.store.audit import AuditLog
    from rebrain_node.store.database import SCHEMA_REVISION, Database

    with Database.open(f"sqlite:///{(partial / DATABASE_FILE).absolute()}") as database:
        head = AuditLog(database).head()
    (partial / f"{DATABASE_FILE}-writer").unlink(missing_ok=True)
    paths = [path for path in sorted(partial.rglob("*")) if path.is_file()]
    blobs = [path for path in paths if path.relative_to(partial).parts[0] in _BLOBS]
    others = [path for path in paths if path not in set(blobs)]
    return Manifest(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        schema=SCHEMA_REVISION,
        sequence=head[0],
        hash=head[1],
        blobs=len(blobs),
        size_bytes=sum(path.stat().st_size for path in paths),
        lost=lost,
        files={str(path.relative_to(partial)): _sha256(path) or "" for path in others},
    )


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _require_outside(folder: Path, parent: Path) -> None:
    if parent.resolve().is_relative_to(folder.resolve()):
        raise StateError(
            f"{parent} is within storage.folder {folder}: each backup would hold those before it, "
            "and be lost with the state; name a folder on another disk"
        )


def _require_room(folder: Path, parent: Path) -> None:
    needed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise StateError(
            f"the backup takes up to {needed} bytes and {parent} has {free} free; name a folder on "
            "another disk, or keep fewer backups (--keep)"
        )


def _require_nothing(settings: Settings) -> None:
    """Refuse to restore over a state.

    Raises
    ------
    StateError
        There is one.
    """
    from rebrain_node.store.database import Database

    folder = settings.storage.folder
    found = folder.is_dir() and any(path.name != "node.lock" for path in folder.iterdir())
    url = database_url(settings)
    if not found and url.startswith("sqlite"):
        found = Path(url.removeprefix("sqlite:///").partition("?")[0]).exists()
    elif not found:
        try:
            Database.open(url, make=False).close()
            found = True
        except NoStateError:
            found = False
    if not found:
        return
    what = "holds bytes of a node" if has_bytes(folder) else "is not empty"
    raise StateError(
        f"storage.folder {folder} {what}, or its database has tables; nothing was restored: move "
        "the folder away, or set another storage.folder and storage.database_url"
    )


def _verified(settings: Settings, backup: Path, manifest: Manifest) -> RestoreResult:
    with find_state(settings) as state:
        details: dict[str, Any] = {"operator": getpass.getuser(), "made_at": manifest.made_at}
        details |= {"version": manifest.version, "sequence": manifest.sequence}
        state.audit.record(Event.BACKUP_RESTORED, str(backup), details)
        verdict = audit_check(state).verify()
    with open_storage_check(settings) as check:
        storage = [f"{each.kind} {each.path}" for each in check.differences()]
        storage += [each.sentence for each in check.row_differences()]
    return RestoreResult(
        manifest=manifest,
        storage=tuple(storage),
        audit=() if verdict.intact else (verdict.sentence,),
        rows=verdict.rows,
    )
