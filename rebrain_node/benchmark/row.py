"""One row of the benchmark: the node beside a peer, or beside a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Literal


class BenchmarkTask(StrEnum):
    """What can be measured, in the order in which it is."""

    HELP = "help"
    ENGINE = "engine"
    RETRIEVAL = "retrieval"
    RECEIVE = "receive"
    VOLUME = "volume"


@dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """Medians of one run; a ratio means more than a time, because machines are shared."""

    what: str
    unit: str
    ours: float
    peer: str  #: beside which it was measured; ``limit`` where there is none
    theirs: float | None  #: None: the peer was skipped
    wanted: float | None = None  #: of the ratio; None: nothing is promised
    better: Literal["larger", "smaller"] = "smaller"
    skipped: str = ""  #: why the peer was not measured

    @property
    def ratio(self) -> float | None:
        """What the node takes divided by what the peer takes; None without a peer."""
        return self.ours / self.theirs if self.theirs else None

    @property
    def reached(self) -> bool | None:
        """Whether the ratio is as wanted; None where it is not known or nothing is wanted."""
        if self.ratio is None or self.wanted is None:
            return None
        return self.ratio >= self.wanted if self.better == "larger" else self.ratio <= self.wanted

    def to_json(self) -> dict[str, object]:
        """Return the row with its ratio, rounded."""
        ratio = None if self.ratio is None else round(self.ratio, 3)
        return {"ratio": ratio, "reached": self.reached, **asdict(self)}


#: told what is measured now
Progress = Callable[[str], object]
Rows = Sequence[BenchmarkRow]
