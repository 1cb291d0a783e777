"""Measures by tissue: correlation without CSF, false CSF, contrast of lesions, volumes.

CSF is a third of what lies inside a skull and the darkest part of a T1, so that a correlation over
all of it mostly says that the ventricles are dark. Images are canonical or scored intensities.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage as ndi

from trainer.data.dataset import Mask, Volume

CSF_BELOW: Final = 0.2  #: a synthetic voxel darker than this is read as CSF (canonical: 0.13)
TISSUE_ABOVE: Final = 0.275  #: canonical T1: halfway from CSF (0.13) to grey matter (0.42)
SURE: Final = 0.9  #: membership from which a planted lesion fills the slice
_DEEP_MM: Final = 20.0  #: ventricles lie this far under the surface of the brain
_LEAST_VOXELS: Final = 20
_FLAT: Final = 1e-4


def tissue_above(reference: Volume, brain: Mask) -> float:
    """Return the brightness that divides CSF from tissue in a T1 of unknown contrast.

    The lower of Otsu's two thresholds of the values inside the skull (Otsu, IEEE Trans. SMC 9(1),
    1979; three classes as CSF, grey and white matter), by SimpleITK.
    """
    values = sitk.GetImageFromArray(reference[brain].astype(np.float32)[None])
    otsu = sitk.OtsuMultipleThresholdsImageFilter()
    otsu.SetNumberOfThresholds(2)
    otsu.Execute(values)
    return float(otsu.GetThresholds()[0])


def tissue_correlation(
    image: Volume, reference: Volume, brain: Mask, above: float | None = None
) -> float:
    """Pearson's correlation inside the skull where the truth is no CSF; 0 for a constant.

    Parameters
    ----------
    image, reference, brain : ndarray
        (slice, row, column), one unit.
    above : float, optional
        Brightness of the reference above which it is tissue; by default `tissue_above`.
    """
    if not brain.any():
        return 0.0
    limit = tissue_above(reference, brain) if above is None else above
    tissue = brain & (reference > limit)
    a, b = image[tissue].astype(np.float64), reference[tissue].astype(np.float64)
    if a.size < 2 or a.std() < _FLAT or b.std() < _FLAT:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def csf_share(image: Volume, chosen: Mask) -> float:
    """Share of the chosen voxels that are synthesised as CSF (below `CSF_BELOW`); NaN for none."""
    if int(chosen.sum()) < _LEAST_VOXELS:
        return float("nan")
    return float(np.mean(image[chosen] < CSF_BELOW))


def contrast_kept(
    images: tuple[Volume, Volume], truths: tuple[Volume, Volume], lesion: Mask
) -> float:
    """Return the share of the true change of a planted lesion that the synthetic image shows.

    Parameters
    ----------
    images, truths : tuple of ndarray
        With the lesion and without it, (slice, row, column), canonical T1.
    lesion : ndarray of bool
        Where it fills the slice.

    Returns
    -------
    float
        1 for the true contrast, 0 for a lesion that disappears, below 0 for one of the other
        sign; NaN where there are too few voxels or nothing changed in truth.
    """
    if int(lesion.sum()) < _LEAST_VOXELS:
        return float("nan")
    shown, true = (
        float((sick[lesion] - sound[lesion]).mean(dtype=np.float64))
        for sick, sound in (images, truths)
    )
    return shown / true if abs(true) > _FLAT else float("nan")


def tissue_volumes(
    image: Volume, brain: Mask, spacing_mm: tuple[float, float, float]
) -> Mapping[str, float]:
    """Volumes of a T1 inside a mask of the brain, ml, by the K-means classes of SimpleITK.

    Parameters
    ----------
    image, brain : ndarray
        (slice, row, column).
    spacing_mm : tuple of float
        Between slices, rows and columns.

    Returns
    -------
    mapping of float
        `brain` the mask; `grey matter` the middle one of three classes of brightness; `ventricles`
        the darkest class at least 20 mm under the surface of the mask, in parts of more than
        0.05 ml.
    """
    millilitres = float(np.prod(spacing_mm)) / 1000.0
    means = _class_means(image[brain])
    limits = [(means[0] + means[1]) / 2, (means[1] + means[2]) / 2]
    dark = brain & (image < limits[0])
    grey = brain & (image >= limits[0]) & (image < limits[1])
    padded = np.pad(brain, 1)
    depth = ndi.distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    labels, count = ndi.label(dark & (depth >= _DEEP_MM))
    sizes = np.asarray(ndi.sum_labels(np.ones(labels.shape), labels, range(1, count + 1)))
    large = sizes[sizes * millilitres > 0.05].sum() if count else 0.0
    return {
        "brain": float(brain.sum()) * millilitres,
        "ventricles": float(large) * millilitres,
        "grey matter": float(grey.sum()) * millilitres,
    }


def _class_means(values: Volume) -> list[float]:
    """Means of three classes of brightness, rising."""
    start = [float(v) for v in np.percentile(values, (5, 40, 90))]
    kmeans = sitk.ScalarImageKmeansImageFilter()
    kmeans.SetClassWithInitialMean(start)
    kmeans.Execute(sitk.GetImageFromArray(values[None].astype(np.float32)))
    return sorted(kmeans.GetFinalMeans())
