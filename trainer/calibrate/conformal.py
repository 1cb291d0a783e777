"""Widths of intervals, with one person as one observation (model.md section 4).

    lambda = inf{ lambda : n/(n+1) miss(lambda) + 1/(n+1) <= alpha }

where miss(lambda) is the mean over n people of the share of a person's voxels whose residual is
larger than lambda scales. A new person, exchangeable with these, then has in the mean at most the
share alpha outside (Angelopoulos et al., Conformal Risk Control, 2022, theorem 1 with B = 1).
"""

import math
from collections.abc import Sequence

import numpy as np

from rebrain_node.domain.volume import FloatArray, SliceKind
from rebrain_node.model.calibration import Width

#: of an interval that no residual was ever held against, in scales: a Laplace density's for 99 %
UNMET = 4.6
_ROUNDING = 1e-9


def conformal(scores: Sequence[FloatArray], alpha: float) -> float:
    """Return lambda; infinite where n < 1/alpha - 1.

    Parameters
    ----------
    scores : sequence of FloatArray
        Of each person: |residual| over scale of every voxel, any shape.
    alpha : float
        Share that may lie outside.
    """
    people = len(scores)
    allowed = (alpha * (people + 1) - 1.0) / people  # of miss, from the formula above
    return _least(scores, allowed) if allowed > -_ROUNDING else math.inf


def plain(scores: Sequence[FloatArray], alpha: float) -> float:
    """Return the pooled quantile: each person counts alike, nothing is added for a new one."""
    return _least(scores, alpha)


def _least(scores: Sequence[FloatArray], allowed: float) -> float:
    """Return the least lambda at which the mean share of larger scores is at most `allowed`."""
    people = len(scores)
    values = np.concatenate([np.ravel(each) for each in scores]).astype(np.float64)
    weights = np.concatenate([np.full(each.size, 1.0 / (each.size * people)) for each in scores])
    order = np.argsort(-values)
    values = values[order]
    above = np.concatenate([[0.0], np.cumsum(weights[order])])
    larger = above[np.searchsorted(-values, -values)]  # the share of strictly larger scores
    return float(values[larger <= allowed + _ROUNDING][-1])


def width(scores: Sequence[FloatArray], alpha: float) -> Width:
    """Return how wide the intervals of one kind of slice are."""
    if not scores:
        return Width(scales=UNMET, people=0, conformal=False)
    found = conformal(scores, alpha)
    if math.isfinite(found):
        return Width(scales=max(found, 1e-6), people=len(scores), conformal=True)
    return Width(scales=max(plain(scores, alpha), 1e-6), people=len(scores), conformal=False)


def widths(scores: dict[SliceKind, list[FloatArray]], alpha: float) -> dict[SliceKind, Width]:
    """Return the widths of every kind of slice."""
    return {kind: width(each, alpha) for kind, each in scores.items()}
