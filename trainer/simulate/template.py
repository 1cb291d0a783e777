"""The CT template and its fit to a T1 head: affine by mutual information, then demons.

A T1-like image is made *from the CT template* and registered to the T1, so that bone, air and
soft tissue of the template arrive in the head of the subject. All volumes are LPS, axis order
(z, y, x), millimetres.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage as ndi

Volume = NDArray[np.float32]

_VAULT_MM = 165.0  # the fixed mask: necks of very different length must not steer the fit
_TOP_MM = 130.0


def read_lps(path: Path) -> sitk.Image:
    """Read a NIfTI volume as float32 with axes along LPS; a small obliquity is kept as rotation 0.

    The direction is replaced by the identity: an oblique head is merely a tilted head, which the
    fit of the template takes up.
    """
    image = sitk.DICOMOrient(sitk.ReadImage(str(path), sitk.sitkFloat32), "LPS")
    image.SetDirection(np.eye(3).ravel().tolist())
    return image


def as_array(image: sitk.Image) -> Volume:
    """Return the voxels as float32 (z, y, x)."""
    return np.asarray(sitk.GetArrayFromImage(image), dtype=np.float32)


def as_image(array: NDArray[np.generic], like: sitk.Image) -> sitk.Image:
    """Return `array` (z, y, x) as a float32 image with the geometry of `like`."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array, dtype=np.float32))
    image.CopyInformation(like)
    return image


def resampled(
    image: sitk.Image, spacing_mm: float, interpolator: int = sitk.sitkLinear
) -> sitk.Image:
    """Return `image` on an isotropic grid with the same origin."""
    size = [
        int(np.ceil(n * s / spacing_mm))
        for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)
    ]
    return sitk.Resample(
        image, size, sitk.Transform(), interpolator, image.GetOrigin(),
        [spacing_mm] * 3, image.GetDirection(), 0.0,
    )  # fmt: skip


@dataclass(frozen=True)
class CtTemplate:
    """The CT template in MNI space with its tissue priors, each (z, y, x)."""

    image: sitk.Image  #: geometry of all maps, 2 mm
    hu: Volume  #: attenuation, HU
    #: grey, white, csf: prior probabilities, 0 to 1
    grey: Volume
    white: Volume
    csf: Volume
    head: NDArray[np.bool_]  #: the head
    pseudo_t1: Volume  #: T1-like brightness, 0 to 1, for the registration


def load_template(folder: Path) -> CtTemplate:
    """Load `scct` (Cormack units) and its priors from `folder` and build the pseudo T1."""
    image = read_lps(folder / "scct.nii.gz")
    cormack = as_array(image)
    hu = np.where(
        cormack < 900,
        cormack - 1000,
        np.where(cormack < 3100, (cormack - 2000) / 11, cormack - 3000),
    ).astype(np.float32)
    grey, white, csf = (
        as_array(read_lps(folder / f"sc{name}.nii.gz")) for name in ("grey", "white", "csf")
    )
    inside = np.clip(grey + white + csf, 0, 1)
    brain = (0.7 * grey + 1.0 * white + 0.2 * csf) / np.maximum(grey + white + csf, 1e-3)
    soft = np.clip((hu + 400) / 300, 0, 1) * (hu < 150)
    bone = np.clip((hu - 90) / 200, 0, 1)
    outside = 0.85 * soft * (1 - bone) + 0.15 * bone
    head = ndi.binary_fill_holes(ndi.binary_opening(hu > -300, iterations=2))
    pseudo = (inside * brain + (1 - inside) * outside).astype(np.float32)
    return CtTemplate(image, hu, grey, white, csf, head, pseudo)


def _top_point(mask: NDArray[np.bool_], image: sitk.Image) -> NDArray[np.float64]:
    """Return (x, y) of the centre of the upper head and z of its top, LPS mm."""
    top = int(np.flatnonzero(mask.sum(axis=(1, 2)) > 60)[-1])
    spacing = image.GetSpacing()[2]
    lowest = max(0, top - int(_TOP_MM / spacing))
    _, y, x = ndi.center_of_mass(mask[lowest : top + 1])
    return np.array(image.TransformContinuousIndexToPhysicalPoint((float(x), float(y), float(top))))


def fit_affine(
    fixed: sitk.Image, head: NDArray[np.bool_], template: CtTemplate
) -> sitk.AffineTransform:
    """Fit the template to `fixed` (2 mm, brightness 0 to about 1) by Mattes mutual information."""
    top = _top_point(head, fixed)
    affine = sitk.AffineTransform(3)
    affine.SetCenter([float(top[0]), float(top[1]), float(top[2] - 70)])
    affine.SetTranslation((_top_point(template.head, template.image) - top).tolist())

    mask = np.zeros(head.shape, np.uint8)
    lowest = int((top[2] - _VAULT_MM - fixed.GetOrigin()[2]) / fixed.GetSpacing()[2])
    mask[max(0, lowest) :] = 1
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(40)
    method.SetMetricFixedMask(sitk.Cast(as_image(mask, fixed), sitk.sitkUInt8))
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.15, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 150, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([3, 1.5, 0.5])
    method.SetInitialTransform(affine, inPlace=True)
    method.Execute(
        sitk.SmoothingRecursiveGaussian(fixed, 1.0), as_image(template.pseudo_t1, template.image)
    )
    return affine


def _demons(
    fixed: sitk.Image, moving: sitk.Image, iterations: int, sigma: float, start: sitk.Image | None
) -> sitk.Image:
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(iterations)
    demons.SetStandardDeviations(sigma)
    demons.SetSmoothDisplacementField(True)
    return demons.Execute(fixed, moving) if start is None else demons.Execute(fixed, moving, start)


def fit_demons(
    fixed: sitk.Image, template: CtTemplate, affine: sitk.AffineTransform
) -> sitk.CompositeTransform:
    """Refine `affine` by symmetric-forces demons at 4 mm (80 iterations) and 2 mm (60).

    `fixed` carries the template's brightness levels (csf 0.2, grey 0.7, white 1.0).
    """
    moving = sitk.Resample(
        as_image(template.pseudo_t1, template.image), fixed, affine, sitk.sitkLinear, 0.0
    )
    smooth_fixed = sitk.SmoothingRecursiveGaussian(fixed, 1.5)
    smooth_moving = sitk.SmoothingRecursiveGaussian(moving, 1.0)
    coarse = _demons(
        sitk.Shrink(smooth_fixed, [2] * 3), sitk.Shrink(smooth_moving, [2] * 3), 80, 1.2, None
    )
    start = sitk.Resample(
        coarse, fixed, sitk.Transform(), sitk.sitkLinear, 0.0, coarse.GetPixelID()
    )
    field = _demons(smooth_fixed, smooth_moving, 60, 1.8, start)
    warp = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    return sitk.CompositeTransform([affine, warp])
