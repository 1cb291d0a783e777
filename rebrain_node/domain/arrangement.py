"""How the slices of one series lie: gaps, duplicates, uneven or displaced slices, gantry tilt.

Order and distance come from the positions projected on the common normal, never from
InstanceNumber (PS3.3 C.7.6.2.1.1). A series may consist of a few groups, each of one thickness and
one step, e.g. a skull base at 4 mm and a vertex at 7 mm; what is not explained by groups is a
finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import GeometryLimits
from rebrain_node.domain.volume import MillimetreArray

#: a step of k times the usual one, within this share, is k - 1 missing slices
_MULTIPLE_SHARE = 0.15
#: a group has at least three slices
_STEPS_OF_GROUP = 2


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """Parallel slices, sorted along their normal."""

    positions_mm: MillimetreArray  #: (n, 3) LPS of voxel (0, 0)
    normal: MillimetreArray  #: (3,) unit vector
    thickness_mm: tuple[float | None, ...]  #: (n,) ``None`` where not declared

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
        """Angle between the normal and the line along which the slices follow each other."""
        steps = np.diff(self.positions_mm, axis=0)
        lengths = np.linalg.norm(steps, axis=1)
        if not np.any(lengths > 0.0):
            return 0.0
        cosines = np.abs(steps[lengths > 0.0] @ self.normal) / lengths[lengths > 0.0]
        return float(np.degrees(np.arccos(min(1.0, float(np.median(cosines))))))


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
        (n,) nominal thickness.
    """
    order = np.argsort(positions_mm @ normal, kind="stable")
    return Arrangement(
        positions_mm=positions_mm[order],
        normal=normal,
        thickness_mm=tuple(thickness_mm[k] for k in order),
    )


@dataclass(frozen=True)
class _Group:
    """Consecutive slices ``first`` to ``last`` of one step and one thickness."""

    first: int
    last: int
    step_mm: float
    thickness_mm: float | None


def judge_arrangement(arrangement: Arrangement, limits: GeometryLimits) -> tuple[Finding, ...]:
    """Find duplicate, missing, uneven and displaced slices and too great a tilt."""
    duplicates = _judge_duplicates(arrangement, limits)
    unique = _without_duplicates(arrangement, limits) if duplicates else arrangement
    groups = _groups(unique, limits)
    return (
        *duplicates,
        *_judge_steps(unique, groups, limits),
        *_judge_group_count(groups, limits),
        *_judge_displacement(unique, groups, limits),
        *_judge_tilt(unique, limits),
    )


def _judge_duplicates(arrangement: Arrangement, limits: GeometryLimits) -> tuple[Finding, ...]:
    count = int(np.sum(arrangement.steps_mm < limits.duplicate_mm))
    if count == 0:
        return ()
    return (
        Finding(
            code="GEOM-DUPLICATE",
            sentence=(
                f"{count} of {len(arrangement.positions_mm)} slices lie where another slice "
                f"already lies (closer than {limits.duplicate_mm:g} mm); send the series without "
                "the repeated slices"
            ),
            value=float(count),
            limit=0.0,
        ),
    )


def _without_duplicates(arrangement: Arrangement, limits: GeometryLimits) -> Arrangement:
    keep = np.concatenate([[True], arrangement.steps_mm >= limits.duplicate_mm])
    return Arrangement(
        positions_mm=arrangement.positions_mm[keep],
        normal=arrangement.normal,
        thickness_mm=tuple(np.array(arrangement.thickness_mm, dtype=object)[keep]),
    )


def _groups(arrangement: Arrangement, limits: GeometryLimits) -> tuple[_Group, ...]:
    """Cut the series into stretches of equal step and thickness; lone steps belong to none."""
    steps, thickness = arrangement.steps_mm, arrangement.thickness_mm
    groups: list[_Group] = []
    first = 0
    while first < len(steps):
        end = first
        while (
            end < len(steps)
            and abs(steps[end] - float(np.median(steps[first : end + 1]))) <= limits.step_mm
            and thickness[first] == thickness[end] == thickness[end + 1]
        ):
            end += 1
        if end - first >= _STEPS_OF_GROUP:
            step = float(np.median(steps[first:end]))
            groups.append(_Group(first, end, step, thickness[first]))
        first = max(end, first + 1)
    return tuple(groups)


