"""A whole simulated series: parallel slabs of one head that nods, from below the brain upwards."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from rebrain_node.domain.headframe import AXIS_MM
from rebrain_node.domain.volume import MillimetreArray
from trainer.simulate.slabs import PIXEL_MM, Plan, average, rotation, slab_points

LOWEST_MM, HIGHEST_MM = -75.0, 90.0
_LEAST_HEAD_MM2 = 1500.0
_LEAST_KNOWN = 0.97


def nodding(mni_from_voxel: MillimetreArray, rng: Generator, thickness_mm: float) -> Plan:
    """Draw how a head lies: a nod of -22 to +12 degrees about the point where positions are 0."""
    axis = np.linalg.inv(mni_from_voxel) @ [*AXIS_MM, 0.0, 1.0]  # voxel x, y, z
    turn = rotation(rng.uniform(-22, 12), rng.normal(0, 3), rng.normal(0, 3))
    return Plan(axis[2::-1].copy(), turn, thickness_mm, 0.0, 0.0, missing=False)


def offsets_mm(rng: Generator, step_mm: float) -> NDArray[np.float64]:
    """Return the places of the slabs along their normal, from the point where positions are 0."""
    return np.arange(LOWEST_MM, HIGHEST_MM, step_mm) + rng.uniform(0, step_mm)


def slabs_through(
    volumes: torch.Tensor, known: MillimetreArray, plan: Plan, offsets: NDArray[np.float64]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Cut the slabs that show the head and lie where truth exists, rising.

    Parameters
    ----------
    volumes : Tensor
        (channels, z, y, x); the first but one, 0 to 1, is the head.
    known : MillimetreArray
        (3, 2) bounds of truth, see `trainer.simulate.hounsfield.Tissues`.

    Yields
    ------
    tuple
        The number of the slab in `offsets`, and its (channels, ROWS, COLUMNS).
    """
    for rank, offset in enumerate(offsets):
        points = slab_points(plan, float(offset))
        if _known_share(points, known) < _LEAST_KNOWN:
            continue
        planes = average(volumes, points)
        if (planes[1] > 0.5).sum() * PIXEL_MM**2 >= _LEAST_HEAD_MM2:
            yield rank, planes


def _known_share(points: torch.Tensor, bounds: MillimetreArray) -> float:
    """Share of the middle of a slab, (planes, rows, columns, 3), that lies where truth exists."""
    rows, columns = points.shape[1:3]
    middle = points[
        len(points) // 2, rows // 5 : -rows // 5 : 4, columns // 5 : -columns // 5 : 4
    ].numpy()
    low, high = bounds[::-1].T
    return float(((middle >= low) & (middle <= high)).all(axis=-1).mean())
