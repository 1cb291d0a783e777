"""From a whole-head T1 (and FLAIR) to 1 mm maps of anatomy: the raw material of simulated CT.

Axis order (z, y, x) along LPS: z to superior, y to posterior, x to the patient's left.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage as ndi

from trainer.heads import Head
from trainer.simulate.template import (
    CtTemplate,
    Volume,
    as_array,
    as_image,
    fit_affine,
    fit_demons,
    read_lps,
    resampled,
)

# Canonical T1: every head is mapped to these levels, or the network would have to average
# contrasts that it cannot know from CT.
CANONICAL = {"csf": 0.13, "grey": 0.42, "white": 0.62, "fat": 0.95}


class HeadError(Exception):
    """A head cannot be used; the message says why."""


@dataclass(frozen=True)
class TissueLevels:
    """T1 brightness of csf, grey matter, white matter and fat, in the head's own units."""

    csf: float
    grey: float
    white: float
    fat: float

    def canonical(self, t1: Volume) -> Volume:
        """Map T1 brightness onto the canonical contrast, 0 to 1."""
        own = [0, self.csf, self.grey, self.white, self.fat, 1.5 * self.fat]
        return np.interp(t1, own, [0, *CANONICAL.values(), 1.0]).astype(np.float32)


def head_mask(t1: Volume) -> NDArray[np.bool_]:
    """Return the head in a 2 mm T1: 10 % of the 99th percentile, largest part, closed, filled.

    Raises
    ------
    HeadError
        Nothing is bright.
    """
    mask = ndi.binary_opening(t1 > max(float(np.percentile(t1, 99)) * 0.10, 1e-3))
    labels, count = ndi.label(mask)
    if count == 0:
        raise HeadError("no voxel brighter than a tenth of the 99th percentile")
    sizes = ndi.sum_labels(mask, labels, range(1, count + 1))
    mask = labels == 1 + int(np.argmax(sizes))
    mask = ndi.binary_closing(np.pad(mask, 8), iterations=6)[8:-8, 8:-8, 8:-8]
    return np.stack([ndi.binary_fill_holes(plane) for plane in mask])


def bias_field(t1: sitk.Image, head: NDArray[np.bool_]) -> sitk.Image:
    """Return the logarithm of the N4 bias field on the grid of `t1` (2 mm)."""
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations([30, 30, 20])
    mask = sitk.Cast(as_image(head, t1), sitk.sitkUInt8)
    corrector.Execute(sitk.Shrink(t1, [2] * 3), sitk.Shrink(mask, [2] * 3))
    return corrector.GetLogBiasFieldAsImage(t1)


def class_means(values: Volume, priors: Volume) -> NDArray[np.float64]:
    """Return the means of csf, grey and white by EM in one dimension.

    Parameters
    ----------
    values : Volume
        Brightness, shape (n,).
    priors : Volume
        Warped prior probabilities of csf, grey and white, shape (3, n), all above 0.

    Raises
    ------
    HeadError
        The means are not in the order csf < grey < white, so this is no T1-weighted head.
    """
    weights = priors + 0.05
    mean = (weights * values).sum(1) / weights.sum(1)
    spread = np.full(3, values.std() / 2)
    for _ in range(40):
        gauss = np.exp(-0.5 * ((values - mean[:, None]) / spread[:, None]) ** 2) / spread[:, None]
        likely = weights * gauss + 1e-12
        likely /= likely.sum(0)
        mean = (likely * values).sum(1) / likely.sum(1)
        variance = (likely * (values - mean[:, None]) ** 2).sum(1) / likely.sum(1)
        spread = np.sqrt(variance) + 1e-3 * values.std()
    if not mean[0] < mean[1] < mean[2]:
        raise HeadError(f"csf, grey and white brightness {mean.round(1)} do not rise: not a T1")
    return np.asarray(mean, dtype=np.float64)


