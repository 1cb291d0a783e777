"""Pictures of a stored result: synthetic MR and uncertainty in three planes, from its objects."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from rebrain_node.domain.job import DerivedInstance
from rebrain_node.domain.volume import FloatArray, Grid
from rebrain_node.pictures import HEAT, Picture, Pixels, UprightVolume, colour_map, grey
from rebrain_node.steps.gate.context import frames_as_slices

#: width of a picture, pixels
_WIDTH: Final = 360
#: of the 99.7th percentile inside the head, which is shown white
_BRIGHT: Final = 99.7
_VIEWS: Final = ("axial", "coronal", "sagittal")


@dataclass(frozen=True, kw_only=True)
class ResultPicture:
    """One plane as PNG."""

    what: str  #: ``synthetic MR`` or ``uncertainty``
    view: str  #: axial, coronal or sagittal
    png: bytes


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """What is shown of a result, and where it lies."""

    pictures: tuple[ResultPicture, ...]
    geometry: tuple[tuple[str, str], ...]  #: name and value
    largest: float | None  #: uncertainty at the bright end of its colours; None without a map


def pictures_of(instances: Sequence[DerivedInstance]) -> PictureSet | None:
    """Draw the planes through the middle of the head; None where the set holds no readable MR.

    Parameters
    ----------
    instances : sequence of DerivedInstance
        The whole set as it lies in the outbox.
    """
    try:
        slices = _slices(instances)
    except InvalidDicomError:
        return None
    if not slices:
        return None
    stored = np.stack([_pixels(one) for one in slices]).astype(np.float32)
    grid, spacing = _grid(slices[0]), float(slices[0].SpacingBetweenSlices)
    mr = UprightVolume.of(stored, grid, spacing)
    places = _middle(mr.values)
    white = max(float(np.percentile(stored[stored > 0], _BRIGHT)), 1.0) if stored.any() else 1.0
    pictures = [
        ResultPicture(what="synthetic MR", view=name, png=_png(cut, grey(cut.values, 0.0, white)))
        for name, cut in _cuts(mr, places)
    ]
    values, largest = _map(instances, slices), None
    if values is not None:
        largest = (
            max(float(np.percentile(values[values > 0], _BRIGHT)), 1e-3) if values.any() else 1.0
        )
        doubt = UprightVolume.of(values, grid, spacing)
        pictures += [
            ResultPicture(
                what="uncertainty",
                view=name,
                png=_png(cut, colour_map(np.minimum(cut.values / largest, 1.0), HEAT)),
            )
            for name, cut in _cuts(doubt, places)
        ]
    return PictureSet(
        pictures=tuple(pictures), geometry=_geometry(slices, grid, spacing), largest=largest
    )


def _slices(instances: Sequence[DerivedInstance]) -> list[Dataset]:
    """Read the MR slices in their order along the normal."""
    images: list[Dataset] = []
    for each in instances:
        if each.kind == "MR":
            dataset = dcmread(io.BytesIO(each.content))
            many = "PerFrameFunctionalGroupsSequence" in dataset
            images += list(frames_as_slices(dataset)) if many else [dataset]
    return images


def _pixels(image: Dataset) -> FloatArray:
    stored = np.frombuffer(image.PixelData, dtype="<u2")
    return stored.reshape(int(image.Rows), int(image.Columns)).astype(np.float32)


def _grid(image: Dataset) -> Grid:
    orientation = np.asarray(image.ImageOrientationPatient, dtype=np.float64)
    return Grid(
        origin_mm=np.asarray(image.ImagePositionPatient, dtype=np.float64),
        row_direction=orientation[:3],
        column_direction=orientation[3:],
        pixel_mm=float(image.PixelSpacing[0]),
        rows=int(image.Rows),
        columns=int(image.Columns),
    )


def _map(instances: Sequence[DerivedInstance], slices: Sequence[Dataset]) -> FloatArray | None:
    """Read the uncertainty map, frames in the order of the slices; None where there is none."""
    for each in instances:
        if each.kind == "PM":
            dataset = dcmread(io.BytesIO(each.content))
            (shared,) = dataset.SharedFunctionalGroupsSequence
            mapping = shared.RealWorldValueMappingSequence[0]
            if "FloatPixelData" in dataset:
                stored = np.frombuffer(dataset.FloatPixelData, dtype="<f4")
            else:
                stored = np.frombuffer(dataset.PixelData, dtype="<u2").astype(np.float32)
            shape = len(slices), int(dataset.Rows), int(dataset.Columns)
            values = stored.reshape(shape) * np.float32(mapping.RealWorldValueSlope)
            places = np.array(
                [
                    [float(part) for part in frame.PlanePositionSequence[0].ImagePositionPatient]
                    for frame in dataset.PerFrameFunctionalGroupsSequence
                ]
            )
            order = np.argsort(places @ _grid(slices[0]).normal)
            return np.asarray(values[order], dtype=np.float32)
    return None


def _middle(values: FloatArray) -> tuple[int, int, int]:
    """Find the middle of what is not black, upright."""
    axes = [np.flatnonzero(values.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    first, second, third = (
        int(axis[len(axis) // 2]) if axis.size else size // 2
        for axis, size in zip(axes, values.shape, strict=True)
    )
    return first, second, third


def _cuts(volume: UprightVolume, places: tuple[int, int, int]) -> list[tuple[str, Picture]]:
    axial, row, column = places
    cuts = (volume.axial(axial), volume.coronal(row), volume.sagittal(column))
    return list(zip(_VIEWS, cuts, strict=True))


def _png(picture: Picture, colours: Pixels) -> bytes:
    size = _WIDTH, max(1, round(_WIDTH * picture.height_mm / picture.width_mm))
    stream = io.BytesIO()
    Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


def _geometry(slices: Sequence[Dataset], grid: Grid, spacing: float) -> tuple[tuple[str, str], ...]:
    height = (len(slices) - 1) * spacing
    normal = ", ".join(f"{part:.3f}" for part in grid.normal)
    origin = ", ".join(f"{part:.1f}" for part in grid.origin_mm)
    return (
        ("slices", f"{len(slices)} of {grid.rows} x {grid.columns} voxels"),
        ("voxel", f"{grid.pixel_mm:.3g} x {grid.pixel_mm:.3g} x {spacing:.3g} mm"),
        ("extent along the normal", f"{height:.1f} mm"),
        ("normal (left, posterior, head)", normal),
        ("first voxel (left, posterior, head)", f"{origin} mm"),
        ("frame of reference", str(slices[0].get("FrameOfReferenceUID") or "none")),
    )
