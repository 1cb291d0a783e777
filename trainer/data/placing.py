"""Slices of a data set on the model grid and back, in the recipe's intensities and head frame.

`placements` says how often and where the slices of a subject are put on the grid; predictions are
averaged over what it returns. Where the pixel size is known, slices are resampled by the node's own
interpolation and the head is centred on the grid, as the node does. Where it is unknown (2-D pairs:
each slice cropped to its own box and stretched to a square) a slice is stretched to a frame of
plausible aspect.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from rebrain_node.domain.headframe import HeadFrame
from rebrain_node.domain.volume import AIR_HU, PreparedVolume, SourceVolume
from rebrain_node.errors import RebrainError, SeriesRejectedError
from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.recipe import Grid, Image, Recipe
from rebrain_node.model.resample import axis_weights
from rebrain_node.model.similarity import IntensityScale
from rebrain_node.model.source import SourceSlice
from rebrain_node.model.tissue_level import level_of, measured_level, shift_to, shifted
from rebrain_node.steps.locate import locate
from rebrain_node.steps.preprocess import preprocess
from trainer.data.dataset import Mask, SourceKind, Volume
from trainer.data.masks import inside_skull_in_window
from trainer.data.protocols import Case

# A stretched head is placed in frames of these shares of the grid's rows, which span the sizes that
# training stretches heads to; columns by a head's aspect.
FRAME_SHARES = (0.875, 0.8, 0.95)
ASPECT = 0.8167


class Placement(Protocol):
    """One placement of the slices of a subject on the model grid."""

    def onto(self, plane: Image, outside: float) -> Image:
        """Put a slice, (rows, columns) of the data set, on the grid; beyond it lies `outside`."""

    def back(self, image: Image, outside: float) -> Image:
        """Bring a slice of the grid back to the pixels of the data set."""


@dataclass(frozen=True)
class MillimetrePlacement:
    """Slices of known pixel size, their head centred on the grid.

    The first pixel of the grid lies a whole number of the data set's pixels away, so that data of
    the grid's own pixel size go through unblurred.
    """

    grid: Grid
    shape: tuple[int, int]  #: (rows, columns) of the data set
    pixel_mm: tuple[float, float]  #: between its rows, between its columns
    #: row and column, in pixels of the data set, that comes to lie in the middle of the grid
    centre: tuple[float, float]

    def onto(self, plane: Image, outside: float) -> Image:
        """Resample linearly; where the grid is coarser, pixels are averaged."""
        down, across = (self._weights(axis, back=False) for axis in (0, 1))
        return _resampled(plane, down, across, outside)

    def back(self, image: Image, outside: float) -> Image:
        """Resample linearly; where the data set is coarser, pixels are averaged."""
        down, across = (self._weights(axis, back=True) for axis in (0, 1))
        return _resampled(image, down, across, outside)

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
    """Slices that were cropped and stretched to a square, stretched to a frame of the grid."""

    grid: Grid
    shape: tuple[int, int]
    frame: tuple[int, int]  #: rows and columns of the grid that the slice is given, in its middle
    turn: Literal[1, -1] = 1  #: -1 mirrors the image

    def onto(self, plane: Image, outside: float) -> Image:
        """Stretch a slice into the frame."""
        image = np.full(self.grid.shape, outside, np.float32)
        image[self._window()] = _stretched(plane, self.frame)[:, :: self.turn]
        return image

    def back(self, image: Image, outside: float) -> Image:  # noqa: ARG002 -- the frame is the slice
        """Stretch the frame back to the square."""
        return _stretched(image[self._window()][:, :: self.turn], self.shape)

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
    """Return the placements of a subject on the grid of a recipe, over which is averaged.

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


MARGIN_MM = 2.0  # CT kept around the head, as the node does; the table and head rest go


def unit(source: Volume, head: Mask, kind: SourceKind, recipe: Recipe) -> Volume:
    """Map a source to [0, 1]: the brain window for CT, percentiles 0.5 to 99.5 in the head for MR.

    Any shape; clipped.
    """
    if kind == "ct":
        return np.asarray((recipe.brain_window.apply(source) + 1) / 2, dtype=np.float32)
    if kind == "ct-window":
        return np.asarray(np.clip(source / np.float32(255), 0, 1), dtype=np.float32)
    return np.asarray(np.clip(IntensityScale.of(source, head).map(source), 0, 1))


def source_slices(
    case: Case, kind: SourceKind, recipe: Recipe, placement: Placement
) -> list[SourceSlice]:
    """Return the slices given, on the model grid, in the windows of the recipe.

    The wide window is unknown (-1) unless the source is in HU.
    """
    unknown = np.full(recipe.grid.shape, -1, np.float32)
    if kind == "ct":
        planes = [placement.onto(plane, AIR_HU) for plane in levelled_hu(case, recipe)]
        return [
            SourceSlice(
                recipe.brain_window.apply(hu), recipe.wide_window.apply(hu), float(position)
            )
            for hu, position in zip(planes, case.positions_mm, strict=True)
        ]
    given = unit(case.source, case.head, kind, recipe)
    if kind == "ct-window":
        given = levelled_window(given, recipe)
    brain = given * 2 - 1
    return [
        SourceSlice(placement.onto(plane, -1.0), unknown, float(z))
        for plane, z in zip(brain, case.positions_mm, strict=True)
    ]


