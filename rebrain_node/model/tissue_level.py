"""The level of brain tissue in a CT series, and its shift to the level that a recipe expects.

Scanners read brain some HU low or high, so that hypodense white matter of one is cerebrospinal
fluid (CSF) of another. Node and trainer call the same functions.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from rebrain_node.domain.volume import FloatArray, MaskArray, TissueLevel
from rebrain_node.model.head_mask import closed_in_plane, eroded_in_plane

#: a larger difference is corrected by so much only, HU
LARGEST_SHIFT_HU = 12.0
#: the level is looked for between CSF and fresh blood, HU
RANGE_HU = (15.0, 60.0)
#: grey and white matter, 6 to 10 HU apart, then have one peak between them
_SMOOTHING_HU = 5.0
_BIN_HU = 0.25
#: less brain than this has no level that could be trusted
_LEAST_ML = 100.0
_BONE_HU = 200.0
#: sutures and openings of the skull base are closed up to twice this
_CLOSING_MM = 5.0
#: partial volume with bone is left out
_MARGIN_MM = 3.0
#: within the first distance from the middle of soft tissue a shift is complete, beyond the second
#: there is none: air and bone stay as measured
_MIDDLE_HU, _COMPLETE_HU, _NONE_HU = 35.0, 100.0, 200.0


def brain_mask(hu: FloatArray, head: MaskArray, pixel_mm: float) -> MaskArray:
    """Find what lies inside the skull, 3 mm away from bone.

    Parameters
    ----------
    hu : FloatArray
        (n, rows, columns), axial slices.
    head : MaskArray
        (n, rows, columns).
    pixel_mm : float
        Size of the square pixels.

    Returns
    -------
    MaskArray
        (n, rows, columns): the largest part; empty where no slice has a ring of bone.
    """
    bone = closed_in_plane(head & (hu > _BONE_HU), round(_CLOSING_MM / pixel_mm))
    inside = np.stack([ndimage.binary_fill_holes(plane) & ~plane for plane in bone])
    labels, count = ndimage.label(eroded_in_plane(inside, max(1, round(_MARGIN_MM / pixel_mm))))
    if count == 0:
        return np.zeros(hu.shape, dtype=bool)
    return np.asarray(labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:])))


def level_of(values: FloatArray) -> float | None:
    """Return the most frequent value between CSF and blood, HU; None if there is none.

    Parameters
    ----------
    values : FloatArray
        HU inside the skull, any shape; CSF, disease and bleeding may be among them.
    """
    reach = 3.0 * _SMOOTHING_HU
    edges = np.arange(RANGE_HU[0] - reach, RANGE_HU[1] + reach + _BIN_HU, _BIN_HU)
    counts, _ = np.histogram(values, bins=edges)
    middles = edges[:-1] + _BIN_HU / 2.0
    smooth = ndimage.gaussian_filter1d(counts.astype(np.float64), _SMOOTHING_HU / _BIN_HU)
    smooth[(middles < RANGE_HU[0]) | (middles > RANGE_HU[1])] = 0.0
    return float(middles[int(np.argmax(smooth))]) if smooth.any() else None


def measured_level(
    hu: FloatArray, head: MaskArray, pixel_mm: float, heights_mm: float
) -> float | None:
    """Return the level of brain tissue of a series, HU; None where too little brain is seen.

    Parameters
    ----------
    hu, head : ndarray
        (n, rows, columns).
    pixel_mm, heights_mm : float
        Size of the square pixels; mean distance of the slices.
    """
    brain = brain_mask(hu, head, pixel_mm)
    if brain.sum() * pixel_mm**2 * heights_mm < _LEAST_ML * 1000.0:
        return None
    return level_of(hu[brain])


def shift_to(measured_hu: float | None, expected_hu: float) -> TissueLevel:
    """Decide by how much a series of a measured level is shifted; not at all without a level."""
    if measured_hu is None:
        return TissueLevel(measured_hu=None, expected_hu=expected_hu, shift_hu=0.0)
    wanted = expected_hu - measured_hu
    return TissueLevel(
        measured_hu=measured_hu,
        expected_hu=expected_hu,
        shift_hu=float(np.clip(wanted, -LARGEST_SHIFT_HU, LARGEST_SHIFT_HU)),
    )


def shifted(hu: FloatArray, shift_hu: float) -> FloatArray:
    """Shift soft tissue by so many HU; air and bone stay, and the order of values is kept.

    Parameters
    ----------
    hu : FloatArray
        Any shape.
    shift_hu : float
        At most `LARGEST_SHIFT_HU` either way.

    Returns
    -------
    FloatArray
        The whole shift from -65 to 135 HU, none below -165 or above 235 HU, linear between.
    """
    if shift_hu == 0.0:
        return hu
    away = np.abs(hu - np.float32(_MIDDLE_HU))
    share = np.clip((_NONE_HU - away) / (_NONE_HU - _COMPLETE_HU), 0.0, 1.0)
    return np.asarray(hu + np.float32(shift_hu) * share, dtype=np.float32)
