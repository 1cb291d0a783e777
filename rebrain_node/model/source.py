"""From measured CT slices to the target positions and to the input of one network evaluation.

The only implementation: the node calls it for every target, the trainer for every sample.
Images are (rows, columns) float32, rows anterior to posterior, columns right to left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebrain_node.domain.volume import MillimetreArray, Target
from rebrain_node.model.recipe import Image, Recipe
from rebrain_node.model.slerp import slerp

#: a target this near to a measured slice is that slice
SAME_POSITION_MM = 0.05


@dataclass(frozen=True)
class SourceSlice:
    """One measured CT slice on the model grid.

    Attributes
    ----------
    brain, wide : Image
        (rows, columns) in [-1, 1]. `wide` is -1 everywhere when the wide window is unknown.
    position_mm : float
        Along the slice normal, rising from inferior to superior.
    """

    brain: Image
    wide: Image
    position_mm: float


@dataclass(frozen=True)
class Conditioning:
    """The network's input for one position, besides the state of the bridge.

    Attributes
    ----------
    channels : Image
        (4, rows, columns): source in the brain window, source in the wide window, measured slice
        below (inferior) and above in the brain window. A neighbour that does not exist is the
        source itself.
    distances_mm : tuple of float
        To the slice below, to the slice above (0 for none), and to the nearest measured slice.
    """

    channels: Image
    distances_mm: tuple[float, float, float]

    @property
    def source(self) -> Image:
        """Return the end of the bridge y, (rows, columns)."""
        return np.asarray(self.channels[0])


def windowed(hu: NDArray[np.floating], position_mm: float, recipe: Recipe) -> SourceSlice:
    """Apply both windows of the recipe to one slice in HU, (rows, columns)."""
    return SourceSlice(recipe.brain_window.apply(hu), recipe.wide_window.apply(hu), position_mm)


def at_measured(
    source: SourceSlice, below: SourceSlice | None = None, above: SourceSlice | None = None
) -> Conditioning:
    """Condition on a measured slice and, where they exist, its measured neighbours."""
    channels = np.stack(
        [
            source.brain,
            source.wide,
            source.brain if below is None else below.brain,
            source.brain if above is None else above.brain,
        ]
    )
    below_mm = 0.0 if below is None else source.position_mm - below.position_mm
    above_mm = 0.0 if above is None else above.position_mm - source.position_mm
    return Conditioning(channels, (below_mm, above_mm, 0.0))


def between(below: SourceSlice, above: SourceSlice, target_mm: float) -> Conditioning:
    """Condition on the SLERP of two measured slices at a position between them."""
    below_mm, above_mm = target_mm - below.position_mm, above.position_mm - target_mm
    alpha = below_mm / (below_mm + above_mm)
    channels = np.stack(
        [
            slerp(below.brain, above.brain, alpha),
            slerp(below.wide, above.wide, alpha),
            below.brain,
            above.brain,
        ]
    )
    return Conditioning(channels, (below_mm, above_mm, min(below_mm, above_mm)))


def conditioning_at(slices: Sequence[SourceSlice], target_mm: float) -> Conditioning:
    """Condition on a stack of measured slices at any position within it.

    Parameters
    ----------
    slices : sequence of SourceSlice
        In rising order of position.
    target_mm : float
        A target within `SAME_POSITION_MM` of a measured slice is that slice.

    Raises
    ------
    ValueError
        The target lies outside the stack: there is nothing to interpolate.
    """
    positions = np.array([each.position_mm for each in slices])
    nearest = int(np.argmin(np.abs(positions - target_mm)))
    if abs(positions[nearest] - target_mm) <= SAME_POSITION_MM:
        below = slices[nearest - 1] if nearest > 0 else None
        above = slices[nearest + 1] if nearest + 1 < len(slices) else None
        return at_measured(slices[nearest], below, above)
    upper = int(np.searchsorted(positions, target_mm))
    if upper == 0 or upper == len(slices):
        raise ValueError(
            f"position {target_mm:.2f} mm lies outside the measured slices "
            f"({positions[0]:.2f} to {positions[-1]:.2f} mm)"
        )
    return between(slices[upper - 1], slices[upper], target_mm)


def stack_channels(
    conditioning: Conditioning, state: Image, time_step: float
) -> tuple[Image, NDArray[np.float32]]:
    """Assemble the input of one evaluation.

    Parameters
    ----------
    conditioning : Conditioning
        Of the position.
    state : Image
        x_m, (rows, columns).
    time_step : float
        m, 0 (MR) to 1 (CT).

    Returns
    -------
    x : Image
        (1, 5, rows, columns), channels as in `recipe.CHANNELS`.
    s : ndarray
        (1, 4) float32, scalars as in `recipe.SCALARS`.
    """
    x = np.concatenate([state[None], conditioning.channels])[None].astype(np.float32, copy=False)
    return x, np.array([[time_step, *conditioning.distances_mm]], dtype=np.float32)


def targets_of(distances_mm: MillimetreArray, spacing_mm: float) -> tuple[Target, ...]:
    """Place uniform targets along the normal and name the measured slices around each.

    Of the spacings near the recipe's, the one with the most measured slices on its targets is
    chosen: with equal gaps all of them, with two thicknesses those of the larger part, otherwise
    the whole extent is divided evenly. A target within `SAME_POSITION_MM` of a measured slice is
    that slice.

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
    best = max(near, key=lambda spacing: _measured_targets(distances_mm, spacing))
    count = int(np.floor((extent + SAME_POSITION_MM) / best)) + 1
    return tuple(_target(distances_mm, k * best) for k in range(count))


def _measured_targets(distances_mm: MillimetreArray, spacing_mm: float) -> int:
    """How many measured slices lie on a target at a uniform spacing."""
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
