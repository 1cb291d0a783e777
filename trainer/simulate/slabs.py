"""Slabs through a head: what a CT scanner with thick, tilted slices would have measured.

A slab sample holds the CT slabs below, at and above a target plane, and the T1 of the same slab
at the target. CT is averaged in HU, before any window; T1 is averaged over the same thickness.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch.nn import functional

from rebrain_node.domain.headframe import AXIS_MM, plane_position_mm
from rebrain_node.domain.volume import MillimetreArray
from trainer.sample_rng import SampleRng
from trainer.simulate.hounsfield import (
    AIR_HU,
    MOST_STRETCH,
    Anatomy,
    Tissues,
    mni_from_voxel,
    stretch,
)
from trainer.simulate.labels import LabelHead
from trainer.simulate.scanner import scan
from trainer.simulate.template import Volume

ROWS, COLUMNS, PIXEL_MM = 288, 240, 0.9  # of the pool: the model grid with room to move
PLANES_PER_SLAB = 5


@dataclass(frozen=True)
class Plan:
    """Where a sample lies: the target plane, its thickness and its measured neighbours.

    `below_mm` and `above_mm` are distances from the target; `missing` means that nothing was
    measured at the target itself.
    """

    centre: NDArray[np.float64]  # (3,) z, y, x in voxels of the head
    rotation: NDArray[np.float64]  # (3, 3) on (x, y, z)
    thickness_mm: float
    below_mm: float
    above_mm: float
    missing: bool


@dataclass(frozen=True)
class Sample:
    """One pool entry on (ROWS, COLUMNS)."""

    #: (3, rows, columns): below, target, above; the target is all air for a missing position
    hu: NDArray[np.int16]
    #: t1, brain, head, known: (rows, columns), 0 to 255: canonical T1, memberships, and where truth
    #: exists
    t1: NDArray[np.uint8]
    brain: NDArray[np.uint8]
    head: NDArray[np.uint8]
    known: NDArray[np.uint8]
    distances_mm: tuple[float, float]  #: to the slab below and above
    missing: bool
    #: of the target in the head frame; NaN where the head's own frame cannot be trusted
    position_mm: float


def rotation(tilt_deg: float, roll_deg: float, yaw_deg: float) -> NDArray[np.float64]:
    """Return the rotation on (x, y, z): tilt about x, roll about y, yaw about z."""
    a, b, c = np.deg2rad([tilt_deg, roll_deg, yaw_deg])
    about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    return np.array(about_x) @ np.array(about_y) @ np.array(about_z)


def draw_plan(head: Anatomy, rng: Generator, gap_mm: tuple[float, float] | None = None) -> Plan:
    """Draw a sample's geometry: mostly in the brain, the rest from neck to above the vertex.

    Parameters
    ----------
    gap_mm : tuple of float, optional
        Draw missing positions alone, with so much between the slabs beside them: least and most.
    """
    brain_z, brain_y, brain_x = np.nonzero(head.brain[::4, ::4, ::4] > 0.5)
    low, high = np.percentile(brain_z * 4, [0.5, 99.5])
    whole = np.flatnonzero((head.head > 0.5).any(axis=(1, 2)))
    if rng.random() < 0.72:
        z = rng.uniform(low - 4, high + 5)
    else:
        z = rng.uniform(max(whole[0], low - 55), whole[-1] + 7)
    thickness = rng.uniform(3, 8) if rng.random() < 0.7 else rng.uniform(1, 3)
    spacing = thickness * (rng.uniform(1, 1.4) if rng.random() < 0.25 else 1.0)
    missing = bool(rng.random() < 0.5) or gap_mm is not None
    if gap_mm is not None:
        spacing = rng.uniform(*gap_mm)
        thickness = min(thickness, spacing)
    alpha = rng.uniform(0.08, 0.92)
    return Plan(
        centre=np.array([z, 4 * brain_y.mean(), 4 * brain_x.mean()]),
        rotation=rotation(rng.uniform(-24, 12), rng.normal(0, 4), rng.normal(0, 4)),
        thickness_mm=thickness,
        below_mm=alpha * spacing if missing else spacing,
        above_mm=(1 - alpha) * spacing if missing else spacing,
        missing=missing,
    )


def slab_points(plan: Plan, offset_mm: float) -> torch.Tensor:
    """Return the points of the slab `offset_mm` above the target plane.

    Returns
    -------
    Tensor
        (planes, ROWS, COLUMNS, 3), voxel coordinates x, y, z, float32.
    """
    rows = (torch.arange(ROWS) - (ROWS - 1) / 2) * PIXEL_MM
    columns = (torch.arange(COLUMNS) - (COLUMNS - 1) / 2) * PIXEL_MM
    steps = (torch.arange(PLANES_PER_SLAB) + 0.5) / PLANES_PER_SLAB - 0.5
    along_x, along_y, along_z = torch.from_numpy(plan.rotation.T.astype(np.float32))
    centre = torch.from_numpy(plan.centre[::-1].astype(np.float32))
    depth = offset_mm + steps * plan.thickness_mm
    plane = rows[:, None, None] * along_y + columns[None, :, None] * along_x + centre
    points: torch.Tensor = plane[None] + depth[:, None, None, None] * along_z
    return points


def average(volumes: torch.Tensor, points: torch.Tensor) -> NDArray[np.float32]:
    """Average `volumes` (channels, z, y, x) over the planes of a slab; 0 outside them.

    Returns
    -------
    ndarray
        (channels, ROWS, COLUMNS).
    """
    size = torch.tensor(volumes.shape[:0:-1])
    grid = 2 * points / (size - 1) - 1
    planes = functional.grid_sample(volumes[None], grid[None], align_corners=True)
    return np.asarray(planes[0].mean(dim=1).numpy(), dtype=np.float32)


def _known(points: torch.Tensor, bounds: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return 255 where every plane of the slab lies within the bounds of truth (z, y, x order)."""
    low, high = torch.from_numpy(bounds[::-1].astype(np.float32).copy()).T
    inside = ((points >= low) & (points <= high)).all(dim=-1).all(dim=0)
    return np.asarray(inside.numpy().astype(np.uint8) * 255)


