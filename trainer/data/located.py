"""Where a subject of a prepared data set lies in the head frame, found as the node finds it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebrain_node.domain.headframe import HeadFrame
from rebrain_node.domain.volume import PreparedVolume, SourceVolume
from rebrain_node.errors import RebrainError, SeriesRejectedError
from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.recipe import Recipe
from rebrain_node.steps.locate import locate
from rebrain_node.steps.preprocess import preprocess

LEAST_PLAUSIBILITY = 0.5


class HeadFrameError(RebrainError):
    """A head cannot be placed in the head frame; the message says why."""


@dataclass(frozen=True)
class LocatedSeries:
    """A series on the grid of the recipe, and its place in the head frame.

    Attributes
    ----------
    head_from_slices : NDArray of float64
        (4, 4): head frame mm (MNI, RAS) = matrix @ (column, row, position in mm, 1).
    """

    prepared: PreparedVolume
    frame: HeadFrame
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
        prepared = preprocess(_series(hu, positions_mm, pixel_mm), recipe)
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


def _series(
    hu: NDArray[np.float32], positions_mm: NDArray[np.float64], pixel_mm: tuple[float, float]
) -> SourceVolume:
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
