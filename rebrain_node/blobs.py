"""Files that survive a power cut: whole under their name, or absent.

Inbox and outbox keep their bytes here, each named by its SHA-256; the objects of ``process`` are
written by the same functions. Order of a write: temporary file in the same file system, fsync
of the file, rename, fsync of the folder. Only then does ``put`` return, so whatever is acknowledged
afterwards is on disk. An error of fsync is never retried, because the kernel may have dropped the
pages: it is raised. An instance that arrives gets a new name before its fsync (`BlobFile.keep`).
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rebrain_node.errors import AlteredBytesError

_TEMPORARY: Final = ".writing"
#: suffix that earlier releases gave to the temporary files of the inbox
_EARLIER_TEMPORARY: Final = ".receiving"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class BlobStore:
    """The blobs of one folder, mode 0600, each named by the SHA-256 of its bytes.

    Parameters
    ----------
    folder
        Created with mode 0700 where it does not exist.
    sharded
        Whether a blob lies in a subfolder named by the first two digits of its SHA-256 (the
        inbox, which holds many), or in ``folder`` itself (the outbox).
    remedy
        What an operator can do about a missing or altered blob; ends the error text.
    """

    def __init__(self, folder: Path, *, sharded: bool, remedy: str) -> None:
        self.folder = folder
        self._sharded = sharded
        self._remedy = remedy
        #: held while a blob gets a name that may be in use
        self.naming = threading.Lock()

    def prepare(self) -> None:
        """Create the folders durably and remove the temporary files of dead writers.

        Raises
        ------
        OSError
            The folder cannot be created or written.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._sharded:
            for number in range(256):
                (self.folder / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
        sync_folder(self.folder)
        sync_folder(self.folder.parent)
        self.sweep()

    def path(self, sha256: str) -> Path:
        """Path of a blob relative to the folder, whether it exists or not."""
        return Path(sha256[:2], sha256) if self._sharded else Path(sha256)

    def put(self, content: bytes) -> str:
        """Write one blob and return its SHA-256, hexadecimal; it is durable on return.

        The same content again replaces the file, which repairs a damaged one.

        Raises
        ------
        OSError
            The disk cannot take it, or fsync failed.
        """
        return self.put_all((content,))[0]

    def put_all(self, contents: Iterable[bytes]) -> tuple[str, ...]:
        """Write blobs as ``put`` does, with one fsync for each folder at the end.

        Raises
        ------
        OSError
            The disk cannot take them all, or fsync failed.
        """
        digests = tuple(self._write(content) for content in contents)
        for folder in sorted({(self.folder / self.path(each)).parent for each in digests}):
            sync_folder(folder)
        return digests

    def begin(self) -> BlobFile:
        """Open a blob that is written bit by bit.

        Raises
        ------
        OSError
            The disk cannot take it.
        """
        return BlobFile(self)

    def get(self, sha256: str) -> bytes:
        """Read the blob of that SHA-256.

        Raises
        ------
        AlteredBytesError
            It is missing, or its bytes have another SHA-256.
        """
        path = self.folder / self.path(sha256)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise AlteredBytesError(f"{path}: {error.strerror}; {self._remedy}") from error
        actual = hashlib.sha256(content).hexdigest()
        if actual != sha256:
            raise AlteredBytesError(
                f"{path} was altered: its bytes have SHA-256 {actual}; {self._remedy}"
            )
        return content

    def remove(self, sha256: str) -> None:
        """Remove the blob of that SHA-256, if it exists.

        Raises
        ------
        OSError
            It cannot be removed.
        """
        (self.folder / self.path(sha256)).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove temporary files of writers that died; a living writer holds a lock on its own."""
        patterns = ("*", "??/*") if self._sharded else ("*",)
        for pattern in patterns:
            for suffix in (_TEMPORARY, _EARLIER_TEMPORARY):
                for path in self.folder.glob(pattern + suffix):
                    _remove_unless_locked(path)

    def _write(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        write_file(self.folder / self.path(sha256), content, mode=0o600)
        return sha256


class BlobFile:
    """A blob that is being written; its SHA-256 grows with it.

    Made by `BlobStore.begin`; to be closed, which removes it unless it was kept.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._temporary: Path | None = store.folder / f"{uuid.uuid4().hex}{_TEMPORARY}"
        self._sha256 = hashlib.sha256()
        self.size = 0  #: bytes so far
        self._descriptor = os.open(self._temporary, _NEW_FILE, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except BaseException:
            self.close()
            raise

    def write(self, content: bytes | memoryview) -> None:
        """Append bytes.

        Raises
        ------
        OSError
            The disk cannot take them.
        """
        self._sha256.update(content)
        view = memoryview(content)
        while view:
            count = os.write(self._descriptor, view)
            self.size += count
            view = view[count:]

    def read(self) -> mmap.mmap:
        """Map what was written so far, which must not be empty; the caller closes the map.

        Raises
        ------
        OSError
            The disk cannot give it.
        """
        return mmap.mmap(self._descriptor, self.size, access=mmap.ACCESS_READ)

    def keep(self) -> str:
        """Give the blob its name; return its SHA-256, hexadecimal, once it is durable.

        A new name is given before the file is synced, so that one commit of the file system holds
        both; nothing knows the name before this returns. A name that is in use is replaced by a
        durable file only.

        Raises
        ------
        OSError
            fsync failed, which is never tried again.
        """
        assert self._temporary is not None  # noqa: S101 - for the type checker: not kept before
        sha256 = self._sha256.hexdigest()
        path = self._store.folder / self._store.path(sha256)
        try:
            path.hardlink_to(self._temporary)
        except OSError:  # the name is in use, or the file system has no links
            os.fsync(self._descriptor)
            with self._store.naming:
                self._temporary.rename(path)
            self._temporary = None
        else:
            self._remove_temporary()
            self._sync_or_remove(path)
        sync_folder(path.parent)
        return sha256

    def _sync_or_remove(self, path: Path) -> None:
        try:
            os.fsync(self._descriptor)
        except BaseException:
            with self._store.naming:  # so that no other file of that name is removed
                if os.path.samestat(path.stat(), os.fstat(self._descriptor)):
                    path.unlink()
            raise

    def close(self) -> None:
        """Close the file, and remove it unless it was kept; may be called again."""
        self._remove_temporary()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _remove_temporary(self) -> None:
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_file(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file durably; its name becomes so with `sync_folder` of its folder.

    Raises
    ------
    OSError
        The disk cannot take it, or fsync failed; there is no file of that name then, or the one
        from before.
    """
    temporary = path.with_name(f"{uuid.uuid4().hex}{_TEMPORARY}")
    descriptor = os.open(temporary, _NEW_FILE, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def inbox_blobs(folder: Path) -> BlobStore:
    """Open the blobs of an inbox."""
    return BlobStore(
        folder,
        sharded=True,
        remedy="restore it from a backup, or remove it and send the study again",
    )


def outbox_blobs(folder: Path) -> BlobStore:
    """Open the blobs of an outbox."""
    return BlobStore(folder, sharded=False, remedy="restore it from a backup")


def stored_files(folder: Path) -> Iterator[Path]:
    """Find the files in inbox and outbox of a node's folder, those being written left out."""
    for pattern in ("inbox/*/*", "outbox/*"):
        for path in folder.glob(pattern):
            if path.suffix not in (_TEMPORARY, _EARLIER_TEMPORARY) and path.is_file():
                yield path


def unfinished_files(folder: Path) -> Iterator[Path]:
    """Find the temporary files that dead writers left in inbox and outbox of a node's folder."""
    for pattern in ("inbox/*/*", "outbox/*"):
        for suffix in (_TEMPORARY, _EARLIER_TEMPORARY):
            for path in folder.glob(pattern + suffix):
                with _unless_locked(path) as is_free:
                    if is_free:
                        yield path


def _remove_unless_locked(path: Path) -> None:
    with _unless_locked(path) as is_free:
        if is_free:
            path.unlink(missing_ok=True)


@contextmanager
def _unless_locked(path: Path) -> Iterator[bool]:
    """Say whether no living writer holds a temporary file; none does until the block ends."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make durable which names a folder holds.

    Raises
    ------
    OSError
        The disk failed.
    """
    descriptor = os.open(folder, _FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
