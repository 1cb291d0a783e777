"""What derived objects take over from the source series."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    JPEG2000MC,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)

from rebrain_node.domain.marks import ACQUISITION_EQUIPMENT
from rebrain_node.domain.volume import PreparedVolume
from rebrain_node.instance.charset import is_readable
from rebrain_node.steps.write.codes import concept
from rebrain_node.steps.write.encoding import copy_text, keep_raw_item

#: type 2 of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): empty where absent
REQUIRED_IDENTITY: Final = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
#: copied where present: Patient, General Study, Patient Study and Clinical Trial modules
OPTIONAL_IDENTITY: Final = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "IssuerOfPatientID", "TypeOfPatientID",
    "PatientBirthTime", "OtherPatientIDs", "OtherPatientNames", "EthnicGroup",
    "PatientIdentityRemoved", "DeidentificationMethod", "LongitudinalTemporalInformationModified",
    "StudyDescription", "PhysiciansOfRecord", "PatientAge", "PatientSize", "PatientWeight",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)  # fmt: skip
#: sequences of the same modules
IDENTITY_SEQUENCES: Final = (
    "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence",
    "DeidentificationMethodCodeSequence", "IssuerOfAccessionNumberSequence",
    "ProcedureCodeSequence",
)  # fmt: skip
#: without station and institution, which converters take for those of the object itself
_EQUIPMENT: Final = (
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions",
)  # fmt: skip
_LARGEST_SERIES_NUMBER: Final = 999_999
_LOSSY: Final = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
#: a codec that can do both: lossy unless the source says that it was not
_MAY_BE_LOSSY: Final = (JPEG2000, JPEG2000MC, HTJ2K)
#: where the date of the content comes from; the first valid pair wins
_DATES: Final = (
    ("AcquisitionDate", "AcquisitionTime"),
    ("ContentDate", "ContentTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)
#: where the source has no date at all; type 1 attributes need a value, the clock must not give it
NO_DATE: Final = ("19000101", "000000")
_DATE: Final = re.compile(r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
_TIME: Final = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")


@dataclass(frozen=True, kw_only=True)
class Source:
    """The source series as the derived objects refer to it; data sets are not to be changed."""

    study_instance_uid: str
    series_instance_uid: str
    series_number: int  #: 0 where absent, negative or beyond 6 digits
    class_uids: Mapping[str, str]  #: SOP Class UID by SOP Instance UID, in order of position
    identity: Dataset  #: patient and study, bytes copied
    frame: Dataset  #: frame of reference and patient position
    acquisition: Dataset  #: date and time of the acquisition, where present
    equipment: Dataset  #: item of ContributingEquipmentSequence: the CT
    lossy: Dataset  #: LossyImageCompression and its ratio and method
    content_date: str  #: DA, of the source: objects are a pure function of it
    content_time: str  #: TM


def read_source(instances: Sequence[Dataset], prepared: PreparedVolume) -> Source:
    """Gather what is copied from the instances of the source series.

    Raises
    ------
    SeriesRejectedError
        Text of the source does not fit its declared character set.
    """
    by_uid = {str(instance.SOPInstanceUID): instance for instance in instances}
    order = [*dict.fromkeys(prepared.sop_instance_uids)]
    order += sorted(uid for uid in by_uid if uid not in set(order))
    first = by_uid[order[0]]
    date, time = _content_date(first)
    return Source(
        study_instance_uid=str(first.StudyInstanceUID),
        series_instance_uid=str(first.SeriesInstanceUID),
        series_number=_series_number(first),
        class_uids={uid: str(by_uid[uid].SOPClassUID) for uid in order},
        identity=_identity(first),
        frame=_frame(first, prepared.frame_of_reference_uid),
        acquisition=_copied(first, ("AcquisitionDate", "AcquisitionTime")),
        equipment=_equipment(first),
        lossy=_lossy([by_uid[uid] for uid in order]),
        content_date=date,
        content_time=time,
    )


def _series_number(source: Dataset) -> int:
    number = int(source.get("SeriesNumber", None) or 0)
    return number if 0 <= number <= _LARGEST_SERIES_NUMBER else 0


def _copied(source: Dataset, keywords: Sequence[str]) -> Dataset:
    target = Dataset()
    for keyword in keywords:
        element = copy_text(source, keyword)
        if element is not None and element.value:
            target[element.tag] = element
    return target


def _identity(source: Dataset) -> Dataset:
    target = _copied(source, (*REQUIRED_IDENTITY, *OPTIONAL_IDENTITY))
    for keyword in REQUIRED_IDENTITY:
        if keyword not in target:
            setattr(target, keyword, None)
    for keyword in IDENTITY_SEQUENCES:
        if source.get(keyword, None):
            setattr(target, keyword, copy.deepcopy(source[keyword].value))
    return target


def _frame(source: Dataset, frame_of_reference_uid: str) -> Dataset:
    target = _copied(source, ("PatientPosition", "PositionReferenceIndicator"))
    for keyword in ("PatientPosition", "PositionReferenceIndicator"):
        if keyword not in target:
            setattr(target, keyword, None)
    target.FrameOfReferenceUID = frame_of_reference_uid
    return target


def _equipment(source: Dataset) -> Dataset:
    item = _copied(source, [each for each in _EQUIPMENT if is_readable(source, each)])
    if "Manufacturer" not in item:  # type 1 here, type 2 in the source
        item.Manufacturer = "UNKNOWN"
    item.PurposeOfReferenceCodeSequence = [concept(ACQUISITION_EQUIPMENT)]
    item.ContributionDescription = "Acquired the CT from which this object is derived"
    return keep_raw_item(item)


def _lossy(instances: Sequence[Dataset]) -> Dataset:
    """Once lossy, always lossy (PS3.3 C.7.6.1.1.5), by flag or by transfer syntax."""
    for instance in instances:
        if _is_lossy(instance):
            target = _copied(
                instance, ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
            )
            target.LossyImageCompression = "01"
            return target
    target = Dataset()
    target.LossyImageCompression = "00"
    return target


def _is_lossy(instance: Dataset) -> bool:
    meta = getattr(instance, "file_meta", None)
    syntax = None if meta is None else meta.get("TransferSyntaxUID", None)
    flag = instance.get("LossyImageCompression", None)
    return flag == "01" or syntax in _LOSSY or (syntax in _MAY_BE_LOSSY and flag != "00")


def _content_date(source: Dataset) -> tuple[str, str]:
    for date_keyword, time_keyword in _DATES:
        date = _ascii(source, date_keyword)
        if _DATE.fullmatch(date):
            time = _ascii(source, time_keyword)
            return date, time if _TIME.fullmatch(time) else NO_DATE[1]
    return NO_DATE


def _ascii(source: Dataset, keyword: str) -> str:
    element = copy_text(source, keyword)
    value = element.value if element is not None else None
    return value.decode("ascii", "replace").strip() if value else ""
