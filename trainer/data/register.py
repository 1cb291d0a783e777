"""Brings a target rigidly onto its source by mutual information, and checks that it worked.

A registration that looks converged may still be wrong. It is run twice from starts that lie well
apart; only where both arrive at one place, and the heads then overlap, is it believed.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813

from trainer.data.dataset import DatasetError, Mask

#: both runs arrive within so much of each other, at 80 mm from the centre of the head
RESIDUAL_LIMIT_MM = 2.0
#: share of the source's head inside the target's field of view, and where a head was imaged
OVERLAP_LIMIT = 0.80
_COARSE_MM = 4.0
_REACH_MM = 80.0
_SECOND_START = ((0.10, -0.08, 0.06), (7.0, -6.0, 8.0))  # radians and mm off the first


@dataclass(frozen=True)
class Registration:
    """A rigid transform and how far to believe it.

    Attributes
    ----------
    transform : sitk.Transform
        Maps points of the source to points of the target, LPS mm.
    information : float
        Mutual information (Mattes) at the end, nats; higher is better.
    residual_mm : float
        How far apart the two runs arrive.
    overlap : float
        Share of the source's head on which the target shows a head.
    """

    transform: sitk.Transform
    information: float
    residual_mm: float
    overlap: float


def register(source: sitk.Image, target: sitk.Image, heads: tuple[Mask, Mask]) -> Registration:
    """Register rigidly, twice, and check.

    Parameters
    ----------
    source, target : sitk.Image
        float32, any grids.
    heads : tuple of Mask
        The head in the source and in the target, (slice, row, column).

    Raises
    ------
    DatasetError
        The optimiser fails, the two runs disagree, or the heads do not overlap.
    """
    fixed, moving = _masked(source, heads[0]), _masked(target, heads[1])
    centre, offset = _centre(fixed), _centre(moving) - _centre(fixed)
    try:
        first = _run(source, target, _start(centre, offset, ((0.0,) * 3, (0.0,) * 3)))
        second = _run(source, target, _start(centre, offset, _SECOND_START))
    except RuntimeError as error:
        raise DatasetError(f"the registration failed: {str(error).splitlines()[-1]}") from error
    best, other = sorted((first, second), key=lambda run: run[1])
    residual = _apart(best[0], other[0], centre)
    overlap = _overlap(fixed, moving, best[0])
    found = Registration(best[0], -best[1], residual, overlap)
    if residual > RESIDUAL_LIMIT_MM:
        raise DatasetError(
            f"the registration is not to be trusted: from two starts it arrives {residual:.1f} mm "
            f"apart (limit {RESIDUAL_LIMIT_MM} mm); register the series beforehand"
        )
    if overlap < OVERLAP_LIMIT:
        raise DatasetError(
            f"after registration the target covers {overlap:.0%} of the source's head "
            f"(limit {OVERLAP_LIMIT:.0%})"
        )
    return found


def _masked(image: sitk.Image, head: Mask) -> sitk.Image:
    mask = sitk.GetImageFromArray(head.astype(np.uint8))
    mask.CopyInformation(image)
    return mask


def _centre(mask: sitk.Image) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(mask)
    if not statistics.HasLabel(1):
        raise DatasetError("the registration found no head in one of the series")
    return np.array(statistics.GetCentroid(1))


def _start(
    centre: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    offset: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    extra: tuple[tuple[float, ...], tuple[float, ...]],
) -> sitk.Euler3DTransform:
    start = sitk.Euler3DTransform()
    start.SetCenter([float(v) for v in centre])
    start.SetRotation(*extra[0])
    start.SetTranslation([float(v) for v in offset + np.array(extra[1])])
    return start


def _run(
    source: sitk.Image, target: sitk.Image, start: sitk.Euler3DTransform
) -> tuple[sitk.Transform, float]:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetInterpolator(sitk.sitkLinear)
    # plain gradient descent stops half way along a rotation of 6 degrees; this does not
    method.SetOptimizerAsConjugateGradientLineSearch(1.0, 60, 1e-6, 10)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([_COARSE_MM, _COARSE_MM / 2])
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    method.SetInitialTransform(sitk.Euler3DTransform(start), True)
    method.SetNumberOfThreads(1)  # the sum over threads has no fixed order
    transform = method.Execute(_coarse(source), _coarse(target))
    return transform, float(method.GetMetricValue())


def _coarse(image: sitk.Image) -> sitk.Image:
    """Thin a volume out to about 4 mm: enough for six numbers, and fifty times faster."""
    factors = [max(1, int(_COARSE_MM / s)) for s in image.GetSpacing()]
    return sitk.Cast(sitk.BinShrink(image, factors), sitk.sitkFloat32)


def _apart(
    first: sitk.Transform,
    second: sitk.Transform,
    centre: "np.ndarray[tuple[int], np.dtype[np.float64]]",
) -> float:
    points = [centre + _REACH_MM * np.array(d) for d in np.vstack([np.eye(3), -np.eye(3)])]
    gaps = [
        np.linalg.norm(np.subtract(first.TransformPoint(p), second.TransformPoint(p)))
        for p in [[float(v) for v in point] for point in points]
    ]
    return float(max(gaps))


def _overlap(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    moved = sitk.Resample(moving, fixed, transform, sitk.sitkNearestNeighbor, 0)
    own, other = sitk.GetArrayViewFromImage(fixed) > 0, sitk.GetArrayViewFromImage(moved) > 0
    return float((own & other).sum() / own.sum())
