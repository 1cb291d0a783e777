"""Counts how long the receiver listens, while it listens."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from rebrain_node.errors import StoreUnavailableError

#: pause between two readings, s
BEAT_S: Final = 0.5
#: longest pause that counts as listening, s; after a longer one the process stood still
LONGEST_BEAT_S: Final = 5.0

_LOG = logging.getLogger(__name__)


class Clock(Protocol):
    """What is counted into."""

    def begin(self) -> None:
        """Count a start of the receiver."""

    def add(self, seconds: float) -> None:
        """Add to how long the receiver has listened."""


def count_listening(
    clock: Clock, waits: Callable[[], bool], stop: threading.Event, beat_s: float = BEAT_S
) -> None:
    """Count until ``stop`` is set; nothing is written while no study ``waits`` in reception.

    What cannot be written does not count: without a database the receiver takes nothing.
    """
    last = time.monotonic()
    while not stop.wait(beat_s):
        now = time.monotonic()
        try:
            if waits():
                clock.add(min(now - last, LONGEST_BEAT_S))
        except StoreUnavailableError as error:
            _LOG.warning("listening is not counted: %s", error)
        last = now
