"""Puts the slices of a multi-slice scanner with tilt where their outlines say that they lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from rebrain_node.domain.limits import GeometryLimits
from rebrain_node.domain.rotations import phase_offsets_mm
from rebrain_node.domain.volume import MillimetreArray, RotationPlacement, SourceVolume

#: the middle of the head is measured on pixels of about this side
_PIXEL_MM = 2.0
_HEAD_HU = -250.0
#: smallest section whose middle counts
_SECTION_MM2 = 5000.0
#: fewer measured slices tell nothing
_LEAST_SLICES = 8
#: no scanner's rows are so wide that tilt shifts them further
_GREATEST_MM = 10.0
#: an offset is believed from so many times its standard error on
_STANDARD_ERRORS = 4.0


def recentred(
    volume: SourceVolume, phases: tuple[int, ...] | None, limits: GeometryLimits
) -> SourceVolume:
    """Shift each slice within its plane by what its outline shows to be constant in the rotations.

    Parameters
    ----------
    volume : SourceVolume
        As its header places it.
    phases : tuple of int or None
        Place of each slice within its rotation (`domain.rotations`); None for other scanners and
        without tilt.
    limits : GeometryLimits
        ``displacement_mm`` is what slices may lie beside each other without being shifted.
    """
    if phases is None:
        return volume
    placed = replace(volume, rotations=RotationPlacement(phases=phases))
    axes = np.stack([volume.column_direction, volume.row_direction])
    places = volume.positions_mm @ axes.T + _middles_mm(volume)
    if np.isfinite(places).all(axis=1).sum() < _LEAST_SLICES:
        return placed
    offsets, residuals = phase_offsets_mm(places, volume.distances_mm, phases)
    size = float(np.ptp(offsets, axis=0).max())
    spread = 1.4826 * float(np.nanmedian(np.abs(residuals)))
    error = spread / np.sqrt(np.isfinite(residuals).all(axis=1).sum())
    if not max(limits.displacement_mm, _STANDARD_ERRORS * error) < size <= _GREATEST_MM:
        return placed
    shifts = np.vstack([offsets, np.zeros_like(offsets[:1])])  # the last for the sum of a rotation
    return replace(
        volume,
        positions_mm=volume.positions_mm - (shifts @ axes)[list(phases)],
        rotations=RotationPlacement(phases=phases, shift_mm=size),
    )


def _middles_mm(volume: SourceVolume) -> MillimetreArray:
    """Return the middle of the head in each slice from pixel (0, 0), (n, 2); nan without head."""
    steps = [max(1, round(_PIXEL_MM / side)) for side in volume.pixel_spacing_mm]
    pixel_mm = np.array(steps) * volume.pixel_spacing_mm
    tissue = volume.hu[:, :: steps[0], :: steps[1]] > _HEAD_HU
    tissue = ndimage.binary_opening(tissue, np.ones((1, 3, 3), bool), iterations=2)
    labels, count = ndimage.label(tissue)
    middles = np.full((len(tissue), 2), np.nan)
    if count == 0:
        return middles
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    for place, plane in enumerate(largest):
        filled = ndimage.binary_fill_holes(plane)
        if filled.sum() * np.prod(pixel_mm) >= _SECTION_MM2:
            middles[place] = np.mean(np.nonzero(filled), axis=1) * pixel_mm
    return middles
