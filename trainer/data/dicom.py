"""Reads pairs of DICOM series: SOURCE/<subject>/ holds two folders with one series each.

The source's slices are kept as the scanner measured them, HU untouched, at their own positions and
with their gantry tilt; the target is registered rigidly and sampled at every voxel of the source.
Instances are decoded and ordered by the same code that the node uses. A registration that looks
converged may still be wrong: it is run twice from starts that lie well apart, and accepted only
where both runs agree and the heads then overlap.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from rebrain_node.domain.volume import AIR_HU, Grid, MillimetreArray, SourceVolume
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.instance.pixels import stored_values
from rebrain_node.limits_file import shipped_limits
from rebrain_node.model.resample import resampled, wide_grid
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.preprocess import towards_the_head
from trainer.data.dataset import (
    Affine,
    DatasetError,
    Mask,
    Reading,
    SourceKind,
    SourceSubject,
    Subject,
    Volume,
)
from trainer.data.masks import ct_head, mr_head
from trainer.data.nifti import check_content

#: the registration works on an upright grid of this size
_GRID_MM = 2.0
#: spacing of a registered series may vary by this share of itself
_EVEN = 0.02
_TARGET_FOLDERS = ("target", "mr", "t1")


def find(source: Path) -> list[SourceSubject]:
    """List the subjects: every folder, with the two series folders in it.

    Raises
    ------
    DatasetError
        `source` is no folder.
    """
    if not source.is_dir():
        raise DatasetError(f"{source} is no folder")
    folders = sorted(p for p in source.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [_subject(folder) for folder in folders]


def _subject(folder: Path) -> SourceSubject:
    series = sorted(p for p in folder.iterdir() if p.is_dir())
    targets = [p for p in series if p.name.lower() in _TARGET_FOLDERS]
    if len(series) != 2 or len(targets) != 1:
        names = ", ".join(p.name for p in series) or "nothing"
        return SourceSubject(
            folder.name,
            {"target": folder / _TARGET_FOLDERS[0]},
            f"{folder} must hold two series folders, one of them named "
            f"{' or '.join(_TARGET_FOLDERS)}; it holds {names}",
        )
    (target,) = targets
    (source,) = (p for p in series if p != target)
    return SourceSubject(folder.name, {"source": source, "target": target})


def read_source(folder: Path, kind: SourceKind) -> SourceVolume:
    """Read the source series, turned towards the head; HU for CT, else values as stored.

    Raises
    ------
    DatasetError
        Not one series of the modality, or it cannot be put together.
    """
    instances = _instances(folder, "CT" if kind == "ct" else "MR")
    try:
        volume = towards_the_head(
            assemble(instances, shipped_limits().geometry)
            if kind == "ct"
            else _as_stored(instances)
        )
    except SeriesRejectedError as error:
        raise DatasetError(f"{folder}: {error}") from error
    if len(volume.positions_mm) < 2:
        raise DatasetError(f"{folder} has one slice: no volume")
    return volume


def read_target(folder: Path) -> SourceVolume:
    """Read the target series, an MR in any orientation, slices ordered.

    Raises
    ------
    DatasetError
        Not one MR series, or it cannot be put together.
    """
    instances = _instances(folder, "MR")
    try:
        return _as_stored(instances)
    except SeriesRejectedError as error:
        raise DatasetError(f"{folder}: {error}") from error


def _instances(folder: Path, modality: str) -> list[Dataset]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    instances = [_instance(path) for path in paths]
    found = {str(i.get("Modality", "none")): p.name for i, p in zip(instances, paths, strict=True)}
    if list(found) != [modality]:
        named = ", ".join(f"{each} ({name})" for each, name in sorted(found.items()))
        raise DatasetError(
            f"{folder} must hold one {modality} series; it holds {named or 'nothing'}"
        )
    return instances


def _instance(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path)
    except (InvalidDicomError, OSError) as error:
        raise DatasetError(f"{path} is no DICOM instance: {error}") from error


def _as_stored(instances: list[Dataset]) -> SourceVolume:
    """Put an MR series together; its values are arbitrary, so an absent rescale is 1 and 0."""
    for instance in instances:
        instance.RescaleSlope = instance.get("RescaleSlope", 1)
        instance.RescaleIntercept = instance.get("RescaleIntercept", 0)
    volume = assemble(instances, shipped_limits().geometry)
    by_uid = {str(i.SOPInstanceUID): i for i in instances}
    planes = [
        stored_values(by_uid[uid], frame) * float(by_uid[uid].RescaleSlope)
        + float(by_uid[uid].RescaleIntercept)
        for uid, frame in zip(volume.sop_instance_uids, volume.frame_numbers, strict=True)
    ]
    return replace(volume, hu=np.stack(planes).astype(np.float32))


def regular_image(volume: SourceVolume, folder: Path) -> sitk.Image:
    """Return a series as one image.

    Raises
    ------
    DatasetError
        One slice, uneven spacing or a tilted gantry: no regular grid.
    """
    if len(volume.positions_mm) < 2:
        raise DatasetError(f"{folder} has one slice: no volume")
    steps = np.diff(volume.positions_mm, axis=0)
    spacing = float(np.linalg.norm(steps[0]))
    if np.abs(steps - volume.normal * spacing).max() > _EVEN * spacing:
        raise DatasetError(
            f"{folder}: the slices lie uneven or slanted; a registered series needs a regular grid"
        )
    image = sitk.GetImageFromArray(volume.hu)
    return _lying(image, volume, volume.positions_mm[0], (*volume.pixel_spacing_mm[::-1], spacing))


def _lying(
    image: sitk.Image,
    axes: SourceVolume | Grid,
    origin_mm: MillimetreArray,
    spacing_mm: tuple[float, float, float],
) -> sitk.Image:
    """Give an image its origin, LPS mm, its axes, and its spacing (column, row, slice)."""
    image.SetSpacing([float(v) for v in spacing_mm])
    image.SetOrigin([float(v) for v in origin_mm])
    columns = np.stack([axes.row_direction, axes.column_direction, axes.normal], axis=1)
    image.SetDirection([float(v) for v in columns.ravel()])
    return image


def upright_image(volume: SourceVolume) -> sitk.Image:
    """Return the source on a regular 2 mm grid, for the registration alone.

    Uneven spacing and gantry tilt are undone by interpolation; outside is air, or 0 for MR.
    """
    grid = wide_grid(volume, _GRID_MM)
    planes = resampled(volume, grid)
    distances = volume.distances_mm - volume.distances_mm[0]
    even = np.arange(0.0, distances[-1] + 1e-6, _GRID_MM)
    above = np.clip(np.searchsorted(distances, even, side="right"), 1, len(distances) - 1)
    share = (even - distances[above - 1]) / (distances[above] - distances[above - 1])
    weight = share.astype(np.float32)[:, None, None]
    image = sitk.GetImageFromArray(planes[above - 1] * (1 - weight) + planes[above] * weight)
    return _lying(image, grid, grid.origin_mm, (_GRID_MM,) * 3)


def sampled_at(
    volume: SourceVolume, target: sitk.Image, transform: sitk.Transform
) -> tuple[Volume, Mask]:
    """Sample the registered target at every voxel of the source; where it has none, 0 and False."""
    spacing_mm = (*volume.pixel_spacing_mm[::-1], 1.0)
    everywhere = sitk.Cast(target * 0 + 1, sitk.sitkUInt8)
    values, seen = [], []
    for position in volume.positions_mm:
        empty = sitk.Image([volume.hu.shape[2], volume.hu.shape[1], 1], sitk.sitkFloat32)
        plane = _lying(empty, volume, position, spacing_mm)
        moved = sitk.Resample(target, plane, transform, sitk.sitkLinear, 0.0)
        covered = sitk.Resample(everywhere, plane, transform, sitk.sitkNearestNeighbor, 0)
        values.append(sitk.GetArrayFromImage(moved)[0])
        seen.append(sitk.GetArrayFromImage(covered)[0] > 0)
    return np.stack(values), np.stack(seen)


def affine_of(volume: SourceVolume) -> Affine | None:
    """Return the 4 x 4 matrix from (column, row, slice) to LPS mm; None where spacing varies."""
    steps = np.diff(volume.positions_mm, axis=0)
    if np.abs(steps - steps.mean(0)).max() > _EVEN * np.linalg.norm(steps.mean(0)):
        return None
    down, across = volume.pixel_spacing_mm
    matrix = np.eye(4)
    matrix[:3, 0] = volume.row_direction * across
    matrix[:3, 1] = volume.column_direction * down
    matrix[:3, 2] = steps.mean(0)
    matrix[:3, 3] = volume.positions_mm[0]
    rows = [tuple(float(v) for v in row) for row in matrix]
    return tuple((a, b, c, d) for a, b, c, d in rows)


def read(found: SourceSubject, kind: SourceKind) -> Reading:
    """Read, register and sample one subject.

    Raises
    ------
    DatasetError
        A series cannot be read, or the registration is not to be trusted.
    """
    source = read_source(found.files["source"], kind)
    target = regular_image(read_target(found.files["target"]), found.files["target"])
    check_content(sitk.GetArrayViewFromImage(target), found.files["target"], "mr")
    upright = upright_image(source)
    values = sitk.GetArrayFromImage(upright)
    head = ct_head(values, upright.GetSpacing()) if kind == "ct" else mr_head(upright)
    try:
        fit = register(upright, target, (head, mr_head(target)))
    except DatasetError as error:
        raise DatasetError(f"{found.files['target']}: {error}") from error
    registered, seen = sampled_at(source, target, fit.transform)
    return Reading(
        Subject(
            name=found.name,
            source=np.clip(np.round(source.hu), AIR_HU, 32767) if kind == "ct" else source.hu,
            target=registered,
            mask=_head_of(source, upright, head) & seen,
            brain=None,
            positions_mm=source.distances_mm,
            pixel_mm=(float(source.pixel_spacing_mm[0]), float(source.pixel_spacing_mm[1])),
        ),
        affine_of(source),
        (
            (
                f"target registered rigidly: mutual information {fit.information:.3f}, two starts "
                f"{fit.residual_mm:.2f} mm apart, overlap of heads {fit.overlap:.3f}"
            ),
            "target interpolated linearly at the voxels of the source",
            f"gantry tilt {source.tilt_deg:.1f} degrees kept as measured",
            "mask computed from the source, within the field of view of the target",
        ),
    )


def _head_of(volume: SourceVolume, upright: sitk.Image, head: Mask) -> Mask:
    """Return the head, found on the upright grid, at the voxels of the source."""
    coarse = sitk.GetImageFromArray(head.astype(np.float32))
    coarse.CopyInformation(upright)
    share, _ = sampled_at(volume, coarse, sitk.Transform())
    return share > 0.5


#: both runs arrive within so much of each other, at 80 mm from the centre of the head
RESIDUAL_LIMIT_MM = 2.0
#: share of the source's head inside the target's field of view, and where a head was imaged
OVERLAP_LIMIT = 0.80
_COARSE_MM = 4.0
_REACH_MM = 80.0
_SECOND_START = ((0.10, -0.08, 0.06), (7.0, -6.0, 8.0))  # radians and mm off the first


@dataclass(frozen=True)
class Registration:
    """A rigid transform and how far to believe it."""

    transform: sitk.Transform  #: maps points of the source to points of the target, LPS mm
    information: float  #: mutual information (Mattes) at the end, nats; higher is better
    residual_mm: float  #: how far apart the two runs arrive
    overlap: float  #: share of the source's head on which the target shows a head


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


def _centre(mask: sitk.Image) -> MillimetreArray:
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(mask)
    if not statistics.HasLabel(1):
        raise DatasetError("the registration found no head in one of the series")
    return np.array(statistics.GetCentroid(1))


def _start(
    centre: MillimetreArray,
    offset: MillimetreArray,
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
    centre: MillimetreArray,
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
