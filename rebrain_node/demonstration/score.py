"""How near the result comes to the true T1 of the shipped head, beside how near the CT comes."""

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
_SIGMA_PIXELS, _RADIUS_PIXELS = 1.5, 5


@dataclass(frozen=True, kw_only=True)
class Score:
    """Means over the slices, within the head."""

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
    figures = []
    for k, guide in enumerate(volume.guides):
        truth = _truth(volume, head, guide.target.distance_mm)
        inside = volume.head[k] & (truth > 0.0)
        if not inside.any():
            continue
        below, above = (volume.prepared.hu[n] for n in (guide.target.below, guide.target.above))
        hu = (1.0 - guide.target.alpha) * below + guide.target.alpha * above
        ct = (recipe.brain_window.apply(hu) + 1.0) / 2.0
        drawn = volume.intensity[k]
        figures.append(
            (
                ssim(drawn, truth, inside),
                psnr_db(drawn, truth, inside),
                ssim(ct, truth, inside),
                psnr_db(ct, truth, inside),
            )
        )
    means = [round(float(mean), 4) for mean in np.mean(figures, axis=0)]
    return Score(
        ssim=means[0],
        psnr_db=means[1],
        ct_ssim=means[2],
        ct_psnr_db=means[3],
        slices=len(figures),
    )


def psnr_db(image: FloatArray, reference: FloatArray, inside: MaskArray) -> float:
    """Peak signal-to-noise ratio within a mask, range 1, dB."""
    error = float(np.mean((image[inside] - reference[inside]) ** 2))
    return -10.0 * float(np.log10(max(error, 1e-9)))


def ssim(image: FloatArray, reference: FloatArray, inside: MaskArray) -> float:
    """Mean structural similarity within a mask, range 1."""
    mean_a, mean_b = _mean(image), _mean(reference)
    variance_a = _mean(image * image) - mean_a**2
    variance_b = _mean(reference * reference) - mean_b**2
    covariance = _mean(image * reference) - mean_a * mean_b
    values = ((2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)) / (
        (mean_a**2 + mean_b**2 + _C1) * (variance_a + variance_b + _C2)
    )
    return float(values[inside].mean())


def _mean(values: FloatArray) -> FloatArray:
    smooth = ndimage.gaussian_filter(
        values.astype(np.float64), _SIGMA_PIXELS, radius=_RADIUS_PIXELS
    )
    return np.asarray(smooth)


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
