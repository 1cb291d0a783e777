"""A thick-slice CT series of one head with a known T1, as the node's steps take it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from rebrain_node.domain.volume import FloatArray, Grid, MaskArray, MillimetreArray, SourceVolume
from trainer.sample_rng import SampleRng
from trainer.simulate.hounsfield import Tissues, draw_hu
from trainer.simulate.scanner import scan
from trainer.simulate.slabs import COLUMNS, PIXEL_MM, ROWS, Plan, average, rotation, slab_points

THINNEST_MM, THICKEST_MM = 3.0, 7.0
_TILT_DEG, _TURN_DEG = (-22.0, 12.0), 3.0  # nod of the head; spread of roll and yaw
_BELOW_BRAIN_MM = 12.0  # a head CT begins at the skull base
_ABOVE_BRAIN_MM = 14.0
_TRUTH_PLANES = 3  # averaged within one synthetic slice


@dataclass(frozen=True)
class DrawnSeries:
    """One series in the coordinates of its head: LPS mm are voxels x, y, z at 1 mm."""

    source: SourceVolume
    head: Tissues

    def truth(
        self, grid: Grid, distance_mm: float, spacing_mm: float
    ) -> tuple[FloatArray, MaskArray]:
        """Return the truth behind one synthetic slice, and where there is one.

        Returns
        -------
        t1 : FloatArray
            (rows, columns), 0 to 1, the mean over the thickness of the synthetic slice.
        known : MaskArray
            (rows, columns).
        """
        points = _points(grid, distance_mm, spacing_mm)
        t1 = average(torch.from_numpy(self.head.t1)[None], points)[0]
        low, high = torch.from_numpy(self.head.known[::-1].astype(np.float32).copy()).T
        inside = ((points >= low) & (points <= high)).all(dim=-1).all(dim=0)
        return np.asarray(t1), np.asarray(inside.numpy(), dtype=bool)


def draw_series(head: Tissues, rng: Generator) -> DrawnSeries:
    """Draw one series: a new HU volume, thickness, nod and scanner."""
    thickness = float(rng.uniform(THINNEST_MM, THICKEST_MM))
    turn = rotation(rng.uniform(*_TILT_DEG), *rng.normal(0.0, _TURN_DEG, 2))
    middle, reach = _brain(head)
    plan = Plan(middle, turn, thickness, 0.0, 0.0, missing=False)
    raised = torch.from_numpy(draw_hu(head, rng) + 1000.0)[None]
    offsets = np.arange(reach[0] - _BELOW_BRAIN_MM, reach[1] + _ABOVE_BRAIN_MM, thickness)
    offsets += rng.uniform(0.0, thickness)
    hu = np.concatenate([average(raised, slab_points(plan, float(o))) for o in offsets]) - 1000.0
    scanned = scan(torch.from_numpy(hu), SampleRng(int(rng.integers(2**31)), 0)).numpy()
    return DrawnSeries(_source(scanned, plan, offsets), head)


def _brain(head: Tissues) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Middle of the brain (z, y, x), and its lowest and highest voxel from there."""
    places = 4 * np.argwhere(head.brain[::4, ::4, ::4] > 0.5).astype(np.float64)
    middle = places.mean(axis=0)
    low, high = np.percentile(places[:, 0], (0.5, 99.5)) - middle[0]
    return middle, (float(low), float(high))


def _source(hu: FloatArray, plan: Plan, offsets: NDArray[np.float64]) -> SourceVolume:
    """Say where the slices lie; they follow their normal, whatever the nod."""
    along, down, up = plan.rotation.T
    corner = plan.centre[::-1] - PIXEL_MM * (along * (COLUMNS - 1) / 2.0 + down * (ROWS - 1) / 2.0)
    count = len(offsets)
    return SourceVolume(
        hu=hu.astype(np.float32),
        positions_mm=np.asarray(corner + offsets[:, None] * up, dtype=np.float64),
        row_direction=along,
        column_direction=down,
        pixel_spacing_mm=(PIXEL_MM, PIXEL_MM),
        thickness_mm=(plan.thickness_mm,) * count,
        sop_instance_uids=tuple(str(k) for k in range(count)),
        frame_numbers=(None,) * count,
        frame_of_reference_uid="head",
        padding=np.zeros(hu.shape, dtype=bool),
    )


def _points(grid: Grid, distance_mm: float, spacing_mm: float) -> torch.Tensor:
    """Points x, y, z of the planes within one synthetic slice, (planes, rows, columns, 3)."""
    depths = ((np.arange(_TRUTH_PLANES) + 0.5) / _TRUTH_PLANES - 0.5) * spacing_mm
    rows = np.arange(grid.rows)[:, None, None] * grid.pixel_mm * grid.column_direction
    columns = np.arange(grid.columns)[None, :, None] * grid.pixel_mm * grid.row_direction
    origins: MillimetreArray = np.stack([grid.plane_origin_mm(distance_mm + d) for d in depths])
    return torch.from_numpy((origins[:, None, None] + rows + columns).astype(np.float32))
