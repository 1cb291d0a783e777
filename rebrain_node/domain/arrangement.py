"""How the slices of one series lie: gaps, duplicates, uneven or displaced slices, gantry tilt.

Order and distance come from the positions projected on the common normal, never from
InstanceNumber (PS3.3 C.7.6.2.1.1). A series may consist of a few groups, each of one thickness and
one step, e.g. a skull base at 4 mm and a vertex at 7 mm; what is not explained by groups is a
finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from rebrain_node.domain.findings import Finding, unlike
from rebrain_node.domain.limits import GeometryLimits
from rebrain_node.domain.rotations import phase_offsets_mm, rotation_phases
from rebrain_node.domain.series import SourceFrame
from rebrain_node.domain.volume import MillimetreArray, tilt_deg

#: a step of k times the usual one, within this share, is k - 1 missing slices
_MULTIPLE_SHARE = 0.15
#: planes within 1 degree can be put in an order; the limits ask for more
_PARALLEL_COSINE = float(np.cos(np.radians(1.0)))
#: two digits after the point make a unit vector as short as 0.993
_LENGTH_TOLERANCE = 0.01
#: the tag is often rounded to half a degree, and the positions to 0.1 mm
_DECLARED_TILT_DEG = 2.0
#: a shorter group has no period
_PERIODS = 3
#: without tilt the slices of a rotation lie on one line
_STEPPED_TILT_DEG = 1.0
#: of floating point
_ROUNDING_MM = 1e-6
#: a group has at least three slices
_STEPS_OF_GROUP = 2


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """Parallel slices, sorted along their normal."""

    positions_mm: MillimetreArray  #: (n, 3) LPS of voxel (0, 0)
    normal: MillimetreArray  #: (3,) unit vector
    thickness_mm: tuple[float | None, ...]  #: (n,) ``None`` where not declared
    order: tuple[int, ...]  #: (n,) place of each slice among those that were given
    #: (n,) place of each slice within its rotation, with tilt (`domain.rotations`)
    phases: tuple[int, ...] | None = None

    @property
    def distances_mm(self) -> MillimetreArray:
        """Along the normal, (n,), ascending."""
        return self.positions_mm @ self.normal

    @property
    def steps_mm(self) -> MillimetreArray:
        """Distances between neighbours along the normal, (n - 1,)."""
        return np.diff(self.distances_mm)

    @property
    def coverage_mm(self) -> float:
        """From the first slice's centre to the last one's, and half a slice at each end."""
        ends = [self.thickness_mm[k] or 0.0 for k in (0, -1)]
        return float(self.distances_mm[-1] - self.distances_mm[0]) + sum(ends) / 2

    @property
    def tilt_deg(self) -> float:
        """Gantry tilt, degrees, >= 0 (`tilt_deg`)."""
        return tilt_deg(self.positions_mm, self.normal, self.phases)


def arrange(
    positions_mm: MillimetreArray,
    normal: MillimetreArray,
    thickness_mm: Sequence[float | None],
) -> Arrangement:
    """Sort slices along their normal.

    Parameters
    ----------
    positions_mm : MillimetreArray
        (n, 3) LPS, n >= 1, in any order.
    normal : MillimetreArray
        (3,) unit vector.
    thickness_mm : sequence of float or None
        (n,) nominal thickness; None or 0 where not declared.
    """
    order = np.argsort(positions_mm @ normal, kind="stable")
    return Arrangement(
        positions_mm=positions_mm[order],
        normal=normal,
        thickness_mm=tuple(thickness_mm[k] or None for k in order),
        order=tuple(int(k) for k in order),
    )


def arrange_frames(frames: Sequence[SourceFrame]) -> Arrangement | None:
    """Sort the frames of a series along their normal.

    Returns
    -------
    Arrangement or None
        None unless each frame says where it lies and all are parallel within 1 degree.
    """
    normals = [frame.normal for frame in frames if frame.normal is not None]
    positions = [f.image_position_patient for f in frames if f.image_position_patient is not None]
    if not frames or min(len(normals), len(positions)) < len(frames):
        return None
    if float(np.min(np.array(normals) @ normals[0])) < _PARALLEL_COSINE:
        return None
    thickness_mm = [frame.slice_thickness_mm for frame in frames]
    arrangement = arrange(np.array(positions, dtype=np.float64), normals[0], thickness_mm)
    phases = rotation_phases([frames[place].acquisition_number for place in arrangement.order])
    placed = replace(arrangement, phases=phases)
    return placed if placed.tilt_deg >= _STEPPED_TILT_DEG else arrangement


def judge_planes(frames: Sequence[SourceFrame], limits: GeometryLimits) -> tuple[Finding, ...]:
    """Find frames that cannot form one stack: no place, not parallel, another matrix or pixel.

    Direction cosines are compared as angles after normalising, because scanners write them with
    two to nine digits (PS3.3 C.7.6.2.1.1 asks for unit vectors).
    """
    unplaced = sum(f.normal is None or f.image_position_patient is None for f in frames)
    if unplaced:
        orientation = [
            Finding(
                code="GEOM-ORIENTATION",
                sentence=(
                    f"{unplaced} of {len(frames)} images do not say where they lie in the patient "
                    "(Image Position and Orientation); send the series from the scanner again"
                ),
                value=float(unplaced),
                limit=0.0,
            )
        ]
    else:
        orientation = _judge_cosines(frames, limits)
    return (*orientation, *_judge_matrix(frames, limits))


def _judge_cosines(frames: Sequence[SourceFrame], limits: GeometryLimits) -> list[Finding]:
    cosines = np.array([f.image_orientation_patient for f in frames], dtype=np.float64)
    pairs = cosines.reshape(-1, 2, 3)
    lengths = np.linalg.norm(pairs, axis=2, keepdims=True)
    pairs = pairs / lengths
    skew_deg = float(np.degrees(np.arcsin(np.abs(np.sum(pairs[:, 0] * pairs[:, 1], axis=1))).max()))
    if skew_deg > limits.direction_deg or np.abs(lengths - 1.0).max() > _LENGTH_TOLERANCE:
        return [
            Finding(
                code="GEOM-ORIENTATION",
                sentence=(
                    "Image Orientation (Patient) of an image is not two perpendicular directions "
                    f"of length 1: they are {90.0 - skew_deg:.2f} degrees apart, 90 within "
                    f"{limits.direction_deg:g} (geometry.direction_deg) are needed, and of length "
                    f"{float(lengths.flat[np.abs(lengths - 1.0).argmax()]):.3f}"
                ),
                value=round(skew_deg, 3),
                limit=limits.direction_deg,
            )
        ]
    chords = np.linalg.norm(pairs - pairs[:1], axis=2)
    spread_deg = float(np.degrees(2 * np.arcsin(np.clip(chords / 2, 0.0, 1.0))).max())
    if spread_deg <= limits.direction_deg:
        return []
    return [
        Finding(
            code="GEOM-ORIENTATION",
            sentence=(
                "the slices of the series are not parallel: their orientation differs by "
                f"{unlike(spread_deg, limits.direction_deg)} degrees, at most "
                f"{limits.direction_deg:g} (geometry.direction_deg) are accepted; send the slices "
                "of one orientation as a series of their own"
            ),
            value=round(spread_deg, 2),
            limit=limits.direction_deg,
        )
    ]


def _judge_matrix(frames: Sequence[SourceFrame], limits: GeometryLimits) -> list[Finding]:
    spacings = [frame.pixel_spacing_mm for frame in frames]
    if any(s is None or min(s) <= 0.0 for s in spacings):
        return [
            Finding(
                code="GEOM-SPACING",
                sentence=(
                    "an image does not say how large its pixels are (Pixel Spacing); send the "
                    "series from the scanner again"
                ),
            )
        ]
    shapes = {(frame.rows, frame.columns) for frame in frames}
    spread_mm = float(np.ptp(np.array(spacings, dtype=np.float64), axis=0).max(initial=0.0))
    if len(shapes) <= 1 and spread_mm <= limits.pixel_spacing_mm:
        return []
    what = (
        "matrix: " + " and ".join(sorted(f"{rows} x {columns}" for rows, columns in shapes)[:3])
        if len(shapes) > 1
        else f"the size of their pixels, by {unlike(spread_mm, limits.pixel_spacing_mm, 3)} mm; at "
        f"most {limits.pixel_spacing_mm:g} mm (geometry.pixel_spacing_mm) are accepted"
    )
    return [
        Finding(
            code="GEOM-SPACING",
            sentence=(
                f"the slices of the series differ in {what}; send the slices of one kind as a "
                "series of their own"
            ),
            value=round(spread_mm, 6),
            limit=limits.pixel_spacing_mm,
        )
    ]


def judge_declared_tilt(
    frames: Sequence[SourceFrame], arrangement: Arrangement
) -> tuple[Finding, ...]:
    """Flag a Gantry/Detector Tilt (0018,1120) that the positions of the slices contradict.

    Its sign differs between vendors, so the amounts are compared. Where the images are a
    reformat, the tag may be a left-over; where they are not, every slice lies elsewhere than the
    positions say.
    """
    declared = [abs(f.gantry_tilt_deg) for f in frames if f.gantry_tilt_deg is not None]
    if len(arrangement.positions_mm) < 2 or not declared:
        return ()
    tilt, tag = arrangement.tilt_deg, max(declared, key=lambda t: abs(t - arrangement.tilt_deg))
    if abs(tag - tilt) <= _DECLARED_TILT_DEG:
        return ()
    return (
        Finding(
            code="GEOM-TILT-TAG",
            sentence=(
                f"Gantry/Detector Tilt (0018,1120) says {tag:.1f} degrees, the positions of the "
                f"slices say {tilt:.1f}; the positions are used: make sure that the images were "
                "resampled after the scan, or send the series as it was acquired"
            ),
            severity="flag",
            value=round(tag - tilt, 1),
            limit=_DECLARED_TILT_DEG,
        ),
    )


@dataclass(frozen=True)
class _Group:
    """Consecutive slices ``first`` to ``last`` of one step and one thickness."""

    first: int
    last: int
    step_mm: float
    thickness_mm: float | None


def judge_arrangement(
    arrangement: Arrangement, limits: GeometryLimits, *, tilt: bool = True
) -> tuple[Finding, ...]:
    """Find duplicate, missing, uneven and displaced slices and, with `tilt`, too great a tilt."""
    duplicates = judge_duplicates(arrangement, limits)
    unique = _without_duplicates(arrangement, limits) if duplicates else arrangement
    groups = _groups(unique, limits)
    return (
        *duplicates,
        *_judge_steps(unique, groups, limits),
        *_judge_group_count(groups, limits),
        *_judge_displacement(unique, groups, limits),
        *(_judge_tilt(unique, limits) if tilt else ()),
    )


def judge_duplicates(arrangement: Arrangement, limits: GeometryLimits) -> tuple[Finding, ...]:
    """Find slices that lie where another slice lies."""
    closest_mm = same_place_mm(limits)
    count = int(np.sum(arrangement.steps_mm < closest_mm))
    if count == 0:
        return ()
    return (
        Finding(
            code="GEOM-DUPLICATE",
            sentence=(
                f"{count} of {len(arrangement.positions_mm)} slices lie where another slice "
                f"already lies (closer than {closest_mm:g} mm); send the series without "
                "the repeated slices"
            ),
            value=float(count),
            limit=0.0,
        ),
    )


def same_place_mm(limits: GeometryLimits) -> float:
    """Return how close two slices are that lie at one place, within the noise of positions."""
    return max(limits.duplicate_mm, limits.step_mm)


def _without_duplicates(arrangement: Arrangement, limits: GeometryLimits) -> Arrangement:
    keep = np.concatenate([[True], arrangement.steps_mm >= same_place_mm(limits)])
    return Arrangement(
        positions_mm=arrangement.positions_mm[keep],
        normal=arrangement.normal,
        thickness_mm=tuple(np.array(arrangement.thickness_mm, dtype=object)[keep]),
        phases=None,
        order=tuple(np.array(arrangement.order)[keep]),
    )


def _groups(arrangement: Arrangement, limits: GeometryLimits) -> tuple[_Group, ...]:
    """Cut the series into stretches of equal step and thickness; lone steps belong to none."""
    steps, thickness = arrangement.steps_mm, arrangement.thickness_mm
    groups: list[_Group] = []
    first = 0
    if len(steps) >= _STEPS_OF_GROUP and len(set(thickness)) == 1:
        usual = float(np.median(steps))
        if np.abs(steps - usual).max() <= limits.step_mm:  # one group, as most series are
            return (_Group(0, len(steps), usual, thickness[0]),)
    while first < len(steps):
        end = first + 1
        while _is_group(arrangement, first, end, limits):
            end += 1
        end -= 1
        if end - first >= _STEPS_OF_GROUP:
            groups.append(_Group(first, end, float(np.median(steps[first:end])), thickness[first]))
        first = max(end, first + 1)
    return tuple(groups)


def _is_group(arrangement: Arrangement, first: int, end: int, limits: GeometryLimits) -> bool:
    """Whether the last of the steps from ``first`` to before ``end`` is as those before it."""
    if end > len(arrangement.steps_mm):
        return False
    steps = arrangement.steps_mm[first:end]
    if abs(steps[-1] - float(np.median(steps))) > limits.step_mm + _ROUNDING_MM:
        return False
    following = arrangement.steps_mm[first + 1 : first + 3]
    if len(steps) > 1 and np.abs(following - steps[0]).min() > limits.step_mm + _ROUNDING_MM:
        return False  # the first is unlike both that follow
    thickness = arrangement.thickness_mm
    return _as_thick(thickness[first], thickness[end - 1], limits) and _as_thick(
        thickness[first], thickness[end], limits
    )


def _as_thick(one: float | None, other: float | None, limits: GeometryLimits) -> bool:
    """Whether two thicknesses are one, within the noise of positions."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= limits.step_mm