def _as_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Block:
    """One head with one drawn HU volume, ready to be cut: all its volumes as tensors."""

    head: Anatomy
    mni_from_voxel: NDArray[np.float64] | None  # (4, 4); None where it cannot be trusted
    truth: torch.Tensor  # (3, z, y, x): canonical T1, brain, head
    raised_hu: torch.Tensor  # (1, z, y, x): HU + 1000, so that outside is air

    @classmethod
    def of(cls, head: Anatomy, hu: Volume) -> "Block":
        """Prepare a block for cutting."""
        truth = torch.from_numpy(np.stack([head.t1, head.brain, head.head]))
        affine = mni_from_voxel(head)
        trusted = affine if stretch(affine) <= MOST_STRETCH else None
        return cls(head, trusted, truth, torch.from_numpy(hu + 1000)[None])

    def cut(self, plan: Plan) -> Sample:
        """Cut one sample."""
        at_target = slab_points(plan, 0.0)
        t1, brain, inside = average(self.truth, at_target)
        below = average(self.raised_hu, slab_points(plan, -plan.below_mm))[0]
        above = average(self.raised_hu, slab_points(plan, plan.above_mm))[0]
        target = np.zeros_like(below) if plan.missing else average(self.raised_hu, at_target)[0]
        return Sample(
            hu=np.rint(np.stack([below, target, above]) - 1000).astype(np.int16),
            t1=_as_bytes(t1),
            brain=_as_bytes(brain),
            head=_as_bytes(inside),
            known=_known(at_target, self.head.known),
            distances_mm=(plan.below_mm, plan.above_mm),
            missing=plan.missing,
            position_mm=self._position_mm(plan),
        )

    def _position_mm(self, plan: Plan) -> float:
        if self.mni_from_voxel is None:
            return float("nan")
        across, down = plan.rotation[:, 0], plan.rotation[:, 1]
        return plane_position_mm(self.mni_from_voxel, plan.centre[::-1], across, down)


LOWEST_MM, HIGHEST_MM = -75.0, 90.0
_LEAST_HEAD_MM2 = 1500.0
_LEAST_KNOWN = 0.97


def nodding(mni_from_voxel: MillimetreArray, rng: Generator, thickness_mm: float) -> Plan:
    """Draw how a head lies: a nod of -22 to +12 degrees about the point where positions are 0."""
    axis = np.linalg.inv(mni_from_voxel) @ [*AXIS_MM, 0.0, 1.0]  # voxel x, y, z
    turn = rotation(rng.uniform(-22, 12), rng.normal(0, 3), rng.normal(0, 3))
    return Plan(axis[2::-1].copy(), turn, thickness_mm, 0.0, 0.0, missing=False)


@dataclass(frozen=True)
class SlabSeries:
    """One simulated series: the slabs that show the head and lie where truth exists, rising."""

    plan: Plan  #: how the head lies; its centre is the point where positions are 0
    #: offsets_mm, rank: (n,) place of each slab along the normal, from that point, and its number
    #: in the series
    offsets_mm: NDArray[np.float64]
    rank: NDArray[np.int32]
    hu: NDArray[np.float32]  #: (n, ROWS, COLUMNS) as scanned
    #: (n, 3, ROWS, COLUMNS): memberships of head and brain, canonical T1
    truth: NDArray[np.float32]


def scanned_series(
    head: Tissues | LabelHead,
    affine: MillimetreArray,
    rng: Generator,
    thickness_mm: float,
    step_mm: float,
) -> SlabSeries:
    """Simulate one series: a nod, a new person, its slabs, and one scanner.

    Parameters
    ----------
    affine : MillimetreArray
        (4, 4) of `mni_from_voxel`.
    """
    plan = nodding(affine, rng, thickness_mm)
    person = head.drawn(rng)
    drawn = person.anatomy
    raised = person.hu - AIR_HU  # so that outside, where slabs read 0, is air
    volumes = torch.from_numpy(np.stack([raised, drawn.head, drawn.brain, drawn.t1]))
    offsets = np.arange(LOWEST_MM, HIGHEST_MM, step_mm) + rng.uniform(0, step_mm)
    ranks, planes = [], []
    for rank, offset in enumerate(offsets):
        points = slab_points(plan, float(offset))
        if _known_share(points, drawn.known) < _LEAST_KNOWN:
            continue
        slab = average(volumes, points)
        if (slab[1] > 0.5).sum() * PIXEL_MM**2 >= _LEAST_HEAD_MM2:
            ranks.append(rank)
            planes.append(slab)
    cut = np.stack(planes)
    scanner = SampleRng(int(rng.integers(2**31)), 0)
    hu = scan(torch.from_numpy(cut[:, 0] + AIR_HU), scanner).numpy()
    return SlabSeries(plan, offsets[ranks], np.array(ranks, np.int32), hu, cut[:, 1:])


def _known_share(points: torch.Tensor, bounds: MillimetreArray) -> float:
    """Share of the middle of a slab, (planes, rows, columns, 3), that lies where truth exists."""
    rows, columns = points.shape[1:3]
    middle = points[
        len(points) // 2, rows // 5 : -rows // 5 : 4, columns // 5 : -columns // 5 : 4
    ].numpy()
    low, high = bounds[::-1].T
    return float(((middle >= low) & (middle <= high)).all(axis=-1).mean())
