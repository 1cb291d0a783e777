"""One writer at a time among the processes that share an SQLite file."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rebrain_node.errors import StoreUnavailableError

#: pauses between two tries, s: other writers hold the lock for some milliseconds
_FIRST_PAUSE_S: Final = 0.001
_LONGEST_PAUSE_S: Final = 0.025


class WriterLock:
    """A lock on a file of its own; the kernel frees it when its process ends, however it ends."""

    def __init__(self, database: Path) -> None:
        """Open the file beside the database; a new one has its owner, and mode 0600.

        Raises
        ------
        StoreUnavailableError
            The file cannot be made or opened.
        """
        self._database = database
        self._path = database.with_name(f"{database.name}-writer")
        self._descriptor = self._opened()

    @contextmanager
    def held(self, longest_wait_s: float) -> Iterator[None]:
        """Hold the lock until the block ends; one thread of this process at a time.

        Raises
        ------
        StoreUnavailableError
            Another process holds it all the time, or the file system has no locks.
        """
        self._take(longest_wait_s)
        try:
            yield
        finally:
            self._give_back()

    def _take(self, longest_wait_s: float) -> None:
        if self._descriptor < 0:
            self._descriptor = self._opened()
        deadline, pause_s = time.monotonic() + longest_wait_s, _FIRST_PAUSE_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StoreUnavailableError(
                        f"the database stayed locked for {longest_wait_s:g} s: another process "
                        f"of the node holds {self._path}; see with `rebrain-node status` whether "
                        "one of them hangs"
                    ) from None
            except OSError as error:
                raise StoreUnavailableError(
                    f"{self._path}: {error.strerror}; keep storage.folder on a local disk"
                ) from error
            else:
                return
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _give_back(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        except OSError:  # what was written is durable; the kernel frees the lock with the file
            self.close()

    def _opened(self) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if os.geteuid() == 0:  # so that a command of root does not shut the node out
                owner = self._database.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
        except OSError as error:
            raise StoreUnavailableError(
                f"{self._path}: {error.strerror}; check owner and mode"
            ) from error
        return descriptor

    def close(self) -> None:
        """Close the file; the next writer opens it again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