def _judge_steps(
    arrangement: Arrangement, groups: Sequence[_Group], limits: GeometryLimits
) -> tuple[Finding, ...]:
    steps = arrangement.steps_mm
    if len(steps) < _STEPS_OF_GROUP:
        return ()
    inside = np.zeros(len(steps), dtype=bool)
    for group in groups:
        inside[group.first : group.last] = True
    junctions = {
        left.last
        for left, right in pairwise(groups)
        if left.last + 1 == right.first
        and not _alike(left, right, limits)
        and steps[left.last] <= _widest_mm(left, right, limits)
    }
    lone = [k for k in np.flatnonzero(~inside) if k not in junctions]
    findings = [
        finding for k in lone if (finding := _lone_step(int(k), arrangement, groups, limits))
    ]
    findings += [
        _step(left.last, right.step_mm, left.step_mm, limits)
        if right.step_mm > left.step_mm
        else _step(left.first, left.step_mm, right.step_mm, limits)
        for left, right in pairwise(groups)
        if left.last == right.first and _as_thick(left.thickness_mm, right.thickness_mm, limits)
    ]
    return tuple(findings)


def _alike(left: _Group, right: _Group, limits: GeometryLimits) -> bool:
    same_step = abs(left.step_mm - right.step_mm) <= limits.step_mm
    return same_step and _as_thick(left.thickness_mm, right.thickness_mm, limits)


