"""What a node leaves in its folder for others to see: its lock, and the state of its processes.

The lock says that a node runs, and which; it is held by the supervisor and its processes, so that
it ends with the last of them, however they end. The state of the processes is what the supervisor
knew last, with the monotonic time of the machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rebrain_node.errors import SettingsError
from rebrain_node.supervisor import STOP_S, ProcessState

_LOCK: Final = "node.lock"
_PROCESSES: Final = "processes.json"
#: how long the processes of a killed supervisor may hold the lock, s
_LEFTOVER_S: Final = STOP_S + 2.0
#: a supervisor reports more often than this, s
SUPERVISOR_SILENT_S: Final = 10.0


@contextmanager
def one_node(folder: Path) -> Iterator[int]:
    """Hold the lock of a node's folder; its file descriptor, to be kept open by its processes.

    Waits for processes that a killed supervisor has left, which end by themselves.

    Raises
    ------
    SettingsError
        Another node has the folder.
    OSError
        The lock cannot be made.
    """
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _LEFTOVER_S
        while not _locked(descriptor):
            other = _owner(descriptor)
            if _runs(other) or time.monotonic() > deadline:
                raise SettingsError(
                    f"process {other or 'unknown'} has the node in storage.folder {folder}: stop "
                    "it, or set another storage.folder; several machines share one with "
                    "PostgreSQL and a storage.machine_folder of each"
                )
            time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def running_node(folder: Path) -> int | None:
    """Process id of the supervisor that runs a node in the folder; None if none does."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(descriptor)
    finally:
        os.close(descriptor)
    return None


def write_processes(folder: Path, states: Sequence[ProcessState]) -> None:
    """Write what the supervisor knows of its processes; what cannot be written is left out."""
    content = {"monotonic_s": time.monotonic(), "processes": [asdict(each) for each in states]}
    temporary = folder / f"{_PROCESSES}.writing"
    try:
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.rename(folder / _PROCESSES)
    except OSError:
        return  # a full disk must not end the supervisor


def node_processes(folder: Path) -> dict[str, Any]:
    """What runs in the folder: process id, seconds since the supervisor reported, processes."""
    pid = running_node(folder)
    answer: dict[str, Any] = {"running": pid is not None, "pid": pid, "processes": []}
    if pid is None:
        return answer
    try:
        content = json.loads((folder / _PROCESSES).read_text(encoding="utf-8"))
        silent_s = time.monotonic() - content["monotonic_s"]
        answer["processes"] = content["processes"]
    except (OSError, ValueError, KeyError, TypeError):
        silent_s = None
    return answer | {"supervisor_silent_s": silent_s and round(silent_s, 1)}


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(descriptor: int) -> int | None:
    content = os.pread(descriptor, 32, 0).strip()
    return int(content) if content.isdigit() else None


def _runs(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
