"""Rules: every voxel lies where the CT says the patient was (LPS, mm; PS3.3 C.7.6.2)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np

from rebrain_node.steps.gate.evidence import Evidence, Written
from rebrain_node.steps.gate.plane import Plane, planes
from rebrain_node.steps.gate.rule import Breach, Rule, each

#: largest error of a position; the voxel-to-patient error that the product promises
TOLERANCE_MM: Final = 0.01
#: largest error of a direction cosine: 0.01 mm over the 250 mm of a head, rounded up
COSINE_TOLERANCE: Final = 1e-4


def _frame_of_reference(evidence: Evidence) -> Iterator[Breach]:
    wanted = evidence.source[0].get("FrameOfReferenceUID")

    def fault(written: Written) -> str | None:
        found = written.get("FrameOfReferenceUID")
        return None if found == wanted else f"its Frame of Reference UID is {found or 'absent'}"

    return each(evidence.of("MR", "PM", "SEG"), fault)


def _plane(evidence: Evidence) -> Iterator[Breach]:
    whole = {plane.name for plane in evidence.mr_planes}
    what = "its position, orientation, spacing or size is absent, malformed or not finite"
    return each(evidence.mr, lambda written: None if written.name in whole else what)


def _orthonormal(evidence: Evidence) -> Iterator[Breach]:
    for plane in evidence.mr_planes:
        axes = np.stack([plane.row, plane.column])
        error = float(np.abs(axes @ axes.T - np.eye(2)).max())
        if error > COSINE_TOLERANCE:
            yield Breach(plane.name, f"its direction cosines are off by {error:.2g}")


def _stack(evidence: Evidence) -> Iterator[Breach]:
    first = evidence.mr_planes[0]
    for plane in evidence.mr_planes[1:]:
        turned = max(np.abs(plane.row - first.row).max(), np.abs(plane.column - first.column).max())
        if turned > COSINE_TOLERANCE:
            yield Breach(plane.name, "it is turned against the first slice")
        elif (plane.spacing_mm, plane.shape) != (first.spacing_mm, first.shape):
            yield Breach(plane.name, "its pixel spacing or size is not the first slice's")


def _spacing(evidence: Evidence) -> Iterator[Breach]:
    spacings = {str(written.get("SpacingBetweenSlices")) for written in evidence.mr}
    if len(spacings) != 1:
        yield Breach("MR", f"Spacing Between Slices takes {len(spacings)} values")
        return
    wanted = float(spacings.pop())
    for here, there in pairwise(_along_normal(evidence)):
        step = abs(there[1] - here[1])
        if abs(step - wanted) > TOLERANCE_MM:
            yield Breach(there[0].name, f"it lies {step:.3f} mm from the last, not {wanted:.3f} mm")


def _shear(evidence: Evidence) -> Iterator[Breach]:
    first = evidence.mr_planes[0]
    for plane in evidence.mr_planes:
        way = plane.position_mm - first.position_mm
        sideways = float(np.linalg.norm(way - first.normal * (way @ first.normal)))
        if sideways > TOLERANCE_MM:
            yield Breach(plane.name, f"it is shifted {sideways:.3f} mm within its plane")


def _order(evidence: Evidence) -> Iterator[Breach]:
    numbers = [written.get("InstanceNumber") for written in evidence.mr]
    if numbers != list(range(1, len(numbers) + 1)):
        yield Breach("MR", "Instance Number does not count from 1 in the order of sending")
    for here, there in pairwise(_along_normal(evidence)):
        if there[1] <= here[1]:
            yield Breach(there[0].name, "it lies below the slice before it")


def _axes(evidence: Evidence) -> Iterator[Breach]:
    """Columns run to the patient's left, rows to the back, slices to the head."""
    for plane in evidence.mr_planes:
        turned = [
            name
            for name, along in (
                ("columns", plane.row[0]), ("rows", plane.column[1]), ("slices", plane.normal[2]),
            )
            if along <= 0
        ]  # fmt: skip
        if turned:
            yield Breach(plane.name, f"its {', '.join(turned)} run the wrong way")


