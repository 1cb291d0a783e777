"""The one durable writer: what is put is whole and on disk, or an error is raised."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebrain_node.blobs import BlobStore
from rebrain_node.domain.job import DerivedInstance, DerivedSet
from rebrain_node.domain.set_manifest import SetManifest
from rebrain_node.errors import AlteredBytesError
from rebrain_node.folder import write_out
from tests.support.synthetic_volumes import provenance

layouts = pytest.mark.parametrize("sharded", [False, True], ids=["flat", "sharded"])


def opened(folder: Path, *, sharded: bool = False) -> BlobStore:
    store = BlobStore(folder, sharded=sharded, remedy="restore it from a backup")
    store.prepare()
    return store


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@layouts
def test_a_blob_lies_under_its_digest_private_and_alone(tmp_path: Path, sharded: bool) -> None:
    store = opened(tmp_path / "blobs", sharded=sharded)
    digest = store.put(b"content")
    assert digest == hashlib.sha256(b"content").hexdigest()
    relative = f"{digest[:2]}/{digest}" if sharded else digest
    assert str(store.path(digest)) == relative
    assert files(store.folder) == [store.folder / relative]
    assert stat.S_IMODE((store.folder / relative).stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


@settings(deadline=None)  # the time of fsync is the disk's
@given(contents=st.lists(st.binary(max_size=64), max_size=6), sharded=st.booleans())
def test_every_blob_is_read_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], sharded: bool
) -> None:
    store = opened(tmp_path_factory.mktemp("blobs"), sharded=sharded)
    digests = store.put_all(contents)
    assert [store.get(digest) for digest in digests] == contents
    assert len(files(store.folder)) == len(set(contents))


@layouts
def test_an_altered_or_missing_blob_is_an_error_that_names_the_remedy(
    tmp_path: Path, sharded: bool
) -> None:
    store = opened(tmp_path, sharded=sharded)
    digest = store.put(b"content")
    path = store.folder / store.path(digest)
    path.write_bytes(b"c0ntent")
    with pytest.raises(AlteredBytesError, match=r"was altered.*restore it from a backup"):
        store.get(digest)
    store.put(b"content")  # the same content again repairs the file
    assert store.get(digest) == b"content"
    path.unlink()
    with pytest.raises(AlteredBytesError, match=r"No such file.*restore it from a backup"):
        store.get(digest)


@layouts
def test_file_is_synced_before_the_rename_and_its_folder_after(
    tmp_path: Path, sharded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path, sharded=sharded)
    path = store.folder / store.path(hashlib.sha256(b"content").hexdigest())
    seen: list[tuple[str, bool]] = []
    sync = os.fsync

    def recorded(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        if kind == "folder":
            assert os.path.samestat(os.fstat(descriptor), path.parent.stat())
        seen.append((kind, path.exists()))
        sync(descriptor)

    monkeypatch.setattr("rebrain_node.blobs.os.fsync", recorded)
    store.put(b"content")
    assert seen == [("file", False), ("folder", True)]


@pytest.mark.parametrize("kind", ["file", "folder"])
@layouts
def test_a_failed_fsync_is_raised_and_never_repeated(
    tmp_path: Path, sharded: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path, sharded=sharded)
    calls = []

    def failing(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        if is_folder == (kind == "folder"):
            calls.append(descriptor)
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("rebrain_node.blobs.os.fsync", failing)
    with pytest.raises(OSError, match="Input/output error"):
        store.put(b"content")
    assert len(calls) == 1
    assert not list(store.folder.rglob("*.writing"))
    if kind == "file":
        assert files(store.folder) == []


def arrive(store: BlobStore) -> str:
    arriving = store.begin()
    try:
        arriving.write(b"con")
        arriving.write(b"tent")
        return arriving.keep()
    finally:
        arriving.close()


@layouts
def test_what_arrives_bit_by_bit_is_synced_with_its_new_name_and_then_its_folder(
    tmp_path: Path, sharded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path, sharded=sharded)
    path = store.folder / store.path(hashlib.sha256(b"content").hexdigest())
    seen: list[str] = []
    sync = os.fsync

    def recorded(descriptor: int) -> None:
        synced = os.fstat(descriptor)
        named = {"content": path, "folder": path.parent}
        seen.extend(what for what, p in named.items() if os.path.samestat(p.stat(), synced))
        sync(descriptor)

    monkeypatch.setattr("rebrain_node.blobs.os.fsync", recorded)
    assert store.get(arrive(store)) == b"content"
    assert seen == ["content", "folder"]
    assert files(store.folder) == [path], "no other name is left"


@layouts
def test_a_name_in_use_is_replaced_by_what_is_synced_already(
    tmp_path: Path, sharded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path, sharded=sharded)
    path = store.folder / store.path(store.put(b"content"))
    path.write_bytes(b"c0ntent")
    before, seen, sync = path.stat().st_ino, [], os.fsync

    def recorded(descriptor: int) -> None:
        seen.append(path.stat().st_ino == before)
        sync(descriptor)

    monkeypatch.setattr("rebrain_node.blobs.os.fsync", recorded)
    assert store.get(arrive(store)) == b"content", "and repaired by it"
    assert seen == [True, False], "the file before, the folder after the change"


@layouts
@pytest.mark.parametrize("in_use", [False, True])
def test_what_arrives_and_cannot_be_synced_leaves_no_file_and_takes_none_away(
    tmp_path: Path, sharded: bool, in_use: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path, sharded=sharded)
    if in_use:
        store.put(b"content")
    before = files(store.folder)
    calls: list[int] = []

    def failing(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("rebrain_node.blobs.os.fsync", failing)
    with pytest.raises(OSError, match="Input/output error"):
        arrive(store)
    assert len(calls) == 1
    assert files(store.folder) == before


@pytest.mark.parametrize("suffix", [".writing", ".receiving"])
@layouts
def test_temporary_files_of_dead_writers_are_removed_and_of_living_ones_kept(
    tmp_path: Path, sharded: bool, suffix: str
) -> None:
    store = opened(tmp_path, sharded=sharded)
    digest = store.put(b"content")
    folder = (store.folder / store.path(digest)).parent
    dead, living = folder / f"dead{suffix}", folder / f"living{suffix}"
    dead.write_bytes(b"half")
    living.write_bytes(b"half")
    with living.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        store.prepare()
        assert not dead.exists()
        assert living.exists()
    store.prepare()
    assert files(store.folder) == [store.folder / store.path(digest)]


def derived_set() -> DerivedSet:
    instances = [
        DerivedInstance(
            kind="MR",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
            sop_instance_uid=f"2.25.1000000{number}",
            series_instance_uid="2.25.1",
            content=b"slice %d" % number,
        )
        for number in range(3)
    ]
    return DerivedSet(provenance=provenance(), instances=tuple(instances))


def manifest_of(derived: DerivedSet) -> SetManifest:
    made = derived.provenance
    return SetManifest(
        node="REBRAIN",
        software="0",
        bundle="tiny 1",
        bundle_digest="0" * 64,
        set_digest=made.digest,
        revision=1,
        objects=(),
    )


def test_the_objects_of_a_folder_are_synced_before_they_are_moved_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    seen: list[tuple[str, int]] = []
    sync = os.fsync

    def recorded(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        seen.append((kind, len(list(out.glob("*.dcm")))))
        sync(descriptor)

    monkeypatch.setattr("rebrain_node.blobs.os.fsync", recorded)
    derived = derived_set()
    paths, beside = write_out(derived, manifest_of(derived), out)
    assert seen == [("file", 0)] * 4 + [("folder", 3)]
    assert [path.read_bytes() for path in paths] == [b"slice 0", b"slice 1", b"slice 2"]
    assert files(out) == sorted([*paths, beside])
    umask = os.umask(0)
    os.umask(umask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o666 & ~umask}


def test_a_folder_on_a_disk_that_fails_gets_no_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def failing(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("rebrain_node.blobs.os.fsync", failing)
    with pytest.raises(OSError, match="Input/output error"):
        write_out(derived_set(), manifest_of(derived_set()), tmp_path)
    assert files(tmp_path) == []
    assert len(calls) == 2
