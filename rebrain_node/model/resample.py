"""In-plane resampling: of measured slices to the model grid, and between it and half of it.

Each measured slice is resampled once within its own plane, never through the plane. The grid
follows the axes of the slices, so rows and columns are resampled separately, each by one small
matrix: exact to the sub-pixel position, two matrix products per slice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rebrain_node.domain.volume import AIR_HU, FloatArray, Grid, SourceVolume


def wide_grid(volume: SourceVolume, pixel_mm: float) -> Grid:
    """Grid with the recipe's pixels that covers every slice, its origins on one normal."""
    across, down = (
        volume.positions_mm @ direction
        for direction in (volume.row_direction, volume.column_direction)
    )
    rows, columns = volume.hu.shape[1:]
    height = np.ptp(down) + (rows - 1) * volume.pixel_spacing_mm[0]
    width = np.ptp(across) + (columns - 1) * volume.pixel_spacing_mm[1]
    first = volume.positions_mm[0]
    origin = (
        first
        + volume.row_direction * (across.min() - across[0])
        + volume.column_direction * (down.min() - down[0])
    )
    return Grid(
        origin_mm=origin,
        row_direction=volume.row_direction,
        column_direction=volume.column_direction,
        pixel_mm=pixel_mm,
        rows=int(np.ceil(height / pixel_mm)) + 1,
        columns=int(np.ceil(width / pixel_mm)) + 1,
    )


def resampled(volume: SourceVolume, grid: Grid) -> FloatArray:
    """Resample every slice once within its own plane, (n, rows, columns); outside is air."""
    out = np.empty((len(volume.hu), grid.rows, grid.columns), dtype=np.float32)
    for k, (hu, position) in enumerate(zip(volume.hu, volume.positions_mm, strict=True)):
        offset = grid.origin_mm - position
        down = axis_weights(
            (grid.rows, hu.shape[0]),
            start_mm=float(offset @ grid.column_direction),
            step_mm=grid.pixel_mm,
            spacing_mm=volume.pixel_spacing_mm[0],
        )
        across = axis_weights(
            (grid.columns, hu.shape[1]),
            start_mm=float(offset @ grid.row_direction),
            step_mm=grid.pixel_mm,
            spacing_mm=volume.pixel_spacing_mm[1],
        )
        out[k] = down @ (hu - np.float32(AIR_HU)) @ across.T
    return out + np.float32(AIR_HU)


def axis_weights(
    shape: tuple[int, int], *, start_mm: float, step_mm: float, spacing_mm: float
) -> FloatArray:
    """Linear interpolation along one axis as a matrix, (out, in); beyond the slice lies zero.

    Where the grid is coarser than the slice the triangle is widened to the grid's pixel, so that
    noise is averaged instead of aliased.

    Parameters
    ----------
    shape : tuple of int
        Samples out, samples in.
    start_mm : float
        Where the first sample out lies, from the first sample in.
    step_mm, spacing_mm : float
        Between samples out, between samples in.
    """
    positions = (start_mm + step_mm * np.arange(shape[0])) / spacing_mm
    reach = max(1.0, step_mm / spacing_mm)
    around = np.floor(positions)[:, None] + np.arange(-np.ceil(reach), np.ceil(reach) + 2)
    weights = np.maximum(0.0, 1.0 - np.abs(around - positions[:, None]) / reach)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros(shape)
    inside = (around >= 0) & (around < shape[1])
    out = np.broadcast_to(np.arange(shape[0])[:, None], around.shape)
    matrix[out[inside], around[inside].astype(np.intp)] = weights[inside]
    return matrix.astype(np.float32)


def halved(plane: NDArray[np.floating]) -> FloatArray:
    """Average 2 x 2 pixels: (..., 2 rows, 2 columns) of the model grid to (..., rows, columns).

    Slices are embedded, stored and compared at half the resolution of the model grid.
    """
    *front, rows, columns = plane.shape
    blocks = plane.reshape(*front, rows // 2, 2, columns // 2, 2)
    return np.asarray(blocks.mean(axis=(-3, -1)), dtype=np.float32)


def doubled(plane: FloatArray) -> FloatArray:
    """Interpolate (rows, columns) linearly to the model grid, (2 rows, 2 columns)."""
    enlarged = ndimage.zoom(plane, 2, order=1, mode="nearest", grid_mode=True)
    return np.asarray(enlarged, dtype=np.float32)
