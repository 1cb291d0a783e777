"""The baseline of every table: one T1 brightness per source brightness, and a constant."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
_LEVELS = 256


@dataclass(frozen=True)
class Lookup:
    """Mean T1 (0 to 1) per brightness of the source, and over the head as a whole."""

    table: NDArray[np.float32]
    mean: float

    def of(self, source: Image) -> Image:
        """Map a source in [-1, 1] through the table."""
        return self.table[_level(source)]


@dataclass(frozen=True)
class Tally:
    """Weights and weighted sums of T1 per brightness; tallies of subjects add up."""

    weights: NDArray[np.float64]
    sums: NDArray[np.float64]

    @classmethod
    def of(cls, sources: Image, truth: Image, weights: Image) -> "Tally":
        """Count; `sources` in [-1, 1], `truth` in [0, 1], `weights` >= 0, all one shape."""
        level = _level(sources).ravel()
        return cls(
            np.bincount(level, weights.ravel(), _LEVELS).astype(np.float64),
            np.bincount(level, (truth * weights).ravel(), _LEVELS).astype(np.float64),
        )

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.weights + other.weights, self.sums + other.sums)

    def lookup(self) -> Lookup:
        """Return the table; a brightness that was never seen gets the mean."""
        mean = float(self.sums.sum() / self.weights.sum())
        table = np.where(self.weights > 0, self.sums / np.maximum(self.weights, 1e-6), mean)
        return Lookup(table.astype(np.float32), mean)


def _level(source: Image) -> NDArray[np.int64]:
    return np.asarray(np.clip(np.rint((source + 1) * 127.5), 0, _LEVELS - 1), dtype=np.int64)
