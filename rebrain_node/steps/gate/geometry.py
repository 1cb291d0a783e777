"""Rules: every voxel lies where the CT measured the patient (LPS, mm; PS3.3 C.7.6.2)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np

from rebrain_node.steps.gate.context import Context, Plane, WrittenObject
from rebrain_node.steps.gate.rules import (
    MR_MAP_AND_SEGMENTATION,
    PLANES,
    SLICES,
    Violation,
    rule,
    set_rule,
)

#: largest error of a position; the voxel-to-patient error that the product promises
TOLERANCE_MM: Final = 0.01
#: largest error of a direction cosine: 0.01 mm over the 250 mm of a head, rounded up
COSINE_TOLERANCE: Final = 1e-4


@rule("GATE-FRAME-OF-REFERENCE", "Frame of Reference UID is the CT's.", on=MR_MAP_AND_SEGMENTATION)
def _frame_of_reference(obj: WrittenObject, context: Context) -> str | None:
    """The images may be fused with the CT, and with nothing else."""
    found = obj.get("FrameOfReferenceUID")
    is_same = found == context.source[0].get("FrameOfReferenceUID")
    return None if is_same else f"its Frame of Reference UID is {found or 'absent'}"


@rule("GATE-PLANE", "Position, orientation, pixel spacing and size are finite numbers.", on=SLICES)
def _plane(obj: WrittenObject, _: Context) -> str | None:
    """A slice without a position is stacked anywhere."""
    what = "its position, orientation, spacing or size is absent, malformed or not finite"
    return None if obj.planes else what


@rule(
    "GATE-ORTHONORMAL",
    "The direction cosines of rows and columns are orthogonal unit vectors.",
    on=PLANES,
)
def _orthonormal(plane: Plane, _: Context) -> str | None:
    """Viewers silently distort or reject anything else."""
    axes = np.stack([plane.row, plane.column])
    error = float(np.abs(axes @ axes.T - np.eye(2)).max())
    if error <= COSINE_TOLERANCE:
        return None
    return f"its direction cosines are off by {error:.2g}"


@rule("GATE-STACK", "All slices have the same orientation, pixel spacing and size.", on=PLANES)
def _stack(plane: Plane, context: Context) -> str | None:
    """A volume has one grid."""
    first = context.mr_planes[0]
    rotation = max(np.abs(plane.row - first.row).max(), np.abs(plane.column - first.column).max())
    if rotation > COSINE_TOLERANCE:
        return "its orientation is not the first slice's"
    if (plane.spacing_mm, plane.shape) != (first.spacing_mm, first.shape):
        return "its pixel spacing or size is not the first slice's"
    return None


@set_rule("GATE-SPACING", "Successive slices are Spacing Between Slices apart.", on="MR slices")
def _spacing(context: Context) -> Iterator[Violation]:
    """Viewers compute distances from it."""
    spacings = {str(obj.get("SpacingBetweenSlices")) for obj in context.mr_slices}
    if len(spacings) != 1:
        yield Violation("MR", f"its slices state {len(spacings)} values of Spacing Between Slices")
        return
    expected = float(spacings.pop())
    for (_, below), (plane, above) in pairwise(_along_normal(context)):
        distance = abs(above - below)
        if abs(distance - expected) > TOLERANCE_MM:
            what = f"it lies {distance:.3f} mm from the slice before it, not {expected:.3f} mm"
            yield Violation(plane.name, what)


@rule("GATE-SHEAR", "The first voxels of all slices lie on one line along the normal.", on=PLANES)
def _shear(plane: Plane, context: Context) -> str | None:
    """Viewers ignore the shift and show a sheared head."""
    first = context.mr_planes[0]
    way = plane.position_mm - first.position_mm
    shift = float(np.linalg.norm(way - first.normal * (way @ first.normal)))
    return None if shift <= TOLERANCE_MM else f"it is shifted {shift:.3f} mm within its plane"


@set_rule("GATE-ORDER", "Slices are numbered and sent from foot to head.", on="MR slices")
def _order(context: Context) -> Iterator[Violation]:
    """Some viewers stack by Instance Number, others by position."""
    numbers = [obj.get("InstanceNumber") for obj in context.mr_slices]
    if numbers != list(range(1, len(numbers) + 1)):
        yield Violation("MR", "Instance Number does not count from 1 in the order of sending")
    for (_, below), (plane, above) in pairwise(_along_normal(context)):
        if above <= below:
            yield Violation(plane.name, "it lies below the slice before it")


@rule(
    "GATE-AXES",
    "Columns run to the patient's left, rows to the back, slices to the head.",
    on=PLANES,
)
def _axes(plane: Plane, _: Context) -> str | None:
    """No viewer flips or rotates images of this orientation."""
    cosines = {"columns": plane.row[0], "rows": plane.column[1], "slices": plane.normal[2]}
    reversed_axes = [name for name, cosine in cosines.items() if cosine <= 0]
    return f"its {', '.join(reversed_axes)} run the wrong way" if reversed_axes else None


@rule("GATE-PARALLEL", "Slices are parallel to the measured ones.", on=PLANES)
def _parallel(plane: Plane, context: Context) -> str | None:
    """Shows that the gantry tilt was corrected."""
    across = float(np.linalg.norm(np.cross(plane.normal, context.source_planes[0].normal)))
    if across <= COSINE_TOLERANCE:
        return None
    degrees = float(np.degrees(np.arcsin(min(1.0, across))))
    return f"it is rotated {degrees:.2f} degrees against the CT"


@rule("GATE-EXTENT", "No slice lies outside the measured range.", on=PLANES)
def _extent(plane: Plane, context: Context) -> str | None:
    """Nothing was measured there."""
    normal = context.source_planes[0].normal
    measured = [float(each.position_mm @ normal) for each in context.source_planes]
    low, high = min(measured) - TOLERANCE_MM, max(measured) + TOLERANCE_MM
    position = float(plane.position_mm @ normal)
    if low <= position <= high:
        return None
    return f"it lies {max(low - position, position - high):.2f} mm outside the measured slices"


@rule("GATE-THICKNESS", "Slice Thickness is present and positive.", on=SLICES)
def _thickness(obj: WrittenObject, _: Context) -> str | None:
    """Viewers assume a value where it is absent."""
    found = obj.get("SliceThickness")
    return None if found is not None and float(found) > 0 else f"Slice Thickness is {found}"


@set_rule("GATE-MAP-GRID", "The uncertainty map has one frame on each MR slice.", on="PM")
def _map_grid(context: Context) -> Iterator[Violation]:
    """Uncertainty shown at another position misleads."""
    for obj in context.of("PM"):
        declared = int(obj.get("NumberOfFrames") or 1)
        if not len(obj.planes) == declared == len(context.mr_planes):
            what = f"{declared} frames, {len(obj.planes)} with a plane"
            yield Violation(obj.name, f"{what}, for {len(context.mr_slices)} slices")
            continue
        yield from _off_grid(obj.planes, context)


@set_rule("GATE-MASK-GRID", "Every frame of the segmentation lies on an MR slice.", on="SEG")
def _mask_grid(context: Context) -> Iterator[Violation]:
    """Marked voxels shown at another position mislead; empty frames may be left out."""
    for obj in context.of("SEG"):
        yield from _off_grid(obj.planes, context)


def _off_grid(frames: tuple[Plane, ...], context: Context) -> Iterator[Violation]:
    corners = np.stack([plane.corners_mm for plane in context.mr_planes])  # (slices, 4, 3)
    shapes = {plane.shape for plane in context.mr_planes}
    for frame in frames:
        nearest = float(np.abs(corners - frame.corners_mm).max(axis=(1, 2)).min())
        if nearest > TOLERANCE_MM or frame.shape not in shapes:
            where = f"{frame.name} frame {frame.frame}"
            yield Violation(where, f"it lies {nearest:.3f} mm off the MR, or has another size")


def _along_normal(context: Context) -> list[tuple[Plane, float]]:
    normal = context.mr_planes[0].normal
    return [(plane, float(plane.position_mm @ normal)) for plane in context.mr_planes]
