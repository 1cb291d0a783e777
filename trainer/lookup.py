"""The baseline of every table: one T1 brightness per CT brightness, and a constant."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.metrics import Image

_LEVELS = 256


@dataclass(frozen=True)
class Lookup:
    """Mean T1 (0 to 1) per brightness of the brain window, and over the head as a whole."""

    table: NDArray[np.float32]
    mean: float

    def of(self, source: Image) -> Image:
        """Map a source slice in [-1, 1] through the table."""
        return self.table[_level(source)]


def _level(source: Image) -> NDArray[np.int64]:
    return np.asarray(np.clip(np.rint((source + 1) * 127.5), 0, _LEVELS - 1), dtype=np.int64)


def fit_lookup(sources: Image, truth: Image, weights: Image) -> Lookup:
    """Fit the table; `sources` in [-1, 1], `truth` in [0, 1], `weights` >= 0, all one shape."""
    level = _level(sources).ravel()
    counts = np.bincount(level, weights.ravel(), _LEVELS)
    sums = np.bincount(level, (truth * weights).ravel(), _LEVELS)
    mean = float(sums.sum() / counts.sum())
    table = np.where(counts > 0, sums / np.maximum(counts, 1e-6), mean)
    return Lookup(table.astype(np.float32), mean)
