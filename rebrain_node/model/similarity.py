"""Similarity of two images: the definitions that the demonstration and the trainer share.

Any number of axes; the images are in one unit in which the reference spans about 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Values = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]

SIGMA, RADIUS = 1.5, 5  # of the Gaussian window: 11 samples along each axis
_C1, _C2 = 0.01**2, 0.03**2  # Wang et al., IEEE TIP 13(4), 2004, range 1
_LEAST_RMSE = 1e-5  # an exact match is 100 dB, not infinite


@dataclass(frozen=True)
class IntensityScale:
    """The affine map from a reference to the intensity unit in which images are compared."""

    low: float
    high: float

    @classmethod
    def of(cls, reference: Values, mask: Mask) -> IntensityScale:
        """Map the percentiles 0.5 and 99.5 of the reference in the mask to 0 and 1.

        Raises
        ------
        ValueError
            The mask is empty, or the reference is flat in it.
        """
        if not mask.any():
            raise ValueError("the mask is empty: there is nothing to compare in")
        low, high = (float(value) for value in np.percentile(reference[mask], (0.5, 99.5)))
        if not high > low:
            raise ValueError(f"the reference is flat in the mask: {low:g} at both percentiles")
        return cls(low, high)

    def map(self, values: Values) -> npt.NDArray[np.float32]:
        """Apply the map; nothing is clipped."""
        return np.asarray((values - self.low) / (self.high - self.low), dtype=np.float32)


def rmse(image: Values, reference: Values, mask: Mask) -> float:
    """Root-mean-square error in the mask."""
    difference = image[mask].astype(np.float64) - reference[mask]
    return float(np.sqrt(np.mean(difference**2)))


def psnr_db(image: Values, reference: Values, mask: Mask) -> float:
    """-20 log10 of the root-mean-square error in the mask, range 1; at most 100 dB."""
    return -20.0 * float(np.log10(max(rmse(image, reference, mask), _LEAST_RMSE)))


def ssim_map(image: Values, reference: Values) -> Values:
    """Structural similarity at every sample, range 1; the window runs along every axis."""
    mean_a, mean_b = _mean(image), _mean(reference)
    variance_a = _mean(image * image) - mean_a**2
    variance_b = _mean(reference * reference) - mean_b**2
    covariance = _mean(image * reference) - mean_a * mean_b
    return np.asarray(
        ((2 * mean_a * mean_b + _C1) * (2 * covariance + _C2))
        / ((mean_a**2 + mean_b**2 + _C1) * (variance_a + variance_b + _C2))
    )


def ssim(image: Values, reference: Values, mask: Mask) -> float:
    """Mean of the structural similarity in the mask."""
    box = _box(mask)
    values = ssim_map(image[box], reference[box])
    return float(values[mask[box]].mean(dtype=np.float64))


def _mean(values: Values) -> Values:
    return np.asarray(ndimage.gaussian_filter(values, SIGMA, radius=RADIUS))


def _box(mask: Mask) -> tuple[slice, ...]:
    """Bounding box of a mask plus half a window: the samples on which its map depends."""
    indices = np.nonzero(mask)
    return tuple(
        slice(max(int(axis.min()) - RADIUS, 0), int(axis.max()) + RADIUS + 1) for axis in indices
    )
