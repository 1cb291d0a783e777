"""A head in HU cut into the thick, tilted slices of one series: how the gates are measured.

Volumes are (z, y, x) at 1 mm along LPS, slices (slice, row, column).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi

from rebrain_node.domain.volume import SourceVolume
from trainer.simulate.hounsfield import AIR_HU
from trainer.simulate.template import Volume

_SIDE = 256
_CLIP_HU = (-1024.0, 3071.0)


@dataclass(frozen=True)
class Pose:
    """How a series is cut: slice thickness, pixel size, tilt of the gantry (rising rows)."""

    thickness_mm: float
    pixel_mm: float
    tilt_rad: float

    @classmethod
    def drawn(cls, rng: Generator) -> Self:
        """Draw 3 to 7 mm, 0.85 to 0.98 mm and -20 to 24 degrees."""
        return cls(
            thickness_mm=float(rng.choice([3.0, 4.0, 5.0, 6.0, 7.0])),
            pixel_mm=float(rng.uniform(0.85, 0.98)),
            tilt_rad=float(np.radians(rng.uniform(-20.0, 24.0))),
        )


def cut(hu: Volume, pose: Pose) -> Volume:
    """Average slabs from 6 mm above the head down to 160 mm below its top, along the table."""
    body = hu > -500.0
    middle_y, middle_x = (
        float(np.flatnonzero(body.any(axis=axes)).mean()) for axes in ((0, 2), (0, 1))
    )
    levels = np.flatnonzero(body.any(axis=(1, 2)))
    top = levels[-1] + 6.0
    height = min(top - levels[0], 160.0)
    step = pose.thickness_mm / np.cos(pose.tilt_rad)  # the slices lie one thickness apart
    centres = top - step * (np.arange(int(height / step), 0, -1) - 0.5)
    places = np.asarray((np.arange(_SIDE) - (_SIDE - 1) / 2) * pose.pixel_mm, dtype=np.float64)
    planes = max(2, int(np.ceil(pose.thickness_mm / 1.25)))
    depths = ((np.arange(planes) + 0.5) / planes - 0.5) * pose.thickness_mm
    frame = (middle_y, middle_x, pose.tilt_rad)
    return np.stack(
        [np.mean([_plane(hu, c, d, places, frame) for d in depths], axis=0) for c in centres]
    ).astype(np.float32)


def _plane(
    hu: Volume,
    centre: float,
    depth: float,
    places: NDArray[np.float64],
    frame: tuple[float, float, float],
) -> Volume:
    """Sample one plane, ``depth`` above that through ``centre``, leaning by the tilt."""
    middle_y, middle_x, tilt = frame
    y = middle_y + places * np.cos(tilt) - depth * np.sin(tilt)
    z = centre + places * np.sin(tilt) + depth * np.cos(tilt)
    shape = (len(places), len(places))
    points = [
        np.broadcast_to(z[:, None], shape),
        np.broadcast_to(y[:, None], shape),
        np.broadcast_to(middle_x + places, shape),
    ]
    return np.asarray(ndi.map_coordinates(hu, points, order=1, cval=AIR_HU))


def series_of(slices: Volume, pose: Pose) -> SourceVolume:
    """Give slices, (n, rows, columns) in HU, the places they were cut at."""
    count = len(slices)
    table_mm = np.arange(count) * pose.thickness_mm / np.cos(pose.tilt_rad)
    return SourceVolume(
        hu=np.clip(slices, *_CLIP_HU).astype(np.float32),
        positions_mm=np.stack([np.zeros(count), np.zeros(count), table_mm], axis=1),
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, np.cos(pose.tilt_rad), np.sin(pose.tilt_rad)]),
        pixel_spacing_mm=(pose.pixel_mm, pose.pixel_mm),
        thickness_mm=(pose.thickness_mm,) * count,
        sop_instance_uids=tuple(f"1.2.{k}" for k in range(count)),
        frame_numbers=(None,) * count,
        frame_of_reference_uid="1.2.0",
        padding=np.zeros(slices.shape, dtype=bool),
    )