def _widest_mm(left: _Group, right: _Group, limits: GeometryLimits) -> float:
    """Return the greatest distance of the last slice of a group from the first of the next."""
    if left.thickness_mm is None or right.thickness_mm is None:
        return max(left.step_mm, right.step_mm) + limits.step_mm
    usual_gap = max(left.step_mm - left.thickness_mm, right.step_mm - right.thickness_mm, 0.0)
    return (left.thickness_mm + right.thickness_mm) / 2 + usual_gap + limits.step_mm


def _lone_step(
    place: int, arrangement: Arrangement, groups: Sequence[_Group], limits: GeometryLimits
) -> Finding | None:
    """Name a step that belongs to no group: a missing slice, uneven, or of another thickness.

    None for a step as usual between others that are not: those are named.
    """
    steps, thickness = arrangement.steps_mm, arrangement.thickness_mm
    step = float(steps[place])
    before = [g.step_mm for g in groups if g.last <= place][-1:]
    after = [g.step_mm for g in groups if g.first > place][:1]
    usual = before + after or [float(np.min(np.delete(steps, place)))]
    nearest = min(usual, key=lambda each: abs(each - step))
    if abs(step - nearest) <= limits.step_mm:
        alike = _as_thick(thickness[place], thickness[place + 1], limits)
        return None if alike else _uneven_thickness(place, thickness)
    expected = sum(usual) / len(usual)
    if step - expected >= min(usual) / 2 or any(_is_multiple(step, u) for u in usual):
        return _missing(place, step, min(usual))
    return _uneven(place, step, nearest, limits)


