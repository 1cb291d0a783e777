"""Reads NIfTI pairs on one grid, turned the way the format wants; names what is unfit.

Turning means renaming and reversing axes: no voxel changes. Only a grid that leans more than
`OBLIQUE_LIMIT_DEG` from the patient's axes is resampled, and the notes of the subject say so.
Where mirroring one image of a pair raises their shared information clearly, a header is wrong.
Header fields by byte offset: NIfTI-1, https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

import gzip
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from rebrain_node.domain.volume import AIR_HU
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
from trainer.data.masks import ct_head, mr_head, not_background

#: a head lies up to about this in a scanner; beyond it the names of the axes lose their meaning
OBLIQUE_LIMIT_DEG = 20.0
#: corners of two grids may differ by so much; half-precision headers are this exact
SAME_GRID_MM = 0.1


def read_volume(path: Path) -> sitk.Image:
    """Read one 3-D NIfTI volume as float32, axes renamed and reversed to LPS.

    Raises
    ------
    DatasetError
        Missing, damaged, cut off, not 3-D, of one slice, without a stated orientation, not finite.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing")
    try:
        header = sitk.ImageFileReader()
        header.SetFileName(str(path))
        header.ReadImageInformation()
        _check_header(path, header)
        image = sitk.DICOMOrient(sitk.ReadImage(str(path), sitk.sitkFloat32), "LPS")
    except RuntimeError as error:
        raise DatasetError(f"{path} cannot be read: {_last_line(error)}") from error
    if min(image.GetSize()) < 2:
        raise DatasetError(f"{path} has the size {image.GetSize()}: one slice is no volume")
    _check_voxels(path, math.prod(image.GetSize()))
    return image


def _check_header(path: Path, header: sitk.ImageFileReader) -> None:
    size = header.GetSize()
    if len(size) != 3:
        raise DatasetError(
            f"{path} has the size {size}: {len(size)}-D, a 3-D volume is needed; split it first"
        )
    if header.GetNumberOfComponents() != 1:
        raise DatasetError(f"{path} has {header.GetNumberOfComponents()} values in each voxel")
    codes = [
        header.GetMetaData(key).strip() if header.HasMetaDataKey(key) else "0"
        for key in ("qform_code", "sform_code")
    ]
    if codes in (["0", "0"], ["NIFTI_XFORM_UNKNOWN"] * 2):
        raise DatasetError(
            f"{path} does not say how the head lies (qform_code and sform_code are 0); "
            "set its orientation first"
        )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def lean_deg(image: sitk.Image) -> float:
    """Return the largest angle between an axis of an LPS volume and the patient's, degrees."""
    cosines = np.abs(np.diag(np.reshape(image.GetDirection(), (3, 3))))
    return float(np.degrees(np.arccos(np.clip(cosines.min(), 0, 1))))


def _corners(image: sitk.Image) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    ends = [(0, n - 1) for n in image.GetSize()]
    return np.array(
        [
            image.TransformIndexToPhysicalPoint((x, y, z))
            for x in ends[0]
            for y in ends[1]
            for z in ends[2]
        ]
    )


def check_same_grid(first: sitk.Image, second: sitk.Image, paths: tuple[Path, Path]) -> None:
    """Hold two volumes against each other.

    Raises
    ------
    DatasetError
        Different sizes, or corners that lie apart.
    """
    if first.GetSize() != second.GetSize():
        raise DatasetError(
            f"{paths[1]} has the size {second.GetSize()} (columns, rows, slices), "
            f"{paths[0]} {first.GetSize()}: resample them to one grid first"
        )
    apart = float(np.linalg.norm(_corners(first) - _corners(second), axis=1).max())
    if apart > SAME_GRID_MM:
        raise DatasetError(
            f"{paths[1]} lies {apart:.2f} mm from {paths[0]} at a corner (limit {SAME_GRID_MM} "
            "mm): resample them to one grid first"
        )


def affine_of(image: sitk.Image) -> Affine:
    """Return the 4 x 4 matrix from (column, row, slice) to LPS mm."""
    scaled = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    rows = [(*map(float, r), float(o)) for r, o in zip(scaled, image.GetOrigin(), strict=True)]
    return (*((a, b, c, d) for a, b, c, d in rows), (0.0, 0.0, 0.0, 1.0))


def upright_grid(image: sitk.Image) -> sitk.Image:
    """Return an empty grid along the patient's axes that holds all of an oblique volume."""
    corners, spacing = _corners(image), np.array(image.GetSpacing())
    low, high = corners.min(0), corners.max(0)
    size = np.ceil((high - low) / spacing).astype(int) + 1
    grid = sitk.Image([int(n) for n in size], sitk.sitkFloat32)
    grid.SetOrigin([float(v) for v in low])
    grid.SetSpacing(image.GetSpacing())
    return grid


