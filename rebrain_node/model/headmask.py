"""The head in a CT volume: without table, head rest and air, with all that lies inside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import SimpleITK
from scipy import ndimage

from rebrain_node.domain.volume import FloatArray, MaskArray

#: between air (-1000) and fat (-100), so that the skin's partial volume is head
TISSUE_HU = -200.0
#: shells of tables and head rests are thinner than twice this
TABLE_MM = 4.0
#: ear canals, nostrils and paranasal sinuses are closed up to twice this
CLOSING_MM = 6.0


def head_mask(hu: FloatArray, pixel_mm: float) -> MaskArray:
    """Find the head.

    Parameters
    ----------
    hu : FloatArray
        (n, rows, columns), slices aligned on one normal.
    pixel_mm : float
        Size of the square pixels.

    Returns
    -------
    MaskArray
        (n, rows, columns): the largest part above -200 HU once everything thin is gone, closed,
        holes filled slice by slice; empty where there is only air.
    """
    tissue = hu > TISSUE_HU
    radius = max(1, round(TABLE_MM / pixel_mm))
    thick = _in_plane(SimpleITK.BinaryMorphologicalOpening, tissue, radius)
    largest = _largest(thick)
    head = dilated_in_plane(largest, radius) & tissue
    return _filled(
        _in_plane(SimpleITK.BinaryMorphologicalClosing, head, round(CLOSING_MM / pixel_mm))
    )


def dilated_in_plane(mask: MaskArray, pixels: int) -> MaskArray:
    """Widen a mask within each slice by a disc of so many pixels, (n, rows, columns)."""
    return _in_plane(SimpleITK.BinaryDilate, mask, pixels)


def _in_plane(operation: Callable[..., Any], mask: MaskArray, radius: int) -> MaskArray:
    """Apply a binary morphological filter with a disc; the border counts as background."""
    padded = np.pad(mask, ((0, 0), (radius, radius), (radius, radius))).astype(np.uint8)
    result = operation(SimpleITK.GetImageFromArray(padded), (radius, radius, 0), SimpleITK.sitkBall)
    inner = SimpleITK.GetArrayFromImage(result)[:, radius:-radius, radius:-radius]
    return np.asarray(inner > 0)


def _largest(mask: MaskArray) -> MaskArray:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def _filled(mask: MaskArray) -> MaskArray:
    """Fill, slice by slice, what does not reach the border of the slice."""
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    labels, count = ndimage.label(~mask, structure=in_plane)
    open_to_border = np.zeros(count + 1, dtype=bool)
    for edge in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        open_to_border[np.unique(edge)] = True
    open_to_border[0] = False
    return np.asarray(~open_to_border[labels])
