"""How often a remote is tried: the pauses of one thing to send, and a circuit breaker for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rebrain_node.worker.workflow import pause_s

#: failures in a row after which the breaker opens
OPENS_AFTER: Final = 5
#: longest pause between two attempts, s
LONGEST_TRIAL_PAUSE_S: Final = 300.0


@dataclass
class AttemptPause:
    """Attempts for one thing that failed in a row, and when the next one is due."""

    failures: int = 0
    due_s: float = 0.0  #: monotonic

    def fail(self, now_s: float, key: str) -> None:
        """Count a failure; ``key`` is of the jitter of the pause."""
        self.failures += 1
        self.due_s = now_s + pause_s(self.failures, key)


@dataclass
class DestinationBreaker:
    """Closed while attempts succeed; open after ``OPENS_AFTER`` failures in a row.

    One attempt follows each pause; pauses double from 1 s to ``LONGEST_TRIAL_PAUSE_S``, so that a
    destination that returns is noticed within the time it was away. While the breaker is open, the
    attempt is a trial (half-open): its success closes the breaker, its failure prolongs the pause.
    Times are of a monotonic clock, s.
    """

    key: str  #: of the jitter of the pauses
    failures: int = 0  #: in a row
    due_s: float = 0.0  #: when the next attempt is due
    failed_since_s: float = 0.0  #: the first failure of the row

    @property
    def is_open(self) -> bool:
        """Whether only trials are made."""
        return self.failures >= OPENS_AFTER

    def allows(self, now_s: float) -> bool:
        """Whether an attempt is due."""
        return now_s >= self.due_s

    def fail(self, now_s: float) -> bool:
        """Count a failure; whether the breaker opens by it."""
        if not self.failures:
            self.failed_since_s = now_s
        self.failures += 1
        self.due_s = now_s + pause_s(self.failures, self.key, LONGEST_TRIAL_PAUSE_S)
        return self.failures == OPENS_AFTER

    def succeed(self) -> None:
        """Close the breaker."""
        self.failures, self.due_s = 0, 0.0
