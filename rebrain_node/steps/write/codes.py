"""Coded concepts of the objects: standard ones where the standard has one, else 99REBRAIN."""

from __future__ import annotations

from typing import Final

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from rebrain_node.domain.marks import CODING_SCHEME, CODING_SCHEME_NAME, MANUFACTURER

Triple = tuple[str, str, str]  #: code value, coding scheme designator, meaning

#: true of our images: the CT was resampled on the way (PS3.16 CID 7203)
SPATIAL_RESAMPLING: Final = ("113085", "DCM", "Spatial resampling")
#: PS3.16 CID 7202
SOURCE_IMAGE: Final = ("121322", "DCM", "Source image for image processing operation")


def private(value: str, meaning: str) -> Triple:
    """Name a concept of our own scheme, which every object identifies."""
    return value, CODING_SCHEME, meaning


def concept(triple: Triple) -> CodedConcept:
    """Make a code item of (value, scheme, meaning)."""
    value, scheme, meaning = triple
    return CodedConcept(value=value, scheme_designator=scheme, meaning=meaning)


def coding_scheme() -> Dataset:
    """Identify 99REBRAIN (PS3.3 C.12.1.1.14, CodingSchemeIdentificationSequence)."""
    return CodingSchemeIdentificationItem(
        designator=CODING_SCHEME,
        name=CODING_SCHEME_NAME,
        responsible_organization=MANUFACTURER,
    )
