"""Where the frames of an instance lie in the patient, read by the gate itself (PS3.3 C.7.6.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from rebrain_node.domain.volume import MillimetreArray


@dataclass(frozen=True)
class Plane:
    """One frame's plane in patient coordinates (LPS, mm)."""

    name: str  #: of the object it belongs to
    frame: int  #: 1-based; 1 for a single-frame instance
    position_mm: MillimetreArray  #: (3,) centre of voxel (0, 0)
    row: MillimetreArray  #: (3,) direction of increasing column index
    column: MillimetreArray  #: (3,) direction of increasing row index
    spacing_mm: tuple[float, float]  #: between rows, between columns
    shape: tuple[int, int]  #: rows, columns

    @property
    def normal(self) -> MillimetreArray:
        """Unit normal, (3,): right-handed with row and column."""
        across = np.cross(self.row, self.column)
        length = float(np.linalg.norm(across))
        return across / length if length > 0 else across

    @property
    def corners_mm(self) -> MillimetreArray:
        """Centres of the four corner voxels, (4, 3)."""
        down = self.column * self.spacing_mm[0] * (self.shape[0] - 1)
        across = self.row * self.spacing_mm[1] * (self.shape[1] - 1)
        start = self.position_mm
        return np.stack([start, start + down, start + across, start + down + across])


def planes(name: str, dataset: Dataset) -> Iterator[Plane]:
    """Yield the plane of each frame that states one wholly; the others are left out."""
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
    for number, frame in enumerate(frames, start=1):
        groups = (frame, shared, dataset)
        position = _floats(groups, "PlanePositionSequence", "ImagePositionPatient", 3)
        directions = _floats(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
        spacing = _floats(groups, "PixelMeasuresSequence", "PixelSpacing", 2)
        shape = dataset.get("Rows"), dataset.get("Columns")
        if position is None or directions is None or spacing is None or None in shape:
            continue
        yield Plane(
            name,
            number,
            position,
            directions[:3],
            directions[3:],
            (float(spacing[0]), float(spacing[1])),
            (int(shape[0]), int(shape[1])),
        )


def _first(dataset: Dataset, keyword: str) -> Dataset:
    items = dataset.get(keyword)
    return items[0] if items else Dataset()


def _floats(
    groups: Sequence[Dataset], group: str, keyword: str, count: int
) -> MillimetreArray | None:
    """Find an attribute in the frame's groups, the shared ones, or the instance itself."""
    for holder in (*(_first(each, group) for each in groups[:2]), groups[2]):
        value: Any = holder.get(keyword)
        if value is not None:
            numbers = np.asarray([float(part) for part in np.atleast_1d(value)], dtype=np.float64)
            usable = numbers.size == count and bool(np.isfinite(numbers).all())
            return numbers if usable else None
    return None
