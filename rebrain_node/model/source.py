"""From measured CT slices to the input of one network evaluation.

The only implementation: the node calls it for every position, the trainer for every sample.
Images are (rows, columns) float32, rows anterior to posterior, columns right to left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebrain_node.model.recipe import Image, Recipe

_PARALLEL = 1e-3  # rad; below this SLERP is a linear blend to within rounding
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
    """What the network is told about one position, besides the state of the bridge.

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


def slerp(below: Image, above: Image, alpha: float) -> Image:
    """Interpolate between two images on the sphere, keeping brightness.

    Directions are interpolated along the great circle and lengths linearly. Equation 15 of the
    paper as printed brightens by 1/cos(theta/2); in [-1, 1] the background would rule the angle,
    so the images are taken on [0, 1] with air = 0.

    Parameters
    ----------
    below, above : Image
        (rows, columns) in [-1, 1].
    alpha : float
        0 at `below`, 1 at `above`.

    Returns
    -------
    Image
        (rows, columns) in [-1, 1].
    """
    a = (below.astype(np.float64) + 1) / 2
    b = (above.astype(np.float64) + 1) / 2
    length_a, length_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    theta = 0.0
    if length_a > 0 and length_b > 0:
        theta = float(np.arccos(np.clip((a * b).sum() / (length_a * length_b), -1, 1)))
    if theta < _PARALLEL:
        blend = (1 - alpha) * a + alpha * b
    else:
        length = (1 - alpha) * length_a + alpha * length_b
        towards_a = np.sin((1 - alpha) * theta) / length_a
        towards_b = np.sin(alpha * theta) / length_b
        blend = length * (towards_a * a + towards_b * b) / np.sin(theta)
    return (np.clip(blend, 0, 1) * 2 - 1).astype(np.float32)


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
    """Condition on the SLERP of two measured slices at a missing position between them."""
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
    positions = np.array([piece.position_mm for piece in slices])
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
    conditioning: Conditioning, state: Image, place: float
) -> tuple[Image, NDArray[np.float32]]:
    """Assemble the input of one evaluation.

    Parameters
    ----------
    conditioning : Conditioning
        Of the position.
    state : Image
        x_m, (rows, columns).
    place : float
        m, 0 (MR) to 1 (CT).

    Returns
    -------
    x : Image
        (1, 5, rows, columns), channels as in `recipe.CHANNELS`.
    s : ndarray
        (1, 4) float32, scalars as in `recipe.SCALARS`.
    """
    x = np.concatenate([state[None], conditioning.channels])[None].astype(np.float32, copy=False)
    return x, np.array([[place, *conditioning.distances_mm]], dtype=np.float32)