def _step(place: int, step: float, usual: float, limits: GeometryLimits) -> Finding:
    """Name the change from one distance to another within slices of one thickness."""
    if _is_multiple(step, usual) or step >= 1.5 * usual:
        return _missing(place, step, usual)
    return _uneven(place, step, usual, limits)


def _is_multiple(step: float, usual: float) -> bool:
    count = round(step / usual)
    return count >= 2 and abs(step / usual - count) <= _MULTIPLE_SHARE * count


def _missing(place: int, step: float, usual: float) -> Finding:
    return Finding(
        code="GEOM-GAP",
        sentence=(
            f"{unlike(step, usual, 2)} mm lie between slices {place + 1} and {place + 2}, where "
            f"{usual:.2f} mm are usual in this series: at least one slice is missing; send the "
            "whole series again"
        ),
        value=round(step, 3),
        limit=round(usual, 3),
    )


def _uneven(place: int, step: float, usual: float, limits: GeometryLimits) -> Finding:
    return Finding(
        code="GEOM-SPACING",
        sentence=(
            f"{step:.2f} mm lie between slices {place + 1} and {place + 2}, where {usual:.2f} mm "
            f"are usual in this series; they may differ by {limits.step_mm:g} mm "
            "(geometry.step_mm): reconstruct the series in even steps"
        ),
        value=round(step, 3),
        limit=round(usual, 3),
    )


