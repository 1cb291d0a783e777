"""The processes of all machines that share one database, and when one of them counts as dead.

A process counts its signs of life in the database. Others watch the count on their own monotonic
clock, so that no clock of a machine or of the database is compared with another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

#: pause between two signs of life of a process, s
BEAT_S: Final = 2.0
#: after so long without one its work is taken over, s
SILENT_S: Final = 15.0
#: who has not looked for so long has not watched the others meanwhile, s
LONGEST_LOOK_S: Final = 6.0

#: what one process of all machines does at a time
Duty = Literal["listening", "judging", "delivery"]
DUTIES: Final[tuple[Duty, ...]] = ("listening", "judging", "delivery")


@dataclass(frozen=True, kw_only=True)
class ExecutorRecord:
    """One process of one machine as the database knows it.

    Attributes
    ----------
    token : str
        Drawn at each start; what the process writes is refused once its token is not in force.
    run : str
        Drawn by the supervisor at each start.
    beats : int
        Signs of life since the start.
    silent_s : float
        Since the last one, by the clock of the database.
    is_fenced : bool
        Whether its work was taken over.
    duties : tuple of str
        What it does for all machines.
    """

    machine: str
    process: str  #: ``receiver``, ``worker-1``, ..., ``delivery``
    token: str
    run: str
    pid: int
    beats: int
    silent_s: float
    is_fenced: bool = False
    duties: tuple[Duty, ...] = ()

    @property
    def name(self) -> str:
        """Machine and process, for tables and the audit log."""
        return f"{self.machine}/{self.process}"

    @property
    def state(self) -> Literal["runs", "no answer", "taken over"]:
        """Whether it lives, as far as is known."""
        if self.is_fenced:
            return "taken over"
        return "no answer" if self.silent_s > SILENT_S else "runs"


@dataclass
class SilenceTracker:
    """What one process has seen of the signs of life of all others."""

    _since: dict[str, tuple[int, float]] = field(default_factory=dict)  #: beats, seen at, by token
    _looked_s: float | None = None

    def silent(self, records: Iterable[ExecutorRecord], now_s: float) -> list[ExecutorRecord]:
        """Return those that have given no sign of life for `SILENT_S` while this process watched.

        Parameters
        ----------
        now_s : float
            On the monotonic clock of this process, s.
        """
        if self._looked_s is None or now_s - self._looked_s > LONGEST_LOOK_S:
            self._since = {}  # this process, or the database, stood still
        self._looked_s = now_s
        before, self._since = self._since, {}
        silent = []
        for record in records:
            if record.is_fenced:
                continue
            beats, since_s = before.get(record.token, (-1, now_s))
            if beats != record.beats:
                since_s = now_s
            self._since[record.token] = (record.beats, since_s)
            if now_s - since_s >= SILENT_S:
                silent.append(record)
        return silent
