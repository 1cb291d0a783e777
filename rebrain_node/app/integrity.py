"""Whether objects are as their set manifest says: unaltered, all there, and none added.

A manifest is given, or known to the database of the node, or lies beside the file. It proves
something only where its signature is of a key that is trusted: that of the node whose settings are
used, or one that is given.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from rebrain_node.app.compose import audit_keys, find_state
from rebrain_node.domain.set_manifest import (
    ManifestObject,
    SetManifest,
    is_manifest,
    parse_manifest,
)
from rebrain_node.errors import ManifestError, NoStateError
from rebrain_node.instance.content import instance_digests
from rebrain_node.model.keys import is_signed, read_key_file
from rebrain_node.settings import Settings

if TYPE_CHECKING:
    from rebrain_node.app.origin import FileOrigin
    from rebrain_node.store.results import Results

Signature = Literal["trusted", "of an unknown key", "none", "false"]
Integrity = Literal[
    "unaltered", "unaltered, encoded anew", "header altered", "pixels altered", "added"
]
#: what shows that somebody changed something
_CONTRADICTIONS: Final = ("header altered", "pixels altered", "added")


@dataclass(frozen=True)
class KnownManifest:
    """A manifest, where it was found, and whether its signature is to be trusted."""

    manifest: SetManifest
    place: str
    signature: Signature

    @property
    def sentence(self) -> str:
        """Who made the set, and what the signature is worth; without a full stop."""
        made = self.manifest
        words = {
            "trusted": f"signed with the trusted key {made.key}",
            "of an unknown key": f"signed with the key {made.key}, which is not trusted (--key)",
            "none": "not signed, so that it proves nothing against intent",
            "false": "its signature is not of it: it was altered",
        }
        return f"node {made.node or '-'}, {made.bundle}: {words[self.signature]}"


@dataclass(frozen=True, kw_only=True)
class CheckedFile:
    """One object of a set, held against its manifest."""

    path: Path
    sop_instance_uid: str
    integrity: Integrity


@dataclass(frozen=True, kw_only=True)
class CheckedSet:
    """A set of which files were asked."""

    known: KnownManifest
    files: tuple[CheckedFile, ...]
    missing: tuple[ManifestObject, ...]  #: none where single files were asked

    @property
    def contradicts(self) -> bool:
        """Whether something was altered, added or removed."""
        altered = any(each.integrity in _CONTRADICTIONS for each in self.files)
        return altered or bool(self.missing) or self.known.signature == "false"

    @property
    def proven(self) -> bool:
        """Whether a key that is trusted signed that every file is as it was made."""
        return self.known.signature == "trusted" and not self.contradicts

    def to_json(self) -> dict[str, Any]:
        """Return everything but the list of the objects, as JSON has it."""
        made = self.known.manifest
        return {
            "set_digest": made.set_digest,
            "revision": made.revision,
            "node": made.node,
            "software": made.software,
            "bundle": made.bundle,
            "bundle_digest": made.bundle_digest,
            "objects": len(made.objects),
            "key": made.key,
            "signature": self.known.signature,
            "manifest": self.known.place,
            "missing": [each.sop_instance_uid for each in self.missing],
            "files": [
                {
                    "path": str(each.path),
                    "sop_instance_uid": each.sop_instance_uid,
                    "integrity": each.integrity,
                }
                for each in self.files
            ],
        }


@dataclass
class Manifests:
    """Finds the manifest of a file.

    Parameters
    ----------
    keys : sequence of str
        Public keys that are trusted, hexadecimal.
    given : Path or None
        The one manifest that counts.
    results : Results or None
        Of the node whose settings are used, where it has run.
    """

    keys: Sequence[str]
    given: Path | None = None
    results: Results | None = None
    _in_places: dict[Path, tuple[KnownManifest, ...]] = field(default_factory=dict)
    _stored: dict[str, KnownManifest] = field(default_factory=dict)

    def of(self, origin: FileOrigin) -> KnownManifest | None:
        """Find the manifest of a file; None where none is known, and of what is no DICOM object.

        Raises
        ------
        ManifestError
            A manifest cannot be read.
        """
        if origin.sop_instance_uid is None:
            return None
        if self.given is not None:
            return self._in_folder(self.given)[0]
        return self._from_node(origin.sop_instance_uid) or next(
            (
                each
                for each in (*self._in_folder(origin.path.parent), *self._stored.values())
                if _is_named(each.manifest, origin)
            ),
            None,
        )

    def expected(self, folders: Sequence[Path]) -> Iterator[KnownManifest]:
        """Find the manifests of which files are expected: the given one, or those in folders.

        Raises
        ------
        ManifestError
            A manifest cannot be read.
        """
        if self.given is not None:
            yield from self._in_folder(self.given)
            return
        for folder in folders:
            for path in sorted(path for path in folder.rglob("*") if is_manifest(path)):
                yield from self._in_folder(path.parent)

    def _from_node(self, sop_instance_uid: str) -> KnownManifest | None:
        text = None if self.results is None else self.results.manifest_with(sop_instance_uid)
        if text is None:
            return None
        if text not in self._stored:
            self._stored[text] = self._known(text, "database of the node")
        return self._stored[text]

    def _in_folder(self, place: Path) -> tuple[KnownManifest, ...]:
        """Read a manifest, or those in a folder."""
        if place not in self._in_places:
            files = (
                sorted(path for path in place.iterdir() if is_manifest(path))
                if place.is_dir()
                else [place]
            )
            self._in_places[place] = tuple(self._known(_read(path), str(path)) for path in files)
        return self._in_places[place]

    def _known(self, text: str, place: str) -> KnownManifest:
        try:
            manifest = parse_manifest(text)
        except ValueError as error:
            raise ManifestError(
                f"{place} is no set manifest ({error}); take the file that `process` wrote, or "
                "what `rebrain-node outbox manifest` prints"
            ) from error
        return KnownManifest(manifest, place, _signature(manifest, self.keys))


@contextmanager
def open_manifests(
    settings: Settings, given: Path | None, keys: Sequence[Path]
) -> Iterator[Manifests]:
    """Open what finds manifests; the database of the node only where this account may read it.

    Raises
    ------
    KeyFileError
        A key cannot be read.
    SettingsError
        The database is another program's.
    StoreUnavailableError, StateError
        The database cannot be used now, or not by this version.
    """
    trusted = tuple(map(read_key_file, keys))
    with ExitStack() as stack:
        if not os.access(settings.storage.folder, os.R_OK | os.W_OK | os.X_OK):
            yield Manifests(trusted, given)
            return
        try:
            state = stack.enter_context(find_state(settings))
        except NoStateError:
            yield Manifests(trusted, given)
            return
        yield Manifests(audit_keys(state, keys), given, state.results)


def check_sets(
    origins: Iterable[FileOrigin], manifests: Manifests, folders: Sequence[Path]
) -> tuple[CheckedSet, ...]:
    """Hold files against their manifests, set by set.

    Parameters
    ----------
    folders : sequence of Path
        Where all objects of a set are expected; without one, none is missing.

    Raises
    ------
    ManifestError
        A manifest cannot be read.
    OSError
        A file cannot be read.
    """
    found: dict[str, tuple[KnownManifest, list[CheckedFile]]] = {}
    for origin in origins:
        known = manifests.of(origin)
        if known is not None:
            known, files = found.setdefault(known.manifest.set_digest, (known, []))
            files.append(_checked(origin, known.manifest))
    for known in manifests.expected(folders):
        found.setdefault(known.manifest.set_digest, (known, []))
    return tuple(
        CheckedSet(
            known=known,
            files=tuple(files),
            missing=_missing(known.manifest, files) if folders else (),
        )
        for known, files in found.values()
    )


def _checked(origin: FileOrigin, manifest: SetManifest) -> CheckedFile:
    uid = str(origin.sop_instance_uid)
    listed = {each.sop_instance_uid: each for each in manifest.objects}
    return CheckedFile(
        path=origin.path,
        sop_instance_uid=uid,
        integrity=_integrity(origin.path, listed.get(uid)),
    )


def _integrity(path: Path, listed: ManifestObject | None) -> Integrity:
    if listed is None:
        return "added"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() == listed.sha256:
        return "unaltered"
    try:
        found = instance_digests(content)
    except ValueError:
        return "pixels altered"
    if found.pixels != listed.pixels_sha256:
        return "pixels altered"
    return "unaltered, encoded anew" if found.content == listed.content_sha256 else "header altered"


def _missing(manifest: SetManifest, files: Iterable[CheckedFile]) -> tuple[ManifestObject, ...]:
    here = {each.sop_instance_uid for each in files}
    return tuple(each for each in manifest.objects if each.sop_instance_uid not in here)


def _is_named(manifest: SetManifest, origin: FileOrigin) -> bool:
    """Whether a manifest lists a file, or is of the set that the file names."""
    if origin.set_digest == manifest.set_digest:
        return True
    return any(each.sop_instance_uid == origin.sop_instance_uid for each in manifest.objects)


def _signature(manifest: SetManifest, keys: Sequence[str]) -> Signature:
    if manifest.key is None or manifest.signature is None:
        return "none"
    if not is_signed(manifest.statement, manifest.signature, manifest.key):
        return "false"
    return "trusted" if manifest.key in keys else "of an unknown key"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read as a set manifest: {error}") from error