def _uneven_thickness(place: int, thickness: Sequence[float | None]) -> Finding:
    named = [
        "of no declared thickness" if each is None else f"{each:g} mm thick"
        for each in thickness[place : place + 2]
    ]
    return Finding(
        code="GEOM-SPACING",
        sentence=(
            f"slice {place + 1} is {named[0]} and slice {place + 2} is {named[1]}, though they lie "
            "as far apart as the others: the thickness of single slices differs; reconstruct the "
            "series in slices of one thickness"
        ),
        value=thickness[place + 1],
        limit=thickness[place],
    )


def _judge_group_count(groups: Sequence[_Group], limits: GeometryLimits) -> tuple[Finding, ...]:
    if len(groups) <= limits.groups:
        return ()
    return (
        Finding(
            code="GEOM-SPACING",
            sentence=(
                f"the series consists of {len(groups)} stretches of one distance and thickness "
                f"each; at most {limits.groups:g} (geometry.groups) are accepted: reconstruct it "
                "in even steps"
            ),
            value=float(len(groups)),
            limit=limits.groups,
        ),
    )


def _judge_displacement(
    arrangement: Arrangement, groups: Sequence[_Group], limits: GeometryLimits
) -> tuple[Finding, ...]:
    """Find slices that lie beside the line of their group.

    With tilt and several slices to a rotation, those of each place within the rotation have a line
    of their own; the outline tells which is right (`steps.assemble`).
    """
    worst, phases = 0.0, arrangement.phases
    for group in groups:
        positions = arrangement.positions_mm[group.first : group.last + 1]
        bends = np.diff(positions, n=2, axis=0)
        if phases is not None and len(positions) > _PERIODS * (max(phases) + 1):
            places = slice(group.first, group.last + 1)
            bends = (
                2.0
                * phase_offsets_mm(positions, arrangement.distances_mm[places], phases[places])[1]
            )
        worst = max(worst, float(np.linalg.norm(bends, axis=1).max()))
    if worst <= limits.displacement_mm:
        return ()
    return (
        Finding(
            code="GEOM-SPACING",
            sentence=(
                f"a slice lies {unlike(worst, limits.displacement_mm, 2)} mm beside the line of "
                f"its neighbours; at most {limits.displacement_mm:g} mm "
                "(geometry.displacement_mm) are accepted: send the series as the scanner "
                "reconstructed it"
            ),
            value=round(worst, 3),
            limit=limits.displacement_mm,
        ),
    )


def _judge_tilt(arrangement: Arrangement, limits: GeometryLimits) -> tuple[Finding, ...]:
    tilt = arrangement.tilt_deg
    if tilt <= limits.tilt_deg + 0.01:
        return ()
    return (
        Finding(
            code="GEOM-TILT",
            sentence=(
                f"the gantry was tilted by {unlike(tilt, limits.tilt_deg)} degrees; up to "
                f"{limits.tilt_deg:g} degrees (geometry.tilt_deg) are corrected exactly: send the "
                "series reconstructed without tilt"
            ),
            value=round(tilt, 2),
            limit=limits.tilt_deg,
        ),
    )
