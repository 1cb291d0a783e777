"""Volumes along the path, all in patient coordinates (LPS, mm).

Order of array axes is always (slice, row, column): slices along +normal, rows along the
direction of increasing row index, columns along the direction of increasing column index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from rebrain_node.domain.uncertainty import RULE_OF_THUMB, UncertaintyInterpretation

FloatArray = npt.NDArray[np.float32]
MillimetreArray = npt.NDArray[np.float64]
MaskArray = npt.NDArray[np.bool_]
StoredArray = npt.NDArray[np.uint16]

#: foot of the CT scale, used for padding and for everything outside the field of view
AIR_HU = -1024.0

SliceKind = Literal["measured", "retrieved", "interpolated"]


@dataclass(frozen=True, kw_only=True)
class RotationPlacement:
    """Slices that were measured several to a rotation of a tilted gantry."""

    #: (n,) place of each slice within its rotation, from 0; -1 for the sum of a rotation
    phases: tuple[int, ...]
    #: how far the slices of a rotation were shifted against each other, in the plane; 0: not
    shift_mm: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SourceVolume:
    """The measured slices of one series in HU, sorted along the normal, not resampled.

    Slices are parallel planes; with gantry tilt their first voxels do not lie on one normal.
    """

    hu: FloatArray  #: (n, rows, columns), Hounsfield units; padding is -1024
    positions_mm: MillimetreArray  #: (n, 3) LPS of the centre of voxel (0, 0) of each slice
    row_direction: MillimetreArray  #: (3,) unit vector of increasing column index (IOP 1-3)
    column_direction: MillimetreArray  #: (3,) unit vector of increasing row index (IOP 4-6)
    pixel_spacing_mm: tuple[float, float]  #: between rows, between columns (0028,0030)
    thickness_mm: tuple[float, ...]  #: (n,) nominal slice thickness (0018,0050)
    sop_instance_uids: tuple[str, ...]  #: (n,) instance of each slice
    frame_numbers: tuple[int | None, ...]  #: (n,) 1-based frame within a multi-frame instance
    frame_of_reference_uid: str
    padding: MaskArray  #: (n, rows, columns), true where the scanner measured nothing
    rotations: RotationPlacement | None = None  #: of a multi-slice scanner with tilt

    @property
    def normal(self) -> MillimetreArray:
        """Unit normal of the planes, (3,), LPS; slices are sorted along it."""
        return np.cross(self.row_direction, self.column_direction)

    @property
    def distances_mm(self) -> MillimetreArray:
        """Distance of each slice along the normal, (n,), increasing."""
        return self.positions_mm @ self.normal

    @property
    def tilt_deg(self) -> float:
        """Gantry tilt, degrees, >= 0 (`tilt_deg`)."""
        phases = None if self.rotations is None else self.rotations.phases
        return tilt_deg(self.positions_mm, self.normal, phases)


def tilt_deg(
    positions_mm: MillimetreArray, normal: MillimetreArray, phases: Sequence[int] | None = None
) -> float:
    """Angle between the normal of the planes and the line along which they follow each other.

    Parameters
    ----------
    positions_mm : MillimetreArray
        (n, 3) LPS of voxel (0, 0) of each slice, in order.
    normal : MillimetreArray
        (3,) unit vector.
    phases : sequence of int, optional
        (n,) place of each slice within its rotation: only slices of one place are compared.

    Returns
    -------
    float
        Degrees, >= 0: the median over all steps; 0 where no slice lies apart from another.
    """
    if phases is not None:
        positions_mm = positions_mm[np.array(phases) == phases[0]]
    steps = np.diff(positions_mm, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    if not np.any(lengths > 0.0):
        return 0.0
    cosines = np.abs(steps[lengths > 0.0] @ normal) / lengths[lengths > 0.0]
    return float(np.degrees(np.arccos(min(1.0, float(np.median(cosines))))))


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A regular stack of planes: where voxel (k, r, c) of a volume lies in the patient.

    LPS = origin + normal * (d_k) + column_direction * r * pixel_mm + row_direction * c * pixel_mm,
    with d_k the distance of slice k from the first one.
    """

    origin_mm: MillimetreArray  #: (3,) LPS of voxel (0, 0, 0)
    row_direction: MillimetreArray  #: (3,) unit vector of increasing column index
    column_direction: MillimetreArray  #: (3,) unit vector of increasing row index
    pixel_mm: float  #: square pixels
    rows: int
    columns: int

    @property
    def normal(self) -> MillimetreArray:
        """Unit vector along which slices follow each other, (3,)."""
        return np.cross(self.row_direction, self.column_direction)

    def plane_origin_mm(self, distance_mm: float) -> MillimetreArray:
        """LPS of voxel (0, 0) of the plane at ``distance_mm`` from the first one, (3,)."""
        return self.origin_mm + self.normal * distance_mm


@dataclass(frozen=True, kw_only=True)
class Target:
    """One slice to be made: where it lies and which measured slices bracket it."""

    distance_mm: float  #: along the normal from the first measured slice
    below: int  #: index of the measured slice at or before it
    above: int  #: index of the measured slice at or after it; equals ``below`` if measured
    alpha: float  #: place between them, 0 at ``below``, in [0, 1); 0 if measured


