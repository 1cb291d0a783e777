"""Figures of one slice or one patient; images (rows, columns) or (n, rows, columns) in [0, 1]."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

_C1, _C2 = 0.01**2, 0.03**2


def psnr_db(image: Image, reference: Image, mask: Mask) -> float:
    """Return -20 log10 of the root-mean-square error in the mask, range 1."""
    error = float(np.mean((image[mask] - reference[mask]) ** 2))
    return -10 * float(np.log10(max(error, 1e-9)))


def ssim(image: Image, reference: Image, mask: Mask) -> float:
    """Return the mean SSIM in the mask; 2-D, Gaussian sigma 1.5, window 11, range 1."""

    def mean(values: Image) -> NDArray[np.float64]:
        smooth = ndi.gaussian_filter(values.astype(np.float64), 1.5, radius=5)
        return np.asarray(smooth)

    mean_a, mean_b = mean(image), mean(reference)
    var_a, var_b = mean(image * image) - mean_a**2, mean(reference * reference) - mean_b**2
    covariance = mean(image * reference) - mean_a * mean_b
    values = ((2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)) / (
        (mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)
    )
    return float(values[mask].mean())


def correlation(image: Image, reference: Image, mask: Mask) -> float:
    """Return Pearson's correlation in the mask; 0 for a constant image."""
    a, b = image[mask], reference[mask]
    if a.size < 2 or a.std() < 1e-4 or b.std() < 1e-4:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def local_correlation(image: Image, reference: Image, mask: Mask) -> float:
    """Return LNCC: the mean over the mask of correlation in a Gaussian of sigma 4 pixels."""

    def mean(values: Image) -> NDArray[np.float64]:
        return np.asarray(ndi.gaussian_filter(values.astype(np.float64), 4.0))

    mean_a, mean_b = mean(image), mean(reference)
    covariance = mean(image * reference) - mean_a * mean_b
    var_a = np.maximum(mean(image * image) - mean_a**2, 1e-6)
    var_b = np.maximum(mean(reference * reference) - mean_b**2, 1e-6)
    return float((covariance / np.sqrt(var_a * var_b))[mask].mean())


def slice_offsets(prediction: Image, reference: Image, masks: Mask) -> NDArray[np.int64]:
    """Return, per slice of a patient, how far off the best correlated reference slice lies.

    Parameters
    ----------
    prediction, reference : Image
        (n, rows, columns), the slices of one patient in order.
    masks : Mask
        (n, rows, columns), the brain of each slice.
    """
    offsets = []
    for row, (image, mask) in enumerate(zip(prediction, masks, strict=True)):
        scores = [correlation(image, other, mask) for other in reference]
        offsets.append(int(np.argmax(scores)) - row if max(scores) > 0 else len(reference))
    return np.array(offsets, dtype=np.int64)
