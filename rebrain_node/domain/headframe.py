"""The head frame: the positions of the slices of a series in a common coordinate system.

The frame is that of the template (MNI, RAS, mm): x to the patient's right ear is negative, y
increases towards the face, z towards the vertex, and z = 0 is the plane of the anterior and
posterior commissure. The position of a plane, however it is tilted, is the z at which it crosses
the line x = 0, y = -18 mm, the long axis of the brain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rebrain_node.domain.volume import MillimetreArray

#: x and y of the line along which positions are measured, mm
AXIS_MM = (0.0, -18.0)


@dataclass(frozen=True, kw_only=True)
class HeadFrame:
    """The positions of a series in the head, and how plausible it is that it shows a head."""

    position_mm: MillimetreArray  #: (n,) of each measured slice, ascending, head frame
    head_from_patient: MillimetreArray  #: (4, 4) LPS mm of the patient to the head frame
    pitch_deg: float  #: chin up against the slices is positive
    roll_deg: float  #: left ear up is positive
    yaw_deg: float  #: face turned to the left is positive
    size: float  #: of the head against the template, cube root of the volumes' ratio
    coverage: float  #: share of the brain between the first and the last slice, 0 to 1
    symmetry: float  #: correlation of the head with its mirror image, -1 to 1
    likeness: float  #: correlation of the head with the template, -1 to 1
    plausibility: float  #: 0 certainly no head, 1 a head without doubt

    def position_at_mm(self, fraction: float, below: int, above: int) -> float:
        """Position ``fraction`` of the way from the measured slice ``below`` to ``above``."""
        low, high = self.position_mm[below], self.position_mm[above]
        return float(low + fraction * (high - low))


def plane_position_mm(
    head_from_patient: MillimetreArray,
    origin_mm: MillimetreArray,
    across: MillimetreArray,
    down: MillimetreArray,
) -> float:
    """Position of the plane through ``origin_mm`` along the directions ``across`` and ``down``.

    Parameters
    ----------
    head_from_patient : MillimetreArray
        (4, 4), LPS mm to the head frame.
    origin_mm, across, down : MillimetreArray
        (3,) LPS: a point of the plane and two directions in it.
    """
    turn, shift = head_from_patient[:3, :3], head_from_patient[:3, 3]
    start = turn @ origin_mm + shift
    spans = turn @ np.stack([across, down], axis=1)
    steps, *_ = np.linalg.lstsq(spans[:2], np.asarray(AXIS_MM) - start[:2])
    return float(start[2] + spans[2] @ steps)
