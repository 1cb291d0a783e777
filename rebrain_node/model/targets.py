"""Where the slices of the synthetic volume lie, and which measured slices bracket each."""

from __future__ import annotations

import numpy as np

from rebrain_node.domain.volume import MillimetreArray, Target
from rebrain_node.model.source import SAME_POSITION_MM


def targets_of(distances_mm: MillimetreArray, spacing_mm: float) -> tuple[Target, ...]:
    """Place uniform targets along the normal and name the measured slices around each.

    The spacing near the recipe's is chosen that meets the most measured slices: with equal gaps
    all of them, with two thicknesses those of the larger part, otherwise the whole extent is
    divided evenly. A target within 0.05 mm of a measured slice is that slice.

    Parameters
    ----------
    distances_mm : MillimetreArray
        (n,) of the measured slices, rising from 0.
    spacing_mm : float
        The recipe's spacing.
    """
    extent, gaps = float(distances_mm[-1]), np.diff(distances_mm)
    lengths = [extent / len(gaps)]
    if np.ptp(gaps) > SAME_POSITION_MM:
        lengths = [extent, *lengths, *np.unique(gaps)]
    spacings = [float(length / max(1, round(length / spacing_mm))) for length in lengths]
    near = [s for s in spacings if 0.75 * spacing_mm <= s <= 1.25 * spacing_mm] or spacings[:1]
    best = max(near, key=lambda spacing: _met(distances_mm, spacing))
    count = int(np.floor((extent + SAME_POSITION_MM) / best)) + 1
    return tuple(_target(distances_mm, k * best) for k in range(count))


def _met(distances_mm: MillimetreArray, spacing_mm: float) -> int:
    """How many measured slices a uniform spacing meets."""
    off = np.abs(distances_mm - np.rint(distances_mm / spacing_mm) * spacing_mm)
    return int((off <= SAME_POSITION_MM).sum())


def _target(distances_mm: MillimetreArray, distance_mm: float) -> Target:
    nearest = int(np.abs(distances_mm - distance_mm).argmin())
    if abs(distances_mm[nearest] - distance_mm) <= SAME_POSITION_MM:
        return Target(distance_mm=distance_mm, below=nearest, above=nearest, alpha=0.0)
    above = int(np.searchsorted(distances_mm, distance_mm))
    gap = distances_mm[above] - distances_mm[above - 1]
    alpha = float((distance_mm - distances_mm[above - 1]) / gap)
    return Target(distance_mm=distance_mm, below=above - 1, above=above, alpha=alpha)
