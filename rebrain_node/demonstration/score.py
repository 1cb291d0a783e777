"""How near the result comes to the true T1 of the shipped head, beside how near the CT comes.

All figures lie on the head mask; truth and images are mapped by the one affine map that takes the
truth's percentiles 0.5 and 99.5 within the head to 0 and 1. SSIM is three-dimensional.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage

from rebrain_node.demonstration.study import Head
from rebrain_node.domain.volume import FloatArray, MaskArray, SyntheticVolume
from rebrain_node.model.recipe import Recipe

NOTE: Final = "one head whose anatomy was not in the training; its CT is simulated"
_C1, _C2 = 0.01**2, 0.03**2  # Wang et al., IEEE TIP 13(4), 2004, range 1
_SIGMA_VOXELS, _RADIUS_VOXELS = 1.5, 5


@dataclass(frozen=True, kw_only=True)
class Score:
    """Figures of the whole volume, within the head."""

    ssim: float
    psnr_db: float
    ct_ssim: float  #: of the CT itself, brain window, interpolated to the same places
    ct_psnr_db: float
    slices: int
    note: str = NOTE


def score(volume: SyntheticVolume, head: Head, recipe: Recipe) -> Score:
    """Hold a result against the true T1 at its own voxels.

    Parameters
    ----------
    volume : SyntheticVolume
        With the prepared source it was made from.
    head : Head
        The truth.
    recipe : Recipe
        Its brain window shows the CT as the network sees it.
    """
    truth = np.stack([_truth(volume, head, g.target.distance_mm) for g in volume.guides])
    inside = volume.head & (truth > 0.0)
    low, high = np.percentile(truth[inside], (0.5, 99.5))
    around = _box(inside)
    truth, drawn, ct = (
        ((values[around] - low) / (high - low)).astype(np.float32)
        for values in (truth, volume.intensity, _ct(volume, recipe))
    )
    inside = inside[around]
    return Score(
        ssim=round(ssim(drawn, truth, inside), 4),
        psnr_db=round(psnr_db(drawn, truth, inside), 4),
        ct_ssim=round(ssim(ct, truth, inside), 4),
        ct_psnr_db=round(psnr_db(ct, truth, inside), 4),
        slices=len(volume.guides),
    )


def psnr_db(image: FloatArray, reference: FloatArray, inside: MaskArray) -> float:
    """Peak signal-to-noise ratio within a mask, range 1, dB."""
    error = float(np.mean((image[inside] - reference[inside]) ** 2, dtype=np.float64))
    return -10.0 * float(np.log10(max(error, 1e-9)))


def ssim(image: FloatArray, reference: FloatArray, inside: MaskArray) -> float:
    """Mean structural similarity within a mask, (n, rows, columns), range 1.

    Gaussian window of sigma 1.5 and 11 voxels along each axis.
    """
    mean_a, mean_b = _mean(image), _mean(reference)
    variance_a = _mean(image * image) - mean_a**2
    variance_b = _mean(reference * reference) - mean_b**2
    covariance = _mean(image * reference) - mean_a * mean_b
    values = ((2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)) / (
        (mean_a**2 + mean_b**2 + _C1) * (variance_a + variance_b + _C2)
    )
    return float(values[inside].mean(dtype=np.float64))


def _mean(values: FloatArray) -> FloatArray:
    smooth = ndimage.gaussian_filter(values, _SIGMA_VOXELS, radius=_RADIUS_VOXELS)
    return np.asarray(smooth, dtype=np.float32)


def _box(inside: MaskArray) -> tuple[slice, ...]:
    """The box around a mask, with room for half a window."""
    return tuple(
        slice(max(found[0] - _RADIUS_VOXELS, 0), found[-1] + _RADIUS_VOXELS + 1)
        for axes in ((1, 2), (0, 2), (0, 1))
        if len(found := np.nonzero(inside.any(axis=axes))[0])
    )


def _ct(volume: SyntheticVolume, recipe: Recipe) -> FloatArray:
    """The CT in the brain window at the targets, [0, 1], linear between measured slices."""
    measured = (recipe.brain_window.apply(volume.prepared.hu) + 1.0) / 2.0
    below = np.array([g.target.below for g in volume.guides])
    above = np.array([g.target.above for g in volume.guides])
    alpha = np.array([g.target.alpha for g in volume.guides], dtype=np.float32)[:, None, None]
    return np.asarray((1.0 - alpha) * measured[below] + alpha * measured[above])


def _truth(volume: SyntheticVolume, head: Head, distance_mm: float) -> FloatArray:
    """The true T1 on the plane of one target, (rows, columns), [0, 1]."""
    grid = volume.grid
    row, column = np.mgrid[: grid.rows, : grid.columns] * grid.pixel_mm
    points = (
        grid.plane_origin_mm(distance_mm)
        + row[..., None] * grid.column_direction
        + column[..., None] * grid.row_direction
    )
    return head.sample(head.t1, points) / np.float32(255.0)