def _levels(t1: Volume, head: NDArray[np.bool_], warped: dict[str, Volume]) -> TissueLevels:
    inside = np.clip(warped["grey"] + warped["white"] + warped["csf"], 0, 1)
    sure = inside > 0.9
    priors = np.stack([warped[k][sure] for k in ("csf", "grey", "white")])
    csf, grey, white = class_means(t1[sure][::7], priors[:, ::7])
    if csf > 0.65 * grey:  # csf class polluted by partial volume (young, narrow ventricles)
        csf = np.percentile(t1[(warped["csf"] > 0.8) & sure], 20)
        span = white - csf
        grey = np.median(
            t1[(warped["grey"] > 0.85) & (t1 > csf + 0.35 * span) & (t1 < csf + 0.9 * span)]
        )
    fat = max(float(np.percentile(t1[head & (inside < 0.05)], 97)), 1.1 * float(white))
    return TissueLevels(float(csf), float(grey), float(white), fat)


def _lesions(flair: Path, like: sitk.Image, warped: dict[str, Volume], canonical: Volume) -> Volume:
    """Return the membership (0 to 1) of white-matter lesions bright on FLAIR."""
    image = sitk.Resample(read_lps(flair), like, sitk.Transform(), sitk.sitkLinear, 0.0)
    bright = ndi.gaussian_filter(as_array(image), 0.8)

    def robust(values: Volume) -> tuple[float, float]:
        median = float(np.median(values))
        return median, 1.4826 * float(np.median(np.abs(values - median)))

    white, white_spread = robust(bright[warped["white"] > 0.8])
    grey, grey_spread = robust(bright[(warped["grey"] > 0.8) & (canonical > 0.3)])
    limit = max(white + 2.5 * white_spread, grey + 2.0 * grey_spread)
    inside = warped["grey"] + warped["white"] + warped["csf"] > 0.95
    core = ndi.binary_erosion(inside, iterations=6) & (canonical > 0.25)
    membership = np.clip((bright - limit) / (1.5 * white_spread), 0, 1) * core
    return np.asarray(membership, dtype=np.float32)


def _warped(template: CtTemplate, onto: sitk.Image, transform: sitk.Transform) -> dict[str, Volume]:
    """Bring the template's maps and its MNI coordinates (mm, RAS) onto the grid of the head."""
    z, y, x = np.indices(template.hu.shape, dtype=np.float32)
    ox, oy, oz = template.image.GetOrigin()
    step = template.image.GetSpacing()[0]
    maps: dict[str, tuple[NDArray[np.generic], float]] = {
        "hu": (template.hu, -1000.0),
        "grey": (template.grey, 0.0),
        "white": (template.white, 0.0),
        "csf": (template.csf, 0.0),
        "mni_x": (-(ox + step * x), 0.0),
        "mni_y": (-(oy + step * y), 0.0),
        "mni_z": (oz + step * z, 0.0),
    }
    return {
        name: as_array(
            sitk.Resample(
                as_image(array, template.image), onto, transform, sitk.sitkLinear, outside
            )
        )
        for name, (array, outside) in maps.items()
    }


def _fit(
    t1: Volume, grid: sitk.Image, head: NDArray[np.bool_], template: CtTemplate
) -> sitk.Transform:
    """Register the template to the bias-corrected 2 mm T1."""
    bright = as_image(np.clip(t1 / np.percentile(t1[head], 98), 0, 1.3) * head, grid)
    affine = fit_affine(bright, head, template)
    warped = _warped(template, grid, affine)
    sure = warped["grey"] + warped["white"] + warped["csf"] > 0.9
    priors = np.stack([warped[k][sure] for k in ("csf", "grey", "white")])
    csf, grey, white = class_means(t1[sure], priors)
    top = max(float(np.percentile(t1[head], 99.7)), 1.2 * float(white))
    levelled = np.interp(t1, [0, csf, grey, white, top], [0, 0.2, 0.7, 1.0, 1.3]) * head
    return fit_demons(as_image(levelled, grid), template, affine)