def without_table(case: Case) -> Volume:
    """Air beyond the head and a margin, (given, row, column) HU."""
    pixel_mm = case.subject.pixel_mm
    if pixel_mm is None:
        return case.source
    reach = round(MARGIN_MM / min(pixel_mm))
    disc = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= reach
    kept = ndimage.binary_dilation(case.head, disc[None])
    return np.where(kept, case.source, np.float32(AIR_HU))


def levelled_hu(case: Case, recipe: Recipe) -> Volume:
    """Return the slices given without table, (given, row, column) HU, levelled as by the node.

    As measured where the recipe expects no level, or where no level is found.
    """
    hu, pixel_mm = without_table(case), case.subject.pixel_mm
    if recipe.tissue_level_hu is None or pixel_mm is None or len(hu) < 2:
        return hu
    apart_mm = float(np.median(np.diff(case.positions_mm)))
    measured = measured_level(hu, case.head, float(np.sqrt(np.prod(pixel_mm))), apart_mm)
    return np.asarray(shifted(hu, shift_to(measured, recipe.tissue_level_hu).shift_hu))


def levelled_window(window: Volume, recipe: Recipe) -> Volume:
    """Level slices of which the brain window alone is known, (slice, row, column) in [0, 1].

    What is black or white lies beyond the window and stays so.
    """
    if recipe.tissue_level_hu is None:
        return window
    low_hu, high_hu = recipe.brain_window.low_hu, recipe.brain_window.high_hu
    inside = np.stack([inside_skull_in_window(plane) for plane in window])
    measured = level_of(low_hu + window[inside] * (high_hu - low_hu))
    shift = shift_to(measured, recipe.tissue_level_hu).shift_hu / (high_hu - low_hu)
    within = (window > 0) & (window < 1)
    return np.where(within, np.clip(window + np.float32(shift), 0, 1), window).astype(np.float32)


def truth_unit(target: Volume, head: Mask) -> Image:
    """Map a true MR to the unit of the scores, clipped to [0, 1]: what training methods learn."""
    return np.asarray(np.clip(IntensityScale.of(target, head).map(target), 0, 1))


LEAST_PLAUSIBILITY = 0.5


class HeadFrameError(RebrainError):
    """A head cannot be placed in the head frame; the message says why."""


@dataclass(frozen=True)
class LocatedSeries:
    """A series on the grid of the recipe, and its place in the head frame."""

    prepared: PreparedVolume
    frame: HeadFrame
    #: (4, 4): head frame mm (MNI, RAS) = matrix @ (column, row, position in mm, 1)
    head_from_slices: NDArray[np.float64]


def located(
    hu: NDArray[np.float32],
    positions_mm: NDArray[np.float64],
    pixel_mm: tuple[float, float] | None,
    recipe: Recipe,
) -> LocatedSeries:
    """Place slices in the head frame.

    Parameters
    ----------
    hu : NDArray of float32
        (slice, row, column), as a data set holds them: rows run to posterior, columns to the
        left, slices upwards.
    positions_mm : NDArray of float64
        (slice,), rising.
    pixel_mm : tuple of float or None
        Between rows, between columns.

    Raises
    ------
    HeadFrameError
        The pixel size is not known, no head fits the grid, or what is there hardly looks like one.
    """
    if pixel_mm is None:
        raise HeadFrameError("the pixel size is not known")
    try:
        prepared = preprocess(source_volume_of(hu, positions_mm, pixel_mm), recipe)
    except SeriesRejectedError as error:
        raise HeadFrameError(str(error)) from error
    frame = locate(prepared, load_head_template())
    if not frame.plausibility >= LEAST_PLAUSIBILITY:
        raise HeadFrameError(
            "it does not lie in the head frame with certainty: plausibility "
            f"{frame.plausibility:.2f}, at least {LEAST_PLAUSIBILITY:.2f}"
        )
    down_mm, across_mm = pixel_mm
    return LocatedSeries(
        prepared, frame, frame.head_from_patient @ np.diag([across_mm, down_mm, 1.0, 1.0])
    )


def source_volume_of(
    hu: NDArray[np.float32], positions_mm: NDArray[np.float64], pixel_mm: tuple[float, float]
) -> SourceVolume:
    """Return slices, arrays as of `located`, as a series that a node has read."""
    count = len(hu)
    positions = np.zeros((count, 3))
    positions[:, 2] = positions_mm
    return SourceVolume(
        hu=hu,
        positions_mm=positions,
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, 1.0, 0.0]),
        pixel_spacing_mm=pixel_mm,
        thickness_mm=(float(np.median(np.diff(positions_mm))),) * count,
        sop_instance_uids=tuple(f"2.25.{k + 1}" for k in range(count)),
        frame_numbers=(None,) * count,
        frame_of_reference_uid="2.25.1",
        padding=np.zeros(hu.shape, dtype=bool),
    )
