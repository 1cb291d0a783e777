"""Positions of the slices in the head frame: affine registration to the head template.

Series and template are smooth 4 mm volumes of the same intensity (`head_template.levels`), so the
sum of squared differences is the right measure and Gauss-Newton finds its minimum in a few dozen
steps: first a similarity transform, on a coarse copy, from many starts along the body and several
pitch angles; then an affine transform whose shear and scaling are regularised towards none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from rebrain_node.domain.headframe import HeadFrame, plane_position_mm
from rebrain_node.domain.volume import FloatArray, MillimetreArray, PreparedVolume
from rebrain_node.model.head_template import SPACING_MM, HeadTemplate, levels, points_mm

#: the points of the template that are compared lie in the brain or within this of it: skull, scalp
AROUND_BRAIN_MM = 28.0
#: middle of the template's brain, LPS mm; every transform rotates and scales about it
MIDDLE_MM = np.array([0.0, 18.0, 10.0])
#: pitch angles of the starts, degrees, and their distance along the body, mm
PITCHES_DEG = (-24.0, -8.0, 8.0, 24.0)
STEP_MM = 12.0
#: a difference of level beyond this is down-weighted: lesions, metal, the jaw
TOLERANCE = 0.15
#: standard deviation of scaling and shear among heads: the prior where few slices constrain them
PRIOR_SD = 0.06
#: weight of the prior as a share of the points, because neighbouring points are correlated
PRIOR_WEIGHT = 0.03
SKULL_LEVEL = 0.7  # of the template; there the series must be brighter than its brain
BRAIN_LEVELS = (0.36, 0.66)  # of brain and water, from -10 to about 140 HU once smoothed
_LEAST_SHARE = 0.1  # of the points that must lie between the first and the last slice
_BEST_STARTS = 4


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """A registration problem: the series as a small volume, the template as points with levels."""

    volume: FloatArray  # (z, y, x), levels
    gradient: FloatArray  # (3, z, y, x), along x, y, z, per mm
    voxel_mm: MillimetreArray  # (3,) x, y, z
    first_mm: MillimetreArray  # (3,) position of voxel 0 in the frame of the grid
    points: MillimetreArray  # (4, n) template points about MIDDLE_MM, homogeneous
    level: FloatArray  # (n,)
    brain: FloatArray  # (n,), 0 to 1

    def index(self, transform: MillimetreArray, points: MillimetreArray) -> MillimetreArray:
        """Return the voxel index of points in the volume, (3, n) in the order z, y, x."""
        places = (transform @ points)[:3] - self.first_mm[:, None]
        return np.asarray((places / self.voxel_mm[:, None])[::-1])

    def covered(self, index: MillimetreArray) -> np.ndarray:
        """Return which indices lie between the first and the last slice, (n,) bool."""
        return np.asarray((index[0] >= -0.5) & (index[0] <= len(self.volume) - 0.5))


def locate(prepared: PreparedVolume, template: HeadTemplate) -> HeadFrame:
    """Find the head frame of a series.

    Parameters
    ----------
    prepared : PreparedVolume
        At least two slices on the model grid, towards the head.
    template : HeadTemplate
        Its frame is the head frame.

    Returns
    -------
    HeadFrame
        Also where there is no head: then its plausibility is low and its positions are meaningless.
    """
    fine = _problem(prepared, template)
    coarse = _coarse(fine)
    starts = _starts(coarse, prepared)
    tried = [_descend(coarse, start, _SIMILARITY, 15) for start in starts]
    best = min(tried, key=lambda transform: _cost(coarse, transform))
    best = _descend(fine, best, _SIMILARITY, 8)
    best = _descend(fine, best, _AFFINE, 20)
    return _frame(prepared, fine, best)


def _problem(prepared: PreparedVolume, template: HeadTemplate) -> _Problem:
    reach = int(np.ceil(AROUND_BRAIN_MM / SPACING_MM))
    ball = np.linalg.norm(np.mgrid[[slice(-reach, reach + 1)] * 3], axis=0) <= reach
    counted = ndimage.binary_dilation(template.brain > 0.5, ball) & template.known
    about_middle = (points_mm()[counted] - MIDDLE_MM).T
    grid = prepared.grid
    factor = max(1, round(SPACING_MM / grid.pixel_mm))
    pixel_mm = grid.pixel_mm * factor
    first = (factor - 1) / 2 * grid.pixel_mm
    volume = _regular(_downsampled(levels(prepared.hu), factor), prepared.distances_mm)
    return _with_gradient(
        _Problem(
            volume=volume,
            gradient=volume[None],
            voxel_mm=np.array([pixel_mm, pixel_mm, SPACING_MM]),
            first_mm=np.array([first, first, 0.0]),
            points=np.vstack([about_middle, np.ones(about_middle.shape[1])]),
            level=template.level[counted],
            brain=template.brain[counted],
        )
    )


def _with_gradient(problem: _Problem) -> _Problem:
    gradient = (
        np.stack([*np.gradient(problem.volume)])[::-1] / problem.voxel_mm[:, None, None, None]
    )
    return replace(problem, gradient=gradient.astype(np.float32))


def _downsampled(stack: FloatArray, factor: int) -> FloatArray:
    """Average blocks of ``factor`` x ``factor`` pixels of (n, rows, columns)."""
    count, rows, columns = len(stack), stack.shape[1] // factor, stack.shape[2] // factor
    whole = stack[:, : rows * factor, : columns * factor]
    averaged = whole.reshape(count, rows, factor, columns, factor)
    return np.asarray(averaged.mean(axis=(2, 4)), dtype=np.float32)


def _regular(stack: FloatArray, distances_mm: MillimetreArray) -> FloatArray:
    """Interpolate slices onto every 4 mm; thinner slices are averaged under a triangle."""
    count = max(2, int(distances_mm[-1] // SPACING_MM) + 1)
    wanted = SPACING_MM * np.arange(count)
    fine = np.arange(0.0, distances_mm[-1] + 0.5, 1.0)
    above = np.clip(np.searchsorted(distances_mm, fine), 1, len(distances_mm) - 1)
    low, high = distances_mm[above - 1], distances_mm[above]
    alpha = np.clip((fine - low) / (high - low), 0.0, 1.0)
    to_slices = np.zeros((len(fine), len(distances_mm)))
    to_slices[np.arange(len(fine)), above - 1] = 1 - alpha
    to_slices[np.arange(len(fine)), above] += alpha
    to_fine = np.maximum(0.0, 1.0 - np.abs(wanted[:, None] - fine) / SPACING_MM)
    to_fine /= to_fine.sum(axis=1, keepdims=True)
    weights = (to_fine @ to_slices).astype(np.float32)
    return np.asarray(np.einsum("ks,sij->kij", weights, stack, optimize=True))


def _coarse(problem: _Problem) -> _Problem:
    """Blur the volume by 6 mm and keep every seventh point of the template."""
    volume = ndimage.gaussian_filter(problem.volume, 1.5, mode="nearest")
    kept = slice(None, None, 7)
    return _with_gradient(
        replace(
            problem,
            volume=volume,
            points=problem.points[:, kept],
            level=problem.level[kept],
            brain=problem.brain[kept],
        )
    )


def _basis(*entries: tuple[int, int, float]) -> MillimetreArray:
    matrix = np.zeros((4, 4))
    for row, column, value in entries:
        matrix[row, column] = value
    return matrix


_SHIFTS = [_basis((axis, 3, 1.0)) for axis in range(3)]
_SIMILARITY = np.stack(
    [
        *_SHIFTS,
        _basis((2, 1, 1.0), (1, 2, -1.0)),
        _basis((2, 0, 1.0), (0, 2, -1.0)),
        _basis((1, 0, 1.0), (0, 1, -1.0)),
        _basis((0, 0, 1.0), (1, 1, 1.0), (2, 2, 1.0)),
    ]
)
_AFFINE = np.stack(
    [*_SHIFTS, *(_basis((row, column, 1.0)) for row in range(3) for column in range(3))]
)


def _starts(problem: _Problem, prepared: PreparedVolume) -> list[MillimetreArray]:
    """Return the best few of all starts: the middle of the head at every height and pitch."""
    grid = prepared.grid
    down, across = (np.nonzero(prepared.head.any(axis=axes))[0] for axes in ((0, 2), (0, 1)))
    if len(down) == 0:
        down, across = np.array([0, grid.rows - 1]), np.array([0, grid.columns - 1])
    x, y = ((side[0] + side[-1]) / 2 * grid.pixel_mm for side in (across, down))
    found: list[tuple[float, int, MillimetreArray]] = []
    for height in np.arange(-70.0, prepared.distances_mm[-1] + 70.0, STEP_MM):
        for pitch in np.radians(PITCHES_DEG):
            start = np.eye(4)
            start[1:3, 1:3] = [[np.cos(pitch), np.sin(pitch)], [-np.sin(pitch), np.cos(pitch)]]
            start[:3, 3] = x, y, height
            found.append((_cost(problem, start), len(found), start))
    return [start for _, _, start in sorted(found)[:_BEST_STARTS]]


def _cost(problem: _Problem, transform: MillimetreArray) -> float:
    """Return the mean robust difference over the overlap; infinite if the overlap is too small."""
    index = problem.index(transform, problem.points)
    covered = problem.covered(index)
    if covered.mean() < _LEAST_SHARE:
        return np.inf
    sampled = ndimage.map_coordinates(problem.volume, index[:, covered], order=1, cval=0.0)
    squared = ((sampled - problem.level[covered]) / TOLERANCE) ** 2
    return float(np.log1p(squared).mean())


def _descend(
    problem: _Problem, start: MillimetreArray, basis: MillimetreArray, steps: int
) -> MillimetreArray:
    """Take Gauss-Newton steps from `start`; scaling and shear of an affine have a prior of none."""
    prior = np.zeros(len(basis))
    if len(basis) > len(_SIMILARITY):
        prior[3:] = PRIOR_WEIGHT * len(problem.level) * (TOLERANCE / PRIOR_SD) ** 2
    moved = np.zeros(len(basis))
    transform = start
    for _ in range(steps):
        index = problem.index(transform, problem.points)
        covered = problem.covered(index)
        if covered.mean() < _LEAST_SHARE:
            return start
        points, index = problem.points[:, covered], index[:, covered]
        sampled = ndimage.map_coordinates(problem.volume, index, order=1, cval=0.0)
        gradient = np.stack(
            [ndimage.map_coordinates(s, index, order=1, cval=0.0) for s in problem.gradient]
        )
        residual = sampled - problem.level[covered]
        weight = 1.0 / (1.0 + (residual / TOLERANCE) ** 2)
        towards = transform[:3, :3].T @ gradient
        jacobian = np.stack([(towards * (g @ points)[:3]).sum(axis=0) for g in basis])
        normal = (jacobian * weight) @ jacobian.T + np.diag(prior)
        normal[np.diag_indices(len(basis))] += 1e-4 * normal.diagonal() + 1e-9
        step = np.linalg.solve(normal, -(jacobian * weight) @ residual - prior * moved)
        moved += step
        if len(basis) > len(_SIMILARITY):
            transform = start @ (np.eye(4) + np.tensordot(moved, basis, 1))
        else:
            transform = transform @ (np.eye(4) + np.tensordot(step, basis, 1))
        if np.abs(step[:3]).max() < 0.02 and np.abs(step[3:]).max() < 2e-4:
            break
    return transform


def _correlation(a: FloatArray, b: FloatArray) -> float:
    if a.std() < 1e-6 or b.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _frame(prepared: PreparedVolume, problem: _Problem, transform: MillimetreArray) -> HeadFrame:
    head_from_patient = _head_from_grid(transform) @ np.linalg.inv(_patient_from_grid(prepared))
    grid = prepared.grid
    positions = [
        plane_position_mm(
            head_from_patient,
            grid.plane_origin_mm(distance),
            grid.row_direction,
            grid.column_direction,
        )
        for distance in prepared.distances_mm
    ]
    index = problem.index(transform, problem.points)
    covered = problem.covered(index)
    mirrored = problem.points[:, covered] * np.array([-1.0, 1.0, 1.0, 1.0])[:, None]
    sampled, opposite = (
        ndimage.map_coordinates(problem.volume, places, order=1, cval=0.0)
        for places in (index[:, covered], problem.index(transform, mirrored))
    )
    left, stretch, right = np.linalg.svd(transform[:3, :3])
    turn = left @ right
    weight = problem.brain * problem.covered(index)
    frame = HeadFrame(
        position_mm=np.array(positions),
        head_from_patient=head_from_patient,
        pitch_deg=float(np.degrees(np.arctan2(turn[1, 2], turn[2, 2]))),
        roll_deg=float(np.degrees(np.arctan2(turn[2, 0], turn[0, 0]))),
        yaw_deg=float(np.degrees(np.arctan2(-turn[0, 1], turn[1, 1]))),
        size=float(np.prod(stretch) ** (1 / 3)),
        coverage=float(weight.sum() / problem.brain.sum()),
        symmetry=_correlation(sampled, opposite),
        likeness=_correlation(sampled, problem.level[covered]),
        plausibility=0.0,
    )
    is_brain, is_skull = problem.brain[covered] > 0.9, problem.level[covered] > SKULL_LEVEL
    return replace(frame, plausibility=_plausibility(frame, sampled[is_brain], sampled[is_skull]))


def _patient_from_grid(prepared: PreparedVolume) -> MillimetreArray:
    grid = prepared.grid
    affine = np.eye(4)
    affine[:3, :3] = np.stack([grid.row_direction, grid.column_direction, grid.normal], axis=1)
    affine[:3, 3] = grid.origin_mm
    return affine


def _head_from_grid(transform: MillimetreArray) -> MillimetreArray:
    from_middle = np.eye(4)
    from_middle[:3, 3] = MIDDLE_MM
    ras_from_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    return np.asarray(ras_from_lps @ from_middle @ np.linalg.inv(transform))


def _plausibility(frame: HeadFrame, brain: FloatArray, skull: FloatArray) -> float:
    """Multiply the criteria of a head; each factor falls from 1 to 0 between two bounds."""
    if len(brain) == 0 or len(skull) == 0:
        return 0.0
    tilt_deg = max(abs(frame.pitch_deg), abs(frame.roll_deg), abs(frame.yaw_deg))
    like_brain = float(((brain > BRAIN_LEVELS[0]) & (brain < BRAIN_LEVELS[1])).mean())
    factors = (
        _ramp(frame.likeness, 0.6, 0.78),
        _ramp(frame.size, 0.72, 0.82),
        _ramp(frame.size, 1.3, 1.2),
        _ramp(tilt_deg, 60.0, 45.0),
        _ramp(frame.coverage, 0.03, 0.1),
        _ramp(like_brain, 0.5, 0.8),
        _ramp(float(np.median(skull)) - float(np.median(brain)), 0.0, 0.06),
    )
    return float(np.prod(factors))


def _ramp(value: float, zero: float, one: float) -> float:
    """Return 0 at `zero` and beyond, 1 at `one` and beyond, linear between."""
    return float(np.clip((value - zero) / (one - zero), 0.0, 1.0))
