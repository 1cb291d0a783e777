"""Bytes that survive a power cut: complete under their name, or not there at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from rebrain_node.errors import BytesAltered

_TEMPORARY = ".writing"


def write_by_digest(folder: Path, contents: Iterable[bytes]) -> None:
    """Write each content under its SHA-256, mode 0600; durable when this returns.

    Temporary file in the same folder, fsync, rename, one fsync of the folder at the end. An
    error of fsync is not tried again (the kernel may have dropped the pages): it is raised.

    Raises
    ------
    OSError
        The folder cannot take it.
    """
    for content in contents:
        _write(folder, hashlib.sha256(content).hexdigest(), content)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_by_digest(folder: Path, sha256: str) -> bytes:
    """Read the content of that SHA-256.

    Raises
    ------
    BytesAltered
        It is missing or not what was written.
    """
    path = folder / sha256
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BytesAltered(f"{path}: {error.strerror}; restore it from a backup") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BytesAltered(
            f"{path} holds bytes of SHA-256 {found}; it was altered: restore it from a backup"
        )
    return content


def sweep(folder: Path) -> None:
    """Remove temporary files of writers that died; a living writer holds a lock on its own."""
    for path in folder.glob(f"*{_TEMPORARY}"):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)


def _write(folder: Path, sha256: str, content: bytes) -> None:
    temporary = folder / f"{sha256}.{os.getpid()}{_TEMPORARY}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(content)
        os.fsync(descriptor)
        temporary.rename(folder / sha256)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
