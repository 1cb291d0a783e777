"""The shipped demonstration head in any pose, as prepared volumes with known positions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from rebrain_node.demonstration.study import Head, load_head
from rebrain_node.domain.headframe import plane_position_mm
from rebrain_node.domain.volume import AIR_HU, Grid, PreparedVolume, Target

#: LPS mm of the demonstration head to MNI, fitted to the coordinates of its anatomy maps
MNI_FROM_HEAD = np.array(
    [
        [-0.97714, 0.00364, 0.00027, -0.54313],
        [0.00072, -0.99529, 0.04377, -1.81842],
        [-0.00907, -0.00114, 0.96535, -2.21982],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
#: pixels as coarse as the registration makes them, so that a pose costs little
PIXEL_MM, ROWS, COLUMNS = 3.6, 64, 52


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How the head lies in the scanner: a turn about its middle, then a shift; LPS."""

    nod_deg: float = 0.0
    lean_deg: float = 0.0
    turn_deg: float = 0.0
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    lowest_mm: float = -75.0  #: of the first slice, about the middle of the head
    highest_mm: float = 92.0
    step_mm: float = 5.0

    @property
    def rotation(self) -> npt.NDArray:
        """Directions of the scanner's axes in the head, (3, 3) by column."""
        a, b, c = np.radians([self.nod_deg, self.lean_deg, self.turn_deg])
        about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
        about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
        about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
        return np.array(about_x) @ np.array(about_y) @ np.array(about_z)


def volume_of(hu: npt.NDArray[np.float32], pose: Pose) -> PreparedVolume:
    """A prepared volume of these slices, (n, ROWS, COLUMNS)."""
    distances = pose.step_mm * np.arange(len(hu))
    corner = [-PIXEL_MM * (COLUMNS - 1) / 2, -PIXEL_MM * (ROWS - 1) / 2, pose.lowest_mm]
    grid = Grid(
        origin_mm=np.array(corner) + np.array(pose.shift_mm),
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, 1.0, 0.0]),
        pixel_mm=PIXEL_MM,
        rows=ROWS,
        columns=COLUMNS,
    )
    return PreparedVolume(
        hu=hu.astype(np.float32),
        head=hu > -200.0,
        grid=grid,
        distances_mm=distances,
        thickness_mm=(pose.step_mm,) * len(hu),
        targets=(Target(distance_mm=0.0, below=0, above=0, alpha=0.0),),
        spacing_mm=1.0,
        sop_instance_uids=tuple(f"1.2.{k}" for k in range(len(hu))),
        frame_numbers=(None,) * len(hu),
        frame_of_reference_uid="1.2.0",
    )


def places_of(pose: Pose) -> npt.NDArray:
    """Places about the middle of the head of every voxel, (n, ROWS, COLUMNS, 3), LPS mm."""
    x = PIXEL_MM * (np.arange(COLUMNS) - (COLUMNS - 1) / 2)
    y = PIXEL_MM * (np.arange(ROWS) - (ROWS - 1) / 2)
    z = np.arange(pose.lowest_mm, pose.highest_mm, pose.step_mm)
    along_z, along_y, along_x = np.meshgrid(z, y, x, indexing="ij")
    return np.stack([along_x, along_y, along_z], axis=-1) @ pose.rotation.T


@cache
def _smooth_head() -> tuple[Head, npt.NDArray[np.float32]]:
    head = load_head()
    return head, ndimage.uniform_filter(head.hu.astype(np.float32), (4, 3, 3))


def posed(pose: Pose) -> tuple[PreparedVolume, npt.NDArray]:
    """Scan the demonstration head; also the true position of every slice, (n,)."""
    head, smooth = _smooth_head()
    middle = head.origin_mm + (np.array(head.hu.shape[::-1]) - 1.0) / 2.0
    hu = head.sample(smooth, places_of(pose) + middle)
    volume = volume_of(np.where(hu < -300.0, np.float32(AIR_HU), hu), pose)
    turned = np.eye(4)
    turned[:3, :3] = pose.rotation
    turned[:3, 3] = middle - pose.rotation @ np.array(pose.shift_mm)
    truth = [
        plane_position_mm(
            MNI_FROM_HEAD @ turned,
            volume.grid.plane_origin_mm(distance),
            volume.grid.row_direction,
            volume.grid.column_direction,
        )
        for distance in volume.distances_mm
    ]
    return volume, np.array(truth)
