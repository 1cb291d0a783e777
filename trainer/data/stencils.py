"""Masks of the head where the source data have none."""

import numpy as np
import SimpleITK as sitk  # noqa: N813
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