def fit_to_mni(
    t1: Volume, origin_mm: tuple[float, ...], head: NDArray[np.bool_], template: CtTemplate
) -> dict[str, NDArray[np.int8]]:
    """Register the template to a T1 at 1 mm, (z, y, x) along LPS; return MNI mm of every voxel.

    Returns
    -------
    dict of ndarray
        `mni_x`, `mni_y`, `mni_z`, (z, y, x), mm.
    """
    fine = sitk.GetImageFromArray(np.ascontiguousarray(t1, dtype=np.float32))
    fine.SetOrigin(origin_mm)
    coarse = resampled(fine, 2.0)
    mask = sitk.Resample(as_image(head, fine), coarse, sitk.Transform(), sitk.sitkLinear, 0.0)
    transform = _fit(as_array(coarse), coarse, as_array(mask) > 0.5, template)
    warped = _warped(template, fine, transform)
    return {k: np.clip(warped[k], -125, 125).astype(np.int8) for k in ("mni_x", "mni_y", "mni_z")}


def map_anatomy(head: Head, template: CtTemplate) -> dict[str, NDArray[np.generic]]:
    """Turn one head into the maps that `trainer.simulate.hounsfield` needs.

    Returns
    -------
    dict of ndarray
        (z, y, x) at 1 mm, LPS. `t1` canonical T1 x 200 (uint8); `smooth_t1` its denoised copy;
        `template_hu` int16 HU; `inside`, `grey`, `lesion` 0 to 255; `head` bool; `mni_x`,
        `mni_y`, `mni_z` int8 mm; `origin_mm` (3,) x, y, z of the first voxel.

    Raises
    ------
    HeadError
        No head, or brightness levels that are not those of a T1.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    image = read_lps(head.t1)
    coarse = resampled(image, 2.0)
    mask = head_mask(as_array(coarse))
    log_bias = bias_field(coarse, mask)
    corrected = as_array(coarse) / np.clip(np.exp(as_array(log_bias)), 0.2, 5)
    transform = _fit(corrected, coarse, mask, template)

    fine = resampled(image, 1.0, sitk.sitkBSpline)

    def on_fine(source: sitk.Image) -> Volume:
        return as_array(sitk.Resample(source, fine, sitk.Transform(), sitk.sitkLinear, 0.0))

    t1 = np.clip(as_array(fine), 0, None) / np.clip(np.exp(on_fine(log_bias)), 0.2, 5)
    warped = _warped(template, fine, transform)
    whole = on_fine(as_image(mask, coarse)) > 0.5
    levels = _levels(t1, whole, warped)
    whole |= ndi.binary_dilation(whole) & (t1 > 0.8 * levels.csf)

    canonical = levels.canonical(t1)
    canonical *= ndi.gaussian_filter(ndi.binary_dilation(whole).astype(np.float32), 0.7)
    smooth = as_array(
        sitk.CurvatureAnisotropicDiffusion(as_image(canonical, fine), 0.0625, 1.5, 1, 4)
    )
    lesion = (
        np.zeros_like(canonical)
        if head.flair is None
        else _lesions(head.flair, fine, warped, canonical)
    )
    inside = np.clip(warped["grey"] + warped["white"] + warped["csf"], 0, 1)

    def as_bytes(values: Volume, scale: float) -> NDArray[np.uint8]:
        return np.clip(np.round(values * scale), 0, 255).astype(np.uint8)

    coordinates = {
        k: np.clip(warped[k], -125, 125).astype(np.int8) for k in ("mni_x", "mni_y", "mni_z")
    }
    return {
        "t1": as_bytes(canonical, 200),
        "smooth_t1": as_bytes(smooth, 200),
        "template_hu": np.clip(warped["hu"], -1000, 1500).astype(np.int16),
        "inside": as_bytes(inside, 255),
        "grey": as_bytes(warped["grey"], 255),
        "lesion": as_bytes(lesion, 255),
        "head": whole,
        "origin_mm": np.array(fine.GetOrigin()),
        **coordinates,
    }
