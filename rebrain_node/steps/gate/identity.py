"""Rules: every object belongs to exactly the patient and study of its source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from rebrain_node.steps.gate.evidence import Evidence, Written
from rebrain_node.steps.gate.rule import Breach, Rule, each

#: Patient, Patient Study and Clinical Trial Subject modules (PS3.3 C.7.1.1, C.7.2.2, C.7.1.3)
PATIENT: Final = (
    "PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID", "PatientBirthDate",
    "PatientBirthTime", "PatientSex", "OtherPatientIDs", "OtherPatientNames", "EthnicGroup",
    "PatientIdentityRemoved", "PatientAge", "PatientSize", "PatientWeight",
    "ClinicalTrialProtocolID", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID",
)  # fmt: skip
#: General Study module (PS3.3 C.7.2.1)
STUDY: Final = (
    "StudyInstanceUID", "StudyID", "AccessionNumber", "ReferringPhysicianName",
    "StudyDescription", "PhysiciansOfRecord",
)  # fmt: skip
STUDY_TIME: Final = ("StudyDate", "StudyTime")
#: dates of our own making: each must be one that the source states
OWN_DATES: Final = ("SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate")
SOURCE_DATES: Final = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
#: stands where an object must have a date and the source states none
NO_DATE: Final = "19000101"
UNICODE: Final = "ISO_IR 192"


def _patient(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.written, _differs_from(evidence.source[0], PATIENT))


def _study(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.written, _differs_from(evidence.source[0], STUDY))


def _study_time(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.written, _differs_from(evidence.source[0], STUDY_TIME))


def _differs_from(source: Dataset, keywords: tuple[str, ...]) -> Callable[[Written], str | None]:
    def fault(written: Written) -> str | None:
        unlike = [k for k in keywords if _value(written.dataset, k) != _value(source, k)]
        return f"{', '.join(unlike)} is not the source's" if unlike else None

    return fault


def _dates(evidence: Evidence) -> Iterator[Breach]:
    known = {_value(dataset, k) for dataset in evidence.source for k in SOURCE_DATES}
    known |= {"", NO_DATE}

    def fault(written: Written) -> str | None:
        unknown = [k for k in OWN_DATES if _value(written.dataset, k) not in known]
        return f"{', '.join(unknown)} is no date of the source" if unknown else None

    return each(evidence.written, fault)


def _character_set(evidence: Evidence) -> Iterator[Breach]:
    wanted = _value(evidence.source[0], "SpecificCharacterSet")

    def fault(written: Written) -> str | None:
        found = _value(written.dataset, "SpecificCharacterSet")
        if found in (wanted, UNICODE):
            return None
        return f"SpecificCharacterSet is {found or 'absent'}, not the source's {wanted or 'absent'}"

    return each(evidence.written, fault)


def _value(dataset: Dataset, keyword: str) -> str:
    """Text of a value, empty where absent; padding is no part of it (PS3.5 6.2)."""
    value = dataset.get(keyword)
    if value is None:
        return ""
    parts = value if isinstance(value, MultiValue) else (value,)
    return "\\".join(str(part).rstrip(" \0") for part in parts)


RULES: Final = (
    Rule("GATE-PATIENT", "Every patient attribute equals the source's.", _patient),
    Rule("GATE-STUDY", "Every study attribute equals the source's.", _study),
    Rule("GATE-STUDY-TIME", "Study Date and Time equal the source's.", _study_time),
    Rule("GATE-DATES", "No object carries a date that its source does not state.", _dates),
    Rule(
        "GATE-CHARACTER-SET",
        "Specific Character Set is the source's, or ISO_IR 192 as a whole.",
        _character_set,
    ),
)
