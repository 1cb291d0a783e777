"""Directions: what the encoder gives for a slice; two are alike as far as they agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Direction = NDArray[np.float32]

_PARALLEL = 1e-3  # rad; below this the great circle is a line to within rounding


def between(below: Direction, above: Direction, alpha: float) -> Direction | None:
    """Go along the great circle from one direction to another.

    Parameters
    ----------
    below, above : ndarray
        (d,), of any length but 0.
    alpha : float
        0 at `below`, 1 at `above`.

    Returns
    -------
    ndarray or None
        (d,), of length 1; None where either is no direction, or the two are opposite: every
        way from one to the other is then as good.
    """
    ends = [_of_length_one(end) for end in (below, above)]
    if ends[0] is None or ends[1] is None:
        return None
    theta = float(np.arccos(np.clip(ends[0] @ ends[1], -1, 1)))
    if theta > np.pi - _PARALLEL:
        return None
    if theta < _PARALLEL:
        mixed = (1 - alpha) * ends[0] + alpha * ends[1]
    else:
        mixed = np.sin((1 - alpha) * theta) * ends[0] + np.sin(alpha * theta) * ends[1]
    return np.asarray(mixed / np.linalg.norm(mixed), dtype=np.float32)


def _of_length_one(direction: Direction) -> NDArray[np.float64] | None:
    exact = direction.astype(np.float64)
    length = float(np.linalg.norm(exact))
    return exact / length if np.isfinite(length) and length > 0 else None
