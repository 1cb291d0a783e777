"""SSIM and PSNR of the result, and of the CT itself, against the true T1 of the shipped head.

All figures are computed within the head mask; truth and images are mapped by the one affine map
that takes the percentiles 0.5 and 99.5 of the truth within the head to 0 and 1. SSIM is
three-dimensional.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from rebrain_node.demonstration.study import Head
from rebrain_node.domain.volume import FloatArray, SyntheticVolume
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.similarity import IntensityScale, psnr_db, ssim

NOTE: Final = "one head whose anatomy was not in the training; its CT is simulated"


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
    """Compare a result with the true T1 at its own voxels.

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
    scale = IntensityScale.of(truth, inside)
    truth, result, ct = map(scale.map, (truth, volume.intensity, _ct(volume, recipe)))
    return Score(
        ssim=round(ssim(result, truth, inside), 4),
        psnr_db=round(psnr_db(result, truth, inside), 4),
        ct_ssim=round(ssim(ct, truth, inside), 4),
        ct_psnr_db=round(psnr_db(ct, truth, inside), 4),
        slices=len(volume.guides),
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