def _parallel(evidence: Evidence) -> Iterator[Breach]:
    wanted = evidence.source_planes[0].normal
    for plane in evidence.mr_planes:
        across = float(np.linalg.norm(np.cross(plane.normal, wanted)))
        if across > COSINE_TOLERANCE:
            degrees = float(np.degrees(np.arcsin(min(1.0, across))))
            yield Breach(plane.name, f"it is turned {degrees:.2f} degrees against the CT")


def _extent(evidence: Evidence) -> Iterator[Breach]:
    normal = evidence.source_planes[0].normal
    measured = [float(plane.position_mm @ normal) for plane in evidence.source_planes]
    low, high = min(measured) - TOLERANCE_MM, max(measured) + TOLERANCE_MM
    for plane in evidence.mr_planes:
        place = float(plane.position_mm @ normal)
        if not low <= place <= high:
            beyond = max(low - place, place - high)
            yield Breach(plane.name, f"it lies {beyond:.2f} mm beyond the measured slices")


def _thickness(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, _thickness_fault)


def _thickness_fault(written: Written) -> str | None:
    found = written.get("SliceThickness")
    return None if found is not None and float(found) > 0 else f"Slice Thickness is {found}"


def _map_grid(evidence: Evidence) -> Iterator[Breach]:
    """Every MR slice has its frame of the map, and every frame its slice."""
    for written in evidence.of("PM"):
        frames = tuple(planes(written.name, written.dataset))
        declared = int(written.get("NumberOfFrames") or 1)
        if not len(frames) == declared == len(evidence.mr_planes):
            yield Breach(
                written.name,
                f"{declared} frames, {len(frames)} with a plane, for {len(evidence.mr)} slices",
            )
            continue
        yield from _off_grid(frames, evidence)


def _mask_grid(evidence: Evidence) -> Iterator[Breach]:
    """A segmentation may leave out empty frames; those it holds lie on MR slices."""
    for written in evidence.of("SEG"):
        yield from _off_grid(tuple(planes(written.name, written.dataset)), evidence)


def _off_grid(frames: tuple[Plane, ...], evidence: Evidence) -> Iterator[Breach]:
    corners = np.stack([plane.corners_mm for plane in evidence.mr_planes])  # (slices, 4, 3)
    shapes = {plane.shape for plane in evidence.mr_planes}
    for frame in frames:
        nearest = float(np.abs(corners - frame.corners_mm).max(axis=(1, 2)).min())
        if nearest > TOLERANCE_MM or frame.shape not in shapes:
            where = f"{frame.name} frame {frame.frame}"
            yield Breach(where, f"it lies {nearest:.3f} mm off the MR, or is of another size")


def _along_normal(evidence: Evidence) -> list[tuple[Plane, float]]:
    normal = evidence.mr_planes[0].normal
    return [(plane, float(plane.position_mm @ normal)) for plane in evidence.mr_planes]


RULES: Final = (
    Rule(
        "GATE-FRAME-OF-REFERENCE",
        "MR, map and segmentation lie in the CT's frame of reference.",
        _frame_of_reference,
    ),
    Rule("GATE-PLANE", "Every MR slice states where it lies, wholly and in numbers.", _plane),
    Rule("GATE-ORTHONORMAL", "Direction cosines are unit vectors at right angles.", _orthonormal),
    Rule("GATE-STACK", "All MR slices share orientation, pixel spacing and size.", _stack),
    Rule(
        "GATE-SPACING",
        "Slices follow each other at exactly Spacing Between Slices.",
        _spacing,
    ),
    Rule("GATE-SHEAR", "The first voxels of all slices lie on one normal.", _shear),
    Rule("GATE-ORDER", "Slices are numbered and sent from foot to head.", _order),
    Rule(
        "GATE-AXES",
        "Columns run to the patient's left, rows to the back, slices to the head.",
        _axes,
    ),
    Rule("GATE-PARALLEL", "MR slices are parallel to the measured ones.", _parallel),
    Rule("GATE-EXTENT", "No MR slice lies beyond the measured slices.", _extent),
    Rule("GATE-THICKNESS", "Slice Thickness is stated and positive.", _thickness),
    Rule("GATE-MAP-GRID", "The uncertainty map has one frame on each MR slice.", _map_grid),
    Rule("GATE-MASK-GRID", "Every frame of the segmentation lies on an MR slice.", _mask_grid),
)
