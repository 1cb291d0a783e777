"""Coded concepts of the objects: standard ones where the standard has one, else 99REBRAIN."""

from __future__ import annotations

from functools import cache
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
#: PS3.16 CID 7162
ARTIFICIAL_INTELLIGENCE: Final = ("123110", "DCM", "Artificial Intelligence")
#: PS3.16 CID 4031
HEAD: Final = ("69536005", "SCT", "Head")
NO_UNITS: Final = ("1", "UCUM", "no units")
MILLIMETRE: Final = ("mm", "UCUM", "mm")


def private(value: str, meaning: str) -> Triple:
    """Name a concept of our own scheme, which every object identifies."""
    return value, CODING_SCHEME, meaning


@cache
def concept(triple: Triple) -> CodedConcept:
    """Make a code item of (value, scheme, meaning); shared, so never to be changed."""
    value, scheme, meaning = triple
    return CodedConcept(value=value, scheme_designator=scheme, meaning=meaning)


def coding_scheme() -> Dataset:
    """Identify 99REBRAIN (PS3.3 C.12.1.1.14, CodingSchemeIdentificationSequence)."""
    return CodingSchemeIdentificationItem(
        designator=CODING_SCHEME,
        name=CODING_SCHEME_NAME,
        responsible_organization=MANUFACTURER,
    )
