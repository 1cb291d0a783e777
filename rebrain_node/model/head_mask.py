"""The head in a CT volume: without table, head rest and air, with everything inside it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from rebrain_node.domain.volume import FloatArray, MaskArray

#: between air (-1000) and fat (-100), so that the skin's partial volume is head
TISSUE_HU = -200.0
#: shells of tables and head rests are thinner than twice this
TABLE_MM = 4.0
#: ear canals, nostrils and paranasal sinuses are closed up to twice this
CLOSING_MM = 6.0
#: the middle of the face: so far to either side of the middle of the head, this share of its
#: length from the front, and so far in front of it
FACE_MM, FACE_SHARE, NOSE_MM = 40.0, 0.45, 30.0


def head_mask(hu: FloatArray, pixel_mm: float) -> MaskArray:
    """Segment the head.

    Parameters
    ----------
    hu : FloatArray
        (n, rows, columns), slices aligned on one normal.
    pixel_mm : float
        Size of the square pixels.

    Returns
    -------
    MaskArray
        (n, rows, columns): the largest part above -200 HU once everything thin is removed,
        closed, holes filled slice by slice; empty where there is only air.
    """
    tissue = hu > TISSUE_HU
    radius = max(1, round(TABLE_MM / pixel_mm))
    thick = dilated_in_plane(eroded_in_plane(tissue, radius), radius)
    head = dilated_in_plane(_largest(thick), radius) & tissue
    return _filled(closed_in_plane(head, round(CLOSING_MM / pixel_mm)))


def with_whole_face(head: MaskArray, hu: FloatArray, pixel_mm: float) -> MaskArray:
    """Add what is thin in the middle of the face: wings of the nose, walls of the maxilla.

    They close the air behind them, which is filled as in `head_mask`.

    Parameters
    ----------
    head : MaskArray
        (n, rows, columns), of `head_mask`; rows run from anterior to posterior.
    hu : FloatArray
        (n, rows, columns).
    pixel_mm : float
        Size of the square pixels.
    """
    tissue = hu > TISSUE_HU
    joined = np.stack([_with_face(head[k], tissue[k], pixel_mm) for k in range(len(head))])
    changed = (joined != head).any(axis=(1, 2))
    if changed.any():
        joined[changed] = _filled(closed_in_plane(joined[changed], round(CLOSING_MM / pixel_mm)))
    return joined


def _with_face(head: MaskArray, tissue: MaskArray, pixel_mm: float) -> MaskArray:
    """Add the tissue of the middle of the face that is connected to the head, one slice."""
    rows, columns = np.nonzero(head.any(axis=1))[0], np.nonzero(head)[1]
    if len(rows) == 0:
        return head
    front, back = rows[0] - NOSE_MM / pixel_mm, rows[0] + FACE_SHARE * np.ptp(rows)
    row, column = np.arange(head.shape[0])[:, None], np.arange(head.shape[1])[None, :]
    middle = np.abs(column - columns.mean()) <= FACE_MM / pixel_mm
    face = tissue & (row >= front) & (row <= back) & middle
    labels, count = ndimage.label(head | face, structure=np.ones((3, 3)))
    joined = np.zeros(count + 1, dtype=bool)
    joined[np.unique(labels[head])] = True
    return np.asarray(joined[labels])


def dilated_in_plane(mask: MaskArray, pixels: int) -> MaskArray:
    """Dilate a mask within each slice by a disc of so many pixels, (n, rows, columns).

    The disc contains the pixels whose centres lie within ``pixels`` + 1/2 of its centre: the
    definition of the Insight Toolkit (ITK), whose masks the released networks were trained with.
    """
    return np.stack([_dilated(plane, pixels) for plane in mask]) if len(mask) else mask.copy()


def eroded_in_plane(mask: MaskArray, pixels: int) -> MaskArray:
    """Erode within each slice by the same disc; outside the border is background."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    return ~dilated_in_plane(~padded, pixels)[:, 1:-1, 1:-1]


def closed_in_plane(mask: MaskArray, pixels: int) -> MaskArray:
    """Dilate, then erode by the same disc; padded so that the border has no effect."""
    margin = ((0, 0), (pixels, pixels), (pixels, pixels))
    closed = eroded_in_plane(dilated_in_plane(np.pad(mask, margin), pixels), pixels)
    return closed[:, pixels:-pixels, pixels:-pixels] if pixels else closed


def _dilated(plane: MaskArray, pixels: int) -> MaskArray:
    """Dilate one slice: the pixels whose distance to the mask is at most ``pixels`` + 1/2."""
    if not plane.any():
        return plane.copy()
    return np.asarray(ndimage.distance_transform_edt(~plane) <= pixels + 0.5)


def _largest(mask: MaskArray) -> MaskArray:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def _filled(mask: MaskArray) -> MaskArray:
    """Fill, slice by slice, the background that is not connected to the border of the slice."""
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    labels, count = ndimage.label(~mask, structure=in_plane)
    open_to_border = np.zeros(count + 1, dtype=bool)
    for edge in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        open_to_border[np.unique(edge)] = True
    open_to_border[0] = False
    return np.asarray(~open_to_border[labels])
