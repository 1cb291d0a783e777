"""What the header of one source frame says, classic or enhanced, as one noun."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rebrain_node.domain.contrast import ContrastReading
from rebrain_node.domain.volume import MillimetreArray


@dataclass(frozen=True, kw_only=True)
class SourceFrame:
    """The header of one two-dimensional frame; ``None`` where the attribute is absent or unfit.

    A classic instance holds one frame, an Enhanced CT instance many. Values are as declared,
    nothing is inferred: judging them is the work of the selection and of the check.
    """

    instance_index: int  #: place of its instance in the sequence it was read from
    frame_number: int | None  #: 1-based within a multi-frame instance, ``None`` for a classic one
    sop_instance_uid: str | None
    sop_class_uid: str | None
    series_instance_uid: str | None
    study_instance_uid: str | None
    frame_of_reference_uid: str | None
    modality: str | None
    image_type: tuple[str, ...]  #: (0008,0008), or the frame's Frame Type (0008,9007)
    volume_calculation: str | None  #: (0008,9207) of an enhanced object, e.g. ``MAX_IP``
    presentation_intent: str | None  #: (0008,0068), e.g. ``FOR PROCESSING``
    image_position_patient: tuple[float, float, float] | None  #: LPS mm, centre of voxel (0, 0)
    image_orientation_patient: tuple[float, float, float, float, float, float] | None
    pixel_spacing_mm: tuple[float, float] | None  #: between rows, between columns
    rows: int | None
    columns: int | None
    #: (0018,0050); values of one series that differ by the noise of their writing are one
    slice_thickness_mm: float | None
    gantry_tilt_deg: float | None  #: (0018,1120), as declared; the positions are what counts
    instance_number: int | None
    series_number: int | None
    series_description: str | None
    body_part: str | None
    convolution_kernel: str | None
    contrast: ContrastReading
    manufacturer: str | None
    patient_age_years: float | None  #: declared, or from birth date and examination
    years_since_birth: float | None  #: from birth date and examination alone
    rescale_type: str | None  #: (0028,1054), e.g. ``HU``
    bits_stored: int | None
    acquisition_number: int | None = None  #: (0020,0012), of a frame (0020,9156)
    acquired_at: str | None = None  #: date and time of the acquisition, in an order as text

    @cached_property
    def normal(self) -> MillimetreArray | None:
        """Unit normal of the plane, (3,) LPS, or ``None`` where the orientation is unfit."""
        if self.image_orientation_patient is None:
            return None
        cosines = np.asarray(self.image_orientation_patient)
        normal = np.cross(cosines[:3], cosines[3:])
        length = float(np.linalg.norm(normal))
        return normal / length if length > 0.0 else None

    @property
    def distance_mm(self) -> float | None:
        """Distance of the plane from the patient's origin along its own normal."""
        normal = self.normal
        if normal is None or self.image_position_patient is None:
            return None
        return float(np.asarray(self.image_position_patient) @ normal)
