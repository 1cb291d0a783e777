"""Whether the text that is copied can be read as declared (PS3.3 C.12.1.1.2, PS3.5 6.1).

Text that is not copied, e.g. a protocol name, may be in whatever character set.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Final

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from rebrain_node.instance.elements import name_of

#: copied into the results byte by byte: patient, study, and what identifies both
COPIED_TEXT: Final = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber", "TimezoneOffsetFromUTC",
    "IssuerOfPatientID", "TypeOfPatientID", "PatientBirthTime", "OtherPatientIDs",
    "OtherPatientNames", "EthnicGroup", "PatientIdentityRemoved", "DeidentificationMethod",
    "LongitudinalTemporalInformationModified", "StudyDescription", "PhysiciansOfRecord",
    "PatientAge", "PatientSize", "PatientWeight", "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription", "PatientPosition",
    "PositionReferenceIndicator", "AcquisitionDate", "AcquisitionTime",
)  # fmt: skip
#: representations in the declared character set; all others are in ASCII (PS3.5 6.1.2.3)
_IN_CHARACTER_SET: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_DEFAULT_REPERTOIRE: Final = frozenset({"", "ISO_IR 6", "ISO 2022 IR 6"})


def charset_problem(instance: Dataset) -> str | None:
    """Say what is wrong with the character set of what is copied, or ``None``; no text is told."""
    terms = _terms(instance)
    if any(term not in python_encoding for term in terms):
        return "Specific Character Set (0008,0005) names a character set that is not known"
    if _encodings(terms) is None:
        return "Specific Character Set (0008,0005) combines character sets that do not combine"
    for keyword in COPIED_TEXT:
        if not is_readable(instance, keyword):
            return (
                f"{name_of(Tag(keyword))} holds characters that are not of the "
                "character set that Specific Character Set (0008,0005) declares"
            )
    return None


def is_readable(instance: Dataset, keyword: str) -> bool:
    """Whether a text can be read in the declared character set; an absent one can."""
    terms = _terms(instance)
    texts = _texts(instance, keyword)
    if _DEFAULT_REPERTOIRE.issuperset(terms) or dictionary_VR(keyword) not in _IN_CHARACTER_SET:
        return all(text.isascii() for text in texts)
    encodings = _encodings(terms)
    return encodings is not None and all(_is_decodable(text, encodings) for text in texts)


def _encodings(terms: list[str]) -> list[str] | None:
    """Python's encodings of the character sets, or None where pydicom would guess."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return convert_encodings(terms)
        except (UserWarning, LookupError):
            return None


def _terms(instance: Dataset) -> list[str]:
    declared = instance.get("SpecificCharacterSet")
    return [declared] if isinstance(declared, str) else [str(t) for t in declared or [""]]


def _texts(instance: Dataset, keyword: str) -> Sequence[str | bytes]:
    """Return the texts of one element, as received where nobody has decoded them yet."""
    element = instance.get_item(keyword)
    value = getattr(element, "value", None)
    if not value:
        return ()
    parts = list(value) if isinstance(value, list | tuple | MultiValue) else [value]
    return [_as_received(part) for part in parts]


def _as_received(part: Any) -> str | bytes:
    text = getattr(part, "original_string", None) or part
    return text if isinstance(text, str | bytes) else str(part)


def _is_decodable(value: str | bytes, encodings: list[str]) -> bool:
    if isinstance(value, str):
        return "\ufffd" not in value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return "\ufffd" not in decode_bytes(value, encodings, PN_DELIMS | TEXT_VR_DELIMS)
        except (UnicodeError, UserWarning, LookupError):
            return False