@dataclass(frozen=True, kw_only=True)
class TissueLevel:
    """How a series was shifted to the level of brain tissue that the recipe expects, HU."""

    measured_hu: float | None  #: most frequent value of its brain; None where too little is seen
    expected_hu: float
    shift_hu: float  #: added to its soft tissue

    @property
    def missing_hu(self) -> float:
        """What remains to the expected level after the shift; 0 where there is no level."""
        if self.measured_hu is None:
            return 0.0
        return self.expected_hu - self.measured_hu - self.shift_hu

    def to_json(self) -> dict[str, float | None]:
        """Return it as audit log and commands show it."""
        return {
            "measured_hu": None if self.measured_hu is None else round(self.measured_hu, 2),
            "expected_hu": self.expected_hu,
            "shift_hu": round(self.shift_hu, 2),
        }


@dataclass(frozen=True, kw_only=True)
class PreparedVolume:
    """The measured slices on the recipe's grid, tilt undone, table removed, and the targets."""

    hu: FloatArray  #: (n, rows, columns), HU; outside the head and the field of view -1024
    head: MaskArray  #: (n, rows, columns), true inside the head
    grid: Grid
    distances_mm: MillimetreArray  #: (n,) measured slices from the first one, along the normal
    thickness_mm: tuple[float, ...]  #: (n,)
    targets: tuple[Target, ...]  #: uniform spacing, first at 0
    spacing_mm: float  #: distance between neighbouring targets
    sop_instance_uids: tuple[str, ...]  #: (n,) source instance of each measured slice
    frame_numbers: tuple[int | None, ...]  #: (n,)
    frame_of_reference_uid: str
    tissue: TissueLevel | None = None  #: None where the recipe expects no level


@dataclass(frozen=True, kw_only=True)
class Guide:
    """How one target is synthesised, and why so: the provenance of a slice.

    A ``retrieved`` slice has all four of ``exemplar``, ``similarity``, ``tau`` and
    ``position_difference_mm``, with ``similarity >= tau``; no other slice has an ``exemplar``, but
    it may say by ``similarity`` and ``tau`` why none was good enough. The gate holds the written
    objects to that.
    """

    target: Target
    kind: SliceKind
    reason: str  #: one sentence: why this kind
    similarity: float | None = None  #: cosine of the best exemplar, [-1, 1]
    tau: float | None = None  #: the bundle's threshold on it
    exemplar: str | None = None  #: keyed hash of the exemplar slice, 16 to 64 digits, 0-9 a-f
    position_difference_mm: float | None = None  #: exemplar minus target, head frame
    exemplar_hu: FloatArray | None = field(default=None, repr=False)  #: (rows, columns)


@dataclass(frozen=True, kw_only=True)
class StoredRange:
    """How intensity becomes stored pixel values: linearly from ``black`` to ``white``."""

    black: int  #: stored value of intensity 0, >= 0
    white: int  #: stored value of intensity 1, > ``black``, at most 4095 (12 bits)

    def stored(self, intensity: FloatArray) -> StoredArray:
        """Map intensity [0, 1] of any shape to stored values; what lies outside is clipped."""
        unit = np.clip(intensity, 0.0, 1.0)
        return np.rint(self.black + unit * (self.white - self.black)).astype(np.uint16)

    def intensity(self, stored: StoredArray) -> FloatArray:
        """Map stored values of any shape back to intensity [0, 1]."""
        above = np.asarray(stored, dtype=np.float32) - np.float32(self.black)
        return np.asarray(above / np.float32(self.white - self.black), dtype=np.float32)


#: all of 12 bits
FULL_STORED_RANGE = StoredRange(black=0, white=4095)


@dataclass(frozen=True, kw_only=True)
class SyntheticVolume:
    """The synthetic T1-like volume on the recipe's grid, with its provenance by slice."""

    intensity: FloatArray  #: (k, rows, columns), [0, 1]
    uncertainty: FloatArray  #: (k, rows, columns), same unit, to be read as ``meaning`` says
    head: MaskArray  #: (k, rows, columns)
    guides: tuple[Guide, ...]  #: (k,)
    prepared: PreparedVolume
    meaning: UncertaintyInterpretation = RULE_OF_THUMB  #: of ``uncertainty``
    stored_range: StoredRange = FULL_STORED_RANGE  #: of ``intensity``, as the recipe says

    @cached_property
    def slice_uncertainty(self) -> tuple[float, ...]:
        """Mean uncertainty of each slice inside the head, (k,), as the map shows it: at most 1."""
        means = []
        for values, head in zip(self.uncertainty, self.head, strict=True):
            inside = np.clip(values[head], 0.0, 1.0)
            means.append(float(inside.mean(dtype=np.float64)) if inside.size else 0.0)
        return tuple(means)

    @property
    def trusted(self) -> tuple[bool | None, ...]:
        """Whether each slice is within the recipe's limit, (k,); None without a limit."""
        return tuple(self.meaning.trusts(mean) for mean in self.slice_uncertainty)

    @property
    def grid(self) -> Grid:
        """Where the voxels lie in the patient."""
        return self.prepared.grid
