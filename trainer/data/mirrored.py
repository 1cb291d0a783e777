"""Finds out whether one volume of a pair lies mirrored against the other.

Headers are sometimes wrong. Two images of one head share most information as they lie; where they
share clearly more after one of them is mirrored, its header is not to be trusted.
"""

import numpy as np
from numpy.typing import NDArray

from trainer.data.dataset import Volume

#: mirrored must be better by this factor; symmetric phantoms and noise stay far below
_CLEARLY = 1.15
_BINS = 24
_ACROSS = 48  # voxels looked at along each axis
_AXES = {"slices": 0, "rows": 1, "columns": 2}


def shared_information(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return the mutual information of two arrays of one shape, nats, by ranks in 24 bins.

    Every value takes the bin of its rank, so neither contrast nor outliers matter; the largest
    plateau (air) falls into one bin.
    """
    counts, _, _ = np.histogram2d(_binned(first), _binned(second), bins=_BINS)
    joint = counts / counts.sum()
    alone = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / alone[seen])).sum())


def _binned(values: NDArray[np.float32]) -> NDArray[np.float64]:
    flat = values.ravel()
    edges = np.unique(np.quantile(flat, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.searchsorted(edges, flat, side="right").astype(np.float64)


def mirrored_axis(source: Volume, target: Volume) -> str | None:
    """Return "slices", "rows" or "columns" where mirroring the target along it fits better."""
    steps = tuple(slice(None, None, max(1, n // _ACROSS)) for n in source.shape)
    first, second = source[steps], target[steps]
    as_is = shared_information(first, second)
    mirrored = {name: shared_information(first, np.flip(second, a)) for name, a in _AXES.items()}
    best = max(mirrored, key=lambda name: mirrored[name])
    return best if mirrored[best] > _CLEARLY * as_is else None