def _judge_steps(
    arrangement: Arrangement, groups: Sequence[_Group], limits: GeometryLimits
) -> tuple[Finding, ...]:
    steps = arrangement.steps_mm
    inside = np.zeros(len(steps), dtype=bool)
    for group in groups:
        inside[group.first : group.last] = True
    junctions = {
        left.last
        for left, right in pairwise(groups)
        if left.last + 1 == right.first and steps[left.last] <= _widest_mm(left, right, limits)
    }
    lone = [k for k in np.flatnonzero(~inside) if k not in junctions]
    findings = [_lone_step(int(k), steps, groups) for k in lone] if len(steps) > 1 else []
    findings += [
        _missing(left.last, right.step_mm, left.step_mm)
        for left, right in pairwise(groups)
        if left.last == right.first and left.thickness_mm == right.thickness_mm
    ]
    return tuple(findings)


def _widest_mm(left: _Group, right: _Group, limits: GeometryLimits) -> float:
    """Return the greatest distance of the last slice of a group from the first of the next."""
    if left.thickness_mm is None or right.thickness_mm is None:
        return max(left.step_mm, right.step_mm) + limits.step_mm
    usual_gap = max(left.step_mm - left.thickness_mm, right.step_mm - right.thickness_mm, 0.0)
    return (left.thickness_mm + right.thickness_mm) / 2 + usual_gap + limits.step_mm


def _lone_step(place: int, steps: MillimetreArray, groups: Sequence[_Group]) -> Finding:
    """Name a step that belongs to no group: a missing slice, or uneven."""
    step = float(steps[place])
    before = [g.step_mm for g in groups if g.last <= place][-1:]
    after = [g.step_mm for g in groups if g.first > place][:1]
    usual = before + after or [float(np.min(np.delete(steps, place)))]
    if step > max(usual) or any(_is_multiple(step, u) for u in usual):
        return _missing(place, step, min(usual))
    return Finding(
        code="GEOM-SPACING",
        sentence=(
            f"{step:.2f} mm lie between slices {place + 1} and {place + 2}, where "
            f"{min(usual):.2f} mm are usual in this series; one of them is not where it belongs"
        ),
        value=round(step, 3),
        limit=round(min(usual), 3),
    )


def _is_multiple(step: float, usual: float) -> bool:
    count = round(step / usual)
    return count >= 2 and abs(step / usual - count) <= _MULTIPLE_SHARE * count


def _missing(place: int, step: float, usual: float) -> Finding:
    return Finding(
        code="GEOM-GAP",
        sentence=(
            f"{step:.2f} mm lie between slices {place + 1} and {place + 2}, where {usual:.2f} mm "
            "are usual in this series: at least one slice is missing; send the whole series again"
        ),
        value=round(step, 3),
        limit=round(usual, 3),
    )


def _judge_group_count(groups: Sequence[_Group], limits: GeometryLimits) -> tuple[Finding, ...]:
    if len(groups) <= limits.groups:
        return ()
    return (
        Finding(
            code="GEOM-SPACING",
            sentence=(
                f"the series changes its slice distance {len(groups) - 1} times; at most "
                f"{limits.groups:g} groups of equal distance are accepted"
            ),
            value=float(len(groups)),
            limit=limits.groups,
        ),
    )


def _judge_displacement(
    arrangement: Arrangement, groups: Sequence[_Group], limits: GeometryLimits
) -> tuple[Finding, ...]:
    """Find slices that lie beside the line of their group."""
    worst = 0.0
    for group in groups:
        positions = arrangement.positions_mm[group.first : group.last + 1]
        bends = np.linalg.norm(np.diff(positions, n=2, axis=0), axis=1)
        worst = max(worst, float(bends.max()))
    if worst <= limits.displacement_mm:
        return ()
    return (
        Finding(
            code="GEOM-SPACING",
            sentence=(
                f"a slice lies {worst:.2f} mm beside the line of its neighbours; at most "
                f"{limits.displacement_mm:g} mm are accepted"
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
                f"the gantry was tilted by {tilt:.1f} degrees; up to {limits.tilt_deg:g} degrees "
                "are corrected exactly"
            ),
            value=round(tilt, 2),
            limit=limits.tilt_deg,
        ),
    )
