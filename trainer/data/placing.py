"""Putting slices of a data set on the model grid, and bringing what was drawn back.

The seam between data and network: everything about grids, stretching, turning and averaging over
several placings happens here. `placements` says how often and where a subject's slices are put on
the grid; predictions are averaged over what it returns.

Where the pixel size is known, slices are resampled by the node's own interpolation and the head
is centred on the grid, as the node does. Where it is unknown (2-D pairs: every slice cropped to
its own box and stretched to a square) a slice is stretched to a frame of plausible aspect.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from rebrain_node.model.recipe import Grid, Image, Recipe
from rebrain_node.model.resample import axis_weights

Mask = NDArray[np.bool_]

# A stretched head is drawn in frames of these shares of the grid's rows, which span the sizes that
# training stretches heads to; columns by a head's aspect.
FRAME_SHARES = (0.875, 0.8, 0.95)
ASPECT = 0.8167


class Placement(Protocol):
    """One way to put the slices of a subject on the model grid."""

    def onto(self, plane: Image, outside: float) -> Image:
        """Put a slice, (rows, columns) of the data set, on the grid; beyond it lies `outside`."""

    def back(self, drawn: Image, outside: float) -> Image:
        """Bring a slice of the grid back to the pixels of the data set."""


@dataclass(frozen=True)
class MillimetrePlacement:
    """Slices of known pixel size, their head centred on the grid.

    The first pixel of the grid lies a whole number of the data set's pixels away, so that data of
    the grid's own pixel size go through unblurred.

    Attributes
    ----------
    shape : tuple of int
        (rows, columns) of the data set.
    pixel_mm : tuple of float
        Between its rows, between its columns.
    centre : tuple of float
        Row and column, in pixels of the data set, that comes to lie in the middle of the grid.
    """

    grid: Grid
    shape: tuple[int, int]
    pixel_mm: tuple[float, float]
    centre: tuple[float, float]

    def onto(self, plane: Image, outside: float) -> Image:
        """Resample linearly; where the grid is coarser, pixels are averaged."""
        down, across = (self._weights(axis, back=False) for axis in (0, 1))
        return _resampled(plane, down, across, outside)

    def back(self, drawn: Image, outside: float) -> Image:
        """Resample linearly; where the data set is coarser, pixels are averaged."""
        down, across = (self._weights(axis, back=True) for axis in (0, 1))
        return _resampled(drawn, down, across, outside)

    def _weights(self, axis: int, *, back: bool) -> Image:
        spacing, step = self.pixel_mm[axis], self.grid.pixel_mm
        middle = (self.grid.shape[axis] - 1) / 2
        # mm from the first pixel of the data set to the first pixel of the grid
        start = round(self.centre[axis] - middle * step / spacing) * spacing
        inner, outer = self.shape[axis], self.grid.shape[axis]
        if back:
            return axis_weights((inner, outer), start_mm=-start, step_mm=spacing, spacing_mm=step)
        return axis_weights((outer, inner), start_mm=start, step_mm=step, spacing_mm=spacing)


def _resampled(plane: Image, down: Image, across: Image, outside: float) -> Image:
    offset = np.float32(outside)
    return np.asarray(down @ (plane - offset) @ across.T + offset, dtype=np.float32)


@dataclass(frozen=True)
class StretchedPlacement:
    """Slices that were cropped and stretched to a square, stretched to a frame of the grid.

    Attributes
    ----------
    frame : tuple of int
        Rows and columns of the grid that the slice is given, in its middle.
    turn : {1, -1}
        -1 draws the mirror image.
    """

    grid: Grid
    shape: tuple[int, int]
    frame: tuple[int, int]
    turn: Literal[1, -1] = 1

    def onto(self, plane: Image, outside: float) -> Image:
        """Stretch a slice into the frame."""
        drawn = np.full(self.grid.shape, outside, np.float32)
        drawn[self._window()] = _stretched(plane, self.frame)[:, :: self.turn]
        return drawn

    def back(self, drawn: Image, outside: float) -> Image:  # noqa: ARG002 -- the frame is the slice
        """Stretch the frame back to the square."""
        return _stretched(drawn[self._window()][:, :: self.turn], self.shape)

    def _window(self) -> tuple[slice, slice]:
        top, left = (
            (size - part) // 2 for size, part in zip(self.grid.shape, self.frame, strict=True)
        )
        return slice(top, top + self.frame[0]), slice(left, left + self.frame[1])


def _stretched(image: Image, shape: tuple[int, int]) -> Image:
    plane = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    sized = functional.interpolate(plane, size=shape, mode="bilinear", antialias=True)
    return np.asarray(sized[0, 0].numpy(), dtype=np.float32)


def placements(
    head: Mask, pixel_mm: tuple[float, float] | None, recipe: Recipe
) -> tuple[Placement, ...]:
    """Say where a subject is put on the grid of a recipe; predictions are averaged over these.

    Parameters
    ----------
    head : Mask
        (slice, row, column), the head in the slices given.
    pixel_mm : tuple of float or None
        Between rows, between columns; None where unknown.
    recipe : Recipe
        Of the network.
    """
    grid = recipe.grid
    shape = (head.shape[1], head.shape[2])
    if pixel_mm is None:
        heights = [round(share * grid.rows) for share in FRAME_SHARES]
        frames = [(rows, min(grid.columns, round(ASPECT * rows))) for rows in heights]
        both: tuple[Literal[1, -1], ...] = (1, -1)
        return tuple(
            StretchedPlacement(grid, shape, frame, turn) for frame in frames for turn in both
        )
    down, across = np.flatnonzero(head.any(axis=(0, 2))), np.flatnonzero(head.any(axis=(0, 1)))
    centre = (float(down[0] + down[-1]) / 2, float(across[0] + across[-1]) / 2)
    return (MillimetrePlacement(grid, shape, pixel_mm, centre),)
