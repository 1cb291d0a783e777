"""A process among those of all machines: its signs of life, what it takes over, and its duties.

With SQLite the supervisor of the one machine watches its processes, and nothing is counted here.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from rebrain_node.domain.executor import BEAT_S, Duty, SilenceTracker
from rebrain_node.errors import SettingsError, StoreUnavailableError
from rebrain_node.settings import Settings
from rebrain_node.store.executors import Executors
from rebrain_node.store.fence import FenceCheck
from rebrain_node.worker.work import reason_of

if TYPE_CHECKING:
    from rebrain_node.app.compose import State

#: exit code of a process whose work was taken over; the supervisor starts it again
TAKEN_OVER_EXIT_CODE: Final = 3
#: another supervisor that uses the name of this machine gives a sign of life within, s
_NAME_CHECK_S: Final = 3 * BEAT_S
_LOG = structlog.get_logger("membership")


def machine_of(settings: Settings) -> str:
    """Name of this machine among those that share the database."""
    return settings.machine or socket.gethostname()


@dataclass
class ProcessMembership:
    """One process that has joined."""

    executors: Executors
    name: str
    token: str
    #: set before it leaves in order: that its token is gone means nothing then
    has_left: threading.Event = field(default_factory=threading.Event)
    _tracker: SilenceTracker = field(default_factory=SilenceTracker)

    @property
    def executor_id(self) -> str:
        """Name of this start for the workflow engine."""
        return f"{self.name}:{self.token}"

    def living(self) -> list[str]:
        """Executor ids of all processes whose work was not taken over."""
        return [f"{each.name}:{each.token}" for each in self.executors.all() if not each.is_fenced]

    def beat(self, now_s: float) -> None:
        """Give a sign of life, and take over from those that have given none for too long.

        Ends the process where its own work was taken over.

        Parameters
        ----------
        now_s : float
            On the monotonic clock, s.

        Raises
        ------
        StoreUnavailableError
            The database cannot be used now.
        """
        if not self.executors.beat(self.token) and not self.has_left.is_set():
            self.end()
        for silent in self._tracker.silent(self.executors.all(), now_s):
            if silent.token != self.token and self.executors.take_over(silent, self.name):
                _LOG.warning("taken over", process=silent.name, silent_s=round(silent.silent_s, 1))

    def end(self) -> NoReturn:
        """End this process at once: others do its work, and nothing of it may be written twice."""
        _LOG.critical("the work of this process was taken over: it ends", process=self.name)
        os._exit(TAKEN_OVER_EXIT_CODE)

    def run(self, stop: threading.Event) -> None:
        """Beat until ``stop``, or until this process has left in order."""
        while not stop.wait(BEAT_S) and not self.has_left.is_set():
            try:
                self.beat(time.monotonic())
            except StoreUnavailableError as error:
                _LOG.warning("store unavailable", reason=str(error))


@dataclass
class DutyLoop:
    """Waits until a duty is free, then does it until the process ends."""

    duty: Duty
    member: ProcessMembership
    begin: Callable[[threading.Event], Sequence[threading.Thread]]  #: starts what it consists of
    _threads: Sequence[threading.Thread] = ()
    _failed: bool = False

    @property
    def works(self) -> bool:
        """Whether everything that was begun goes on; the process must end where it does not."""
        return not self._failed and all(thread.is_alive() for thread in self._threads)

    def try_to_begin(self, stop: threading.Event) -> bool:
        """Take the duty and begin, if nobody who lives has it; whether this process has it."""
        if not self.member.executors.take_duty(self.duty, self.member.token):
            return False
        self._threads = self.begin(stop)
        _LOG.info("has duty", duty=self.duty, process=self.member.name)
        return True

    def start(self, stop: threading.Event) -> None:
        """Begin now, or in a thread once the duty is free."""
        if not self.try_to_begin(stop):
            threading.Thread(target=self._wait, args=(stop,), daemon=True, name=self.duty).start()

    def _wait(self, stop: threading.Event) -> None:
        while not stop.wait(BEAT_S):
            try:
                if self.try_to_begin(stop):
                    return
            except StoreUnavailableError as error:
                _LOG.warning("store unavailable", reason=str(error))
            except Exception as error:  # noqa: BLE001 - nobody else could take the duty meanwhile
                _LOG.critical("duty cannot begin", duty=self.duty, reason=reason_of(error))
                self._failed = True
                return


@contextmanager
def joined(
    settings: Settings, state: State, process: str, run: str, stop: threading.Event
) -> Iterator[ProcessMembership]:
    """Be among the processes of all machines until the block ends in order.

    Parameters
    ----------
    process
        ``receiver``, ``worker-1``, ... or ``delivery``.
    run
        Drawn by the supervisor at its start.
    stop
        Ends the signs of life.

    Raises
    ------
    SettingsError
        The name of this machine is in use by another one.
    """
    machine, shared = machine_of(settings), state.database.is_shared
    if shared:
        _require_own_name(state.executors, machine, run)
    token = state.executors.join(machine, process, run, os.getpid())
    member = ProcessMembership(executors=state.executors, name=f"{machine}/{process}", token=token)
    if shared:
        state.database.fence = FenceCheck(token, member.end)
        threading.Thread(target=member.run, args=(stop,), daemon=True, name="beat").start()
    yield member
    member.has_left.set()
    with suppress(StoreUnavailableError):  # others take over after a while
        state.executors.leave(token)


def _require_own_name(executors: Executors, machine: str, run: str) -> None:
    """Refuse the name of a machine whose processes give signs of life and are not ours.

    Raises
    ------
    SettingsError
        There is such a process.
    """

    def others() -> dict[str, int]:
        return {
            each.token: each.beats
            for each in executors.all()
            if each.machine == machine and each.run != run and each.silent_s < _NAME_CHECK_S
        }

    before = others()
    if not before:
        return
    time.sleep(_NAME_CHECK_S)
    after = others()
    if any(after.get(token, beats) != beats for token, beats in before.items()):
        raise SettingsError(
            f"another machine that shares the database is called {machine!r}, and its processes "
            "live; give each machine its own name (setting `machine`)"
        )
