"""Half the model grid: the plane on which slices are compared and kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]


def halved(plane: NDArray[np.floating]) -> Image:
    """Average 2 x 2 pixels: (..., 2 rows, 2 columns) of the model grid to (..., rows, columns)."""
    *front, rows, columns = plane.shape
    folded = plane.reshape(*front, rows // 2, 2, columns // 2, 2)
    return np.asarray(folded.mean(axis=(-3, -1)), dtype=np.float32)


def doubled(plane: Image) -> Image:
    """Bring (rows, columns) back to the model grid, (2 rows, 2 columns), linearly."""
    wide = ndimage.zoom(plane, 2, order=1, mode="nearest", grid_mode=True)
    return np.asarray(wide, dtype=np.float32)
