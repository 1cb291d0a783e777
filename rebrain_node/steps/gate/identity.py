"""Rules: every object is a valid file with UIDs of its own, in its source's patient and study."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from rebrain_node.domain import marks
from rebrain_node.errors import MalformedInstanceError
from rebrain_node.instance.scan import scan
from rebrain_node.steps.gate.context import Context, WrittenObject
from rebrain_node.steps.gate.rules import ALL, Violation, rule, set_rule

LOSSLESS: Final = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2.5",  # RLE Lossless
)
OWN_UIDS: Final = ("SOPInstanceUID", "SeriesInstanceUID")
SOURCE_UIDS: Final = (*OWN_UIDS, "StudyInstanceUID", "FrameOfReferenceUID")
UUID_VERSION: Final = 5  #: computed from a name, so that the same work has the same UIDs
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
OWN_DATES: Final = ("SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate")
SOURCE_DATES: Final = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
NO_DATE: Final = "19000101"  #: placeholder where a date is required and the source states none
UNICODE: Final = "ISO_IR 192"


@set_rule(
    "GATE-READABLE", "Every object can be parsed as a DICOM file (PS3.10).", on="every object"
)
def _readable(context: Context) -> Iterator[Violation]:
    """The PACS would reject or lose it."""
    return (Violation(name, reason) for name, reason in context.unreadable)


@rule("GATE-STRUCTURE", "Every object passes the strict scan of received instances.", on=ALL)
def _structure(obj: WrittenObject, _: Context) -> str | None:
    """Readers silently take the last of two Patient IDs; a truncated end goes unnoticed."""
    try:
        scan(obj.record.content)
    except MalformedInstanceError as error:
        return str(error)
    return None


@rule(
    "GATE-FOUR-NAMES",
    "SOP Class, SOP Instance and Series Instance UID are the same in outbox record, file meta "
    "information and data set.",
    on=ALL,
)
def _four_names(obj: WrittenObject, _: Context) -> str | None:
    """Otherwise the outbox would confirm a different object from the one sent."""
    record, dataset, meta = obj.record, obj.dataset, obj.dataset.file_meta
    uids = {
        "SOP Class UID": (
            record.sop_class_uid, dataset.get("SOPClassUID"), meta.get("MediaStorageSOPClassUID"),
        ),
        "SOP Instance UID": (
            record.sop_instance_uid,
            dataset.get("SOPInstanceUID"),
            meta.get("MediaStorageSOPInstanceUID"),
        ),
        "Series Instance UID": (record.series_instance_uid, dataset.get("SeriesInstanceUID")),
    }  # fmt: skip
    different = [name for name, values in uids.items() if len(set(values)) != 1]
    if not different:
        return None
    return f"record, file meta and data set differ in {', '.join(different)}"


@rule("GATE-TRANSFER-SYNTAX", "The transfer syntax is uncompressed or lossless.", on=ALL)
def _transfer_syntax(obj: WrittenObject, _: Context) -> str | None:
    """Lossy compression changes the result; viewers may not support a rare transfer syntax."""
    found = obj.dataset.file_meta.get("TransferSyntaxUID")
    return None if found in LOSSLESS else f"its transfer syntax is {found}"


@rule("GATE-UID-FORM", "SOP and Series Instance UID are 2.25 followed by a version 5 UUID.", on=ALL)
def _uid_form(obj: WrittenObject, _: Context) -> str | None:
    """The same input gives the same UIDs, so that a repeated run creates no duplicate."""
    for keyword in OWN_UIDS:
        if not _is_own(str(obj.get(keyword))):
            return f"{keyword} {obj.get(keyword)} is not 2.25 and a version {UUID_VERSION} UUID"
    return None


def _is_own(uid: str) -> bool:
    match = re.fullmatch(re.escape(marks.UID_ROOT) + r"([1-9][0-9]{0,38})", uid)
    if match is None or int(match[1]) >= 1 << 128:
        return False
    return uuid.UUID(int=int(match[1])).version == UUID_VERSION


@set_rule("GATE-UID-UNIQUE", "No two objects have the same SOP Instance UID.")
def _uid_unique(context: Context) -> Iterator[Violation]:
    """The second object would replace the first, or be dropped."""
    counts = Counter(str(obj.get("SOPInstanceUID")) for obj in context.objects)
    for uid, count in counts.items():
        if count > 1:
            yield Violation("set", f"{count} objects have the UID {uid}")


@rule("GATE-UID-FOREIGN", "No object has a UID of its source.", on=ALL)
def _uid_foreign(obj: WrittenObject, context: Context) -> str | None:
    """A synthetic object would replace an acquired one."""
    source = context.once(_source_uids)
    used = [keyword for keyword in OWN_UIDS if obj.get(keyword) in source]
    return f"{', '.join(used)} is a UID of the source" if used else None


def _source_uids(context: Context) -> set[str]:
    return {str(dataset.get(keyword)) for dataset in context.source for keyword in SOURCE_UIDS}


@set_rule("GATE-SERIES", "Each kind of object is one series, and no series contains two kinds.")
def _series(context: Context) -> Iterator[Violation]:
    """Viewers stack whatever is in one series."""
    kinds: dict[str, set[str]] = {}
    series: dict[str, set[str]] = {}
    for obj in context.objects:
        uid = str(obj.get("SeriesInstanceUID"))
        kinds.setdefault(uid, set()).add(obj.kind)
        series.setdefault(obj.kind, set()).add(uid)
    for uid, found in kinds.items():
        if len(found) > 1:
            yield Violation("set", f"series {uid} contains {', '.join(sorted(found))}")
    for kind, uids in series.items():
        if len(uids) > 1:
            yield Violation("set", f"{kind} is spread over {len(uids)} series")


@rule("GATE-PATIENT", "Every patient attribute equals the source's.", on=ALL)
def _patient(obj: WrittenObject, context: Context) -> str | None:
    """A result under the wrong patient is the worst possible failure."""
    return _expect_source_values(obj, context, PATIENT)


@rule("GATE-STUDY", "Every study attribute equals the source's.", on=ALL)
def _study(obj: WrittenObject, context: Context) -> str | None:
    """The series must be listed in the study of its CT."""
    return _expect_source_values(obj, context, STUDY)


@rule("GATE-STUDY-TIME", "Study Date and Study Time equal the source's.", on=ALL)
def _study_time(obj: WrittenObject, context: Context) -> str | None:
    """Archives and viewers sort by them."""
    return _expect_source_values(obj, context, STUDY_TIME)


def _expect_source_values(
    obj: WrittenObject, context: Context, keywords: tuple[str, ...]
) -> str | None:
    source = context.source[0]
    different = [k for k in keywords if _text(obj.dataset, k) != _text(source, k)]
    return f"{', '.join(different)} is not the source's" if different else None


@rule(
    "GATE-DATES",
    "Series, acquisition, content and creation date are absent, a date of the source, or 19000101.",
    on=ALL,
)
def _dates(obj: WrittenObject, context: Context) -> str | None:
    """A date of today would claim that something was acquired today."""
    source = context.once(_source_dates)
    unknown = [k for k in OWN_DATES if _text(obj.dataset, k) not in ("", NO_DATE, *source)]
    return f"{', '.join(unknown)} is not a date of the source" if unknown else None


def _source_dates(context: Context) -> set[str]:
    return {_text(dataset, keyword) for dataset in context.source for keyword in SOURCE_DATES}


@rule("GATE-CHARACTER-SET", "Specific Character Set is the source's or ISO_IR 192.", on=ALL)
def _character_set(obj: WrittenObject, context: Context) -> str | None:
    """The same bytes in another character set are another name."""
    expected = _text(context.source[0], "SpecificCharacterSet")
    found = _text(obj.dataset, "SpecificCharacterSet")
    if found in (expected, UNICODE):
        return None
    return f"SpecificCharacterSet is {found or 'absent'}, not the source's {expected or 'absent'}"


def _text(dataset: Dataset, keyword: str) -> str:
    """Text of a value, empty where absent, without padding (PS3.5 6.2)."""
    value = dataset.get(keyword)
    if value is None:
        return ""
    parts = value if isinstance(value, MultiValue) else (value,)
    return "\\".join(str(part).rstrip(" \0") for part in parts)