def read_pair(found: SourceSubject, kind: SourceKind) -> Reading:
    """Read source, target and, where there is one, the mask of one subject.

    Raises
    ------
    DatasetError
        A file is unfit, the grids differ, nothing is there, or one volume lies mirrored.
    """
    paths = found.files
    images = {what: read_volume(path) for what, path in paths.items()}
    for what in images:
        check_same_grid(images["source"], images[what], (paths["source"], paths[what]))
    notes = []
    lean = lean_deg(images["source"])
    if lean > OBLIQUE_LIMIT_DEG:
        images = _resampled(images, kind)
        notes.append(
            f"resampled (linear, mask nearest) to the patient's axes: leant {lean:.1f} degrees"
        )
    arrays = {what: sitk.GetArrayFromImage(image) for what, image in images.items()}
    source, target = arrays["source"], arrays["target"]
    check_content(source, paths["source"], kind)
    check_content(target, paths["target"], "mr")
    axis = mirrored_axis(source, target)
    if axis is not None:
        raise DatasetError(
            f"{paths['target']} fits {paths['source']} better when mirrored along its {axis}: "
            "one of them has a wrong orientation"
        )
    if kind == "ct":
        source = np.clip(np.round(source), AIR_HU, np.iinfo(np.int16).max)
    mask, note = _mask(arrays, images["target"], kind)
    notes += note
    grid = images["source"]
    across, down, along = grid.GetSpacing()
    normal = np.reshape(grid.GetDirection(), (3, 3))[:, 2]
    positions = np.array(grid.GetOrigin()) @ normal + along * np.arange(source.shape[0])
    return Reading(
        Subject(found.name, source, target, mask, None, positions, (down, across)),
        affine_of(grid),
        tuple(notes),
    )


def _resampled(images: dict[str, sitk.Image], kind: SourceKind) -> dict[str, sitk.Image]:
    grid = upright_grid(images["source"])
    outside = {"source": AIR_HU if kind == "ct" else 0.0, "target": 0.0, "mask": 0.0}
    return {
        what: sitk.Resample(
            image,
            grid,
            sitk.Transform(),
            sitk.sitkNearestNeighbor if what == "mask" else sitk.sitkLinear,
            outside[what],
        )
        for what, image in images.items()
    }


def check_content(volume: Volume, path: Path, kind: SourceKind) -> None:
    """Hold the values of a volume against what they should be.

    Raises
    ------
    DatasetError
        One value everywhere, or a CT without air, which cannot be in HU.
    """
    low, high = float(volume.min()), float(volume.max())
    if low == high:
        raise DatasetError(f"{path} is {low:g} everywhere: an empty subject")
    if kind == "ct" and low > -500:
        raise DatasetError(f"{path} has no value below {low:g}: a CT in HU has air at about -1000")


def _mask(
    arrays: dict[str, Volume], grid: sitk.Image, kind: SourceKind
) -> tuple[Mask, tuple[str, ...]]:
    if "mask" in arrays:
        return arrays["mask"] > 0.5, ()
    if kind == "ct":
        return ct_head(arrays["source"], grid.GetSpacing()), ("mask computed from the CT",)
    return mr_head(grid), ("mask computed from the target",)


def read_stripped_pair(found: SourceSubject, kind: SourceKind) -> Reading:
    """Read a pair whose skull was removed: the mask is what is not background, and all is brain."""
    reading = read_pair(found, kind)
    whole = reading.subject
    brain = not_background(whole.target) | not_background(whole.source)
    notes = tuple(n for n in reading.notes if not n.startswith("mask"))
    return Reading(
        replace(whole, mask=brain, brain=brain),
        reading.affine,
        (*notes, "mask and brain: voxels other than 0"),
    )


#: mirrored must be better by this factor; symmetric phantoms and noise stay far below
_CLEARLY = 1.15
_BINS = 24
_ACROSS = 48  # voxels looked at along each axis
_AXES = {"slices": 0, "rows": 1, "columns": 2}


def _shared_information(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mutual information, nats, by ranks in 24 bins: neither contrast nor outliers matter."""
    counts, _, _ = np.histogram2d(_binned(first), _binned(second), bins=_BINS)
    joint = counts / counts.sum()
    alone = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / alone[seen])).sum())


def _binned(values: NDArray[np.float32]) -> NDArray[np.float64]:
    flat = values.ravel()
    edges = np.unique(np.quantile(flat, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.searchsorted(edges, flat, side="right").astype(np.float64)


def mirrored_axis(source: Volume, target: Volume) -> str | None:
    """Return "slices", "rows" or "columns" where mirroring the target along it fits better."""
    steps = tuple(slice(None, None, max(1, n // _ACROSS)) for n in source.shape)
    first, second = source[steps], target[steps]
    as_is = _shared_information(first, second)
    mirrored = {name: _shared_information(first, np.flip(second, a)) for name, a in _AXES.items()}
    best = max(mirrored, key=lambda name: mirrored[name])
    return best if mirrored[best] > _CLEARLY * as_is else None


_HEADER_BYTES = 348
_FLOATS = {16: "f4", 64: "f8"}  # datatype codes of float32 and float64


def _check_voxels(path: Path, voxels: int) -> None:
    """Hold the bytes of a NIfTI-1 file against its header: the reader fills up what is missing.

    Raises
    ------
    DatasetError
        The file is cut off or damaged, or voxels are NaN or infinite.
    """
    content = _content(path)
    orders = [o for o in "<>" if struct.unpack_from(f"{o}i", content)[0] == _HEADER_BYTES]
    if not orders:  # NIfTI-2
        return
    (order,) = orders
    code, bits = struct.unpack_from(f"{order}2h", content, 70)
    (start,) = struct.unpack_from(f"{order}f", content, 108)
    stored, expected = len(content) - int(start), voxels * bits // 8
    if stored < expected:
        raise DatasetError(
            f"{path} is cut off: {max(stored, 0)} of {expected} bytes of voxels are there; "
            "copy it again"
        )
    if code in _FLOATS:
        values = np.frombuffer(content, np.dtype(order + _FLOATS[code]), voxels, int(start))
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise DatasetError(f"{path} has {bad} voxels that are NaN or infinite")


def _content(path: Path) -> bytes:
    """Read a file, decompressed where it is.

    Raises
    ------
    DatasetError
        The compressed data end early or are damaged.
    """
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path} is damaged: {error}; copy it again") from error
