"""Head and brain where the source data have no masks.

The functions `*_in_window` are for slices without HU or pixel size, of about 256 x 256 pixels, that
show one head from rim to rim, 0 to 1 for the window C40 W80: bone is saturated, air is 0.
"""

from typing import cast

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage as ndi

from rebrain_node.model.head_mask import head_mask as head_in_hu
from trainer.data.dataset import DatasetError, Mask, Volume
from trainer.simulate.anatomy import HeadError, head_mask
from trainer.simulate.template import as_array, as_image, resampled


def ct_head(hu: Volume, spacing_mm: tuple[float, float, float]) -> Mask:
    """Return the head in a CT as the node finds it, (slice, row, column).

    Parameters
    ----------
    spacing_mm : tuple of float
        Between columns, rows and slices.
    """
    return np.asarray(head_in_hu(hu, (spacing_mm[0] + spacing_mm[1]) / 2))


def mr_head(image: sitk.Image) -> Mask:
    """Return the head in an MR volume, found at 2 mm, on the volume's own grid.

    Raises
    ------
    DatasetError
        Nothing is bright.
    """
    coarse = resampled(image, 2.0)
    try:
        mask = head_mask(as_array(coarse))
    except HeadError as error:
        raise DatasetError(f"no head in the target: {error}") from error
    fine = sitk.Resample(as_image(mask, coarse), image, sitk.Transform(), sitk.sitkLinear, 0.0)
    return as_array(fine) > 0.5


def not_background(volume: Volume) -> Mask:
    """Return what is not 0 in a skull-stripped volume, holes filled slice by slice."""
    return np.stack([ndi.binary_fill_holes(plane != 0) for plane in volume])


_SMALLEST_BRAIN = 1500  # pixels; smaller parts are orbits and sinuses


def _largest(mask: Mask) -> Mask:
    labels, count = ndi.label(mask)
    if count == 0:
        return mask
    sizes = ndi.sum_labels(mask, labels, range(1, count + 1))
    return cast(Mask, labels == 1 + int(np.argmax(sizes)))


def head_in_window(ct: NDArray[np.float32]) -> Mask:
    """Return the head in one slice, (rows, columns)."""
    return _largest(ndi.binary_fill_holes(ndi.binary_closing(ct > 0.05, iterations=3)))


def inside_skull_in_window(ct: NDArray[np.float32]) -> Mask:
    """Return what lies inside the skull in one slice, (rows, columns)."""
    bone = ndi.gaussian_filter(ct, 1.0) > 0.93
    bone = ndi.binary_closing(np.pad(bone, 10), iterations=5)[10:-10, 10:-10]
    inside = ndi.binary_opening(ndi.binary_fill_holes(bone) & ~bone, iterations=4)
    labels, count = ndi.label(inside)
    if count == 0:
        return np.zeros_like(bone)
    sizes = np.asarray(ndi.sum_labels(inside, labels, range(1, count + 1)))
    large = np.isin(labels, 1 + np.flatnonzero(sizes > _SMALLEST_BRAIN))
    return np.asarray(ndi.binary_erosion(large, iterations=2))
