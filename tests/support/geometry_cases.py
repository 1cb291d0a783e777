"""Small phantoms, a recipe, a marker finder and an engine whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

import rebrain_node
from rebrain_node.domain.volume import FloatArray, PreparedVolume, SourceVolume
from rebrain_node.limits_file import shipped_limits
from rebrain_node.model.bundle import load_bundle
from rebrain_node.model.recipe import Retrieval
from tests.support.phantoms import MARKER_MM, Ellipsoid

LIMITS = shipped_limits()
GEOMETRY = LIMITS.geometry
#: the recipe that ships, without what it retrieves, where it abstains and how it changes a volume
RECIPE = load_bundle(Path(rebrain_node.__file__).parent / "bundles" / "demo").recipe.model_copy(
    update={
        "retrieval": Retrieval(),
        "abstain": None,
        "tissue_level_hu": None,
        "z_filter_mm": 0.0,
        "uncertainty_shifts_hu": (),
        "whole_face": False,
    }
)

#: a dense ball where the marker lies, larger than a slice so that its centre can be measured
BALL = Ellipsoid(MARKER_MM, (16.0, 16.0, 16.0), 700.0)
SMALL = {
    "rows": 60,
    "columns": 60,
    "pixel_spacing_mm": (4.0, 4.0),
    "slice_distances_mm": tuple(6.0 * k for k in range(8)),
    "slice_thickness_mm": 6.0,
    "parts": (BALL,),
}


def _near(points: npt.NDArray, hu: npt.NDArray) -> npt.NDArray[np.float64]:
    """Centre of mass of what exceeds 350 HU within 24 mm of the marker, LPS mm, (3,)."""
    weight = np.where(np.linalg.norm(points - MARKER_MM, axis=-1) < 24.0, hu - 100.0, 0.0)
    weight = np.where(hu > 350.0, weight, 0.0)
    return np.asarray((points * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum())


def marker_of(volume: SourceVolume) -> npt.NDArray[np.float64]:
    """Where the ball lies in the measured slices, LPS mm, (3,)."""
    rows, columns = np.indices(volume.hu.shape[1:])
    points = (
        volume.positions_mm[:, None, None, :]
        + volume.column_direction * (rows * volume.pixel_spacing_mm[0])[..., None]
        + volume.row_direction * (columns * volume.pixel_spacing_mm[1])[..., None]
    )
    return _near(points, volume.hu)


def prepared_marker(prepared: PreparedVolume) -> npt.NDArray[np.float64]:
    """Where the ball lies on the recipe's grid, LPS mm, (3,)."""
    grid = prepared.grid
    rows, columns = np.indices((grid.rows, grid.columns))
    plane = (
        grid.column_direction * (rows * grid.pixel_mm)[..., None]
        + grid.row_direction * (columns * grid.pixel_mm)[..., None]
    )
    origins = np.array([grid.plane_origin_mm(float(d)) for d in prepared.distances_mm])
    return _near(origins[:, None, None, :] + plane, prepared.hu)


class WindowedSource:
    """An engine that returns the source's brain window, or nonsense on request."""

    identity, batch = "windowed source 1 fp32", 1

    def __init__(self, nonsense: str = "") -> None:
        self.nonsense = nonsense

    def evaluate(self, x: FloatArray, s: FloatArray) -> FloatArray:
        flow = x[:, :1] - x[:, 1:2]
        if self.nonsense == "nan":
            flow[..., 0, 0] = np.nan
        return flow[..., :-1] if self.nonsense == "shape" else flow
