"""Stripes: whether the slices that were measured look other than those between them."""

import numpy as np

from trainer.data.dataset import Mask, Volume


def stripe_ratio(volume: Volume, mask: Mask, measured: Mask) -> float:
    """Roughness along z at measured positions over that at the positions between them.

    Roughness is the mean square of the second difference of three slices in succession, over the
    voxels that the mask has in all three. A volume whose measured and filled slices are alike has
    1; a real T1 has 1.00 to 1.01 at any choice of positions.

    Parameters
    ----------
    volume, mask : ndarray
        (slice, row, column), evenly spaced.
    measured : ndarray of bool
        (slice,), true where a slice was measured.

    Returns
    -------
    float
        NaN where no position of one of the two kinds has a neighbour on both sides.
    """
    second = (volume[:-2] - 2 * volume[1:-1] + volume[2:]).astype(np.float64) ** 2
    inside = mask[:-2] & mask[1:-1] & mask[2:]
    at_measured = measured[1:-1, None, None] & inside
    between = ~measured[1:-1, None, None] & inside
    if not (at_measured.any() and between.any()):
        return float("nan")
    rough = float(second[between].mean())
    return float(second[at_measured].mean()) / rough if rough > 0 else float("nan")
