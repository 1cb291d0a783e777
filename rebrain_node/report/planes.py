"""Planes of a volume the right way up: what a picture shows of the patient.

Axial: anterior up, the patient's right on the left. Coronal: head up, right on the left.
Sagittal: head up, anterior on the left. These are the conventions of radiology.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rebrain_node.domain.volume import FloatArray, Grid

View = Literal["axial", "coronal", "sagittal"]

#: letters at the left and right edge of each view
EDGES: dict[View, tuple[str, str]] = {
    "axial": ("R", "L"),
    "coronal": ("R", "L"),
    "sagittal": ("A", "P"),
}


@dataclass(frozen=True, eq=False)
class Picture:
    """One plane as it is shown: row 0 on top, column 0 on the left."""

    values: FloatArray  #: (rows, columns)
    height_mm: float
    width_mm: float
    view: View


@dataclass(frozen=True, eq=False)
class UprightVolume:
    """A volume turned so that its axes run to head, back and the patient's left."""

    values: FloatArray  #: (slices towards the head, rows towards the back, columns to the left)
    size_mm: tuple[float, float, float]  #: of one voxel, in the same order

    @classmethod
    def of(cls, values: FloatArray, grid: Grid, spacing_mm: float) -> UprightVolume:
        """Turn a volume (slices, rows, columns) on its grid upright, whatever way it lies."""
        directions = np.stack([grid.normal, grid.column_direction, grid.row_direction])
        wanted = (2, 1, 0)  # patient axes z, y, x of slices, rows, columns
        axes = [int(np.argmax(np.abs(directions[:, axis]))) for axis in wanted]
        turned = values.transpose(axes)
        for place, (own, axis) in enumerate(zip(axes, wanted, strict=True)):
            if directions[own, axis] < 0:
                turned = np.flip(turned, place)
        sizes = (spacing_mm, grid.pixel_mm, grid.pixel_mm)
        return cls(turned, (sizes[axes[0]], sizes[axes[1]], sizes[axes[2]]))

    def axial(self, index: int) -> Picture:
        """One slice, counted from the foot."""
        return self._picture(self.values[index], 1, 2, "axial")

    def coronal(self, index: int) -> Picture:
        """One plane from the front, counted from the nose."""
        return self._picture(self.values[::-1, index, :], 0, 2, "coronal")

    def sagittal(self, index: int) -> Picture:
        """One plane from the side, counted from the patient's right."""
        return self._picture(self.values[::-1, :, index], 0, 1, "sagittal")

    def _picture(self, values: FloatArray, down: int, across: int, view: View) -> Picture:
        rows, columns = values.shape
        return Picture(values, rows * self.size_mm[down], columns * self.size_mm[across], view)


def as_measured(
    hu: FloatArray, distances_mm: FloatArray, count: int, spacing_mm: float
) -> FloatArray:
    """Repeat each measured slice over the places nearest to it: thick slices as they are.

    Parameters
    ----------
    hu : FloatArray
        (n, rows, columns), HU.
    distances_mm : FloatArray
        (n,) from the first slice, increasing.
    count, spacing_mm
        Number and distance of the places.

    Returns
    -------
    FloatArray
        (count, rows, columns), HU.
    """
    places = np.arange(count) * spacing_mm
    nearest = np.abs(places[:, None] - distances_mm[None, :]).argmin(axis=1)
    return np.asarray(hu[nearest])
