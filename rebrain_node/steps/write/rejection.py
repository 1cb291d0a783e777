"""The rejection note: what was sent must not be used any more (IHE IOCM, PS3.3 A.35.4).

A Key Object Selection whose title says why. It is a new object of the study, refers to the rejected
objects, and goes through the same outbox.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from io import BytesIO
from typing import Final, Literal

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID

from rebrain_node.domain import marks
from rebrain_node.domain.delivery import RecalledObject
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.steps.write.encoding import encode, plain
from rebrain_node.steps.write.identity import derived_uid
from rebrain_node.steps.write.references import listed

RejectionReason = Literal["quality", "safety"]

#: titles of a rejection note (PS3.16 CID 7011)
TITLES: Final[Mapping[RejectionReason, Code]] = {
    "quality": Code("113001", "DCM", "Rejected for Quality Reasons"),
    "safety": Code("113037", "DCM", "Rejected for Patient Safety Reasons"),
}
#: of the series of a note; far from those of scanners and of the results
_SERIES_NUMBER: Final = marks.SERIES_NUMBER_OFFSET + 900
#: copied from a rejected object: patient, study, equipment and marks
_COPIED: Final = (
    "SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
    "StudyDescription", "StudyInstanceUID", "StudyID", "PatientName", "PatientID",
    "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "SyntheticData", "Manufacturer",
    "ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber",
    "ContributingEquipmentSequence",
)  # fmt: skip


def write_rejection(
    rejected: Sequence[RecalledObject],
    kept: DerivedInstance,
    reason: RejectionReason,
    comment: str,
    issued: datetime,
) -> DerivedInstance:
    """Write the note that rejects some objects of one study.

    Parameters
    ----------
    rejected : sequence of RecalledObject
        What is rejected.
    kept : DerivedInstance
        Any object of the same set, of which patient and study are copied.
    reason : {"quality", "safety"}
        113001 or 113037 of DCM.
    comment : str
        Why, in words; stands in the note, so it must not name the patient.
    issued : datetime
        Aware; date and time of the note.

    Returns
    -------
    DerivedInstance
        The same objects, reason and comment give the same UID.
    """
    ours = dcmread(BytesIO(kept.content), stop_before_pixels=True)
    uid = derived_uid("rejection", reason, comment, *(one.sop_instance_uid for one in rejected))
    references = [_reference(one, ours) for one in rejected]
    note = KeyObjectSelectionDocument(
        evidence=references,
        content=KeyObjectSelection(
            document_title=TITLES[reason],
            referenced_objects=references,
            description=plain(comment, 1024),
        ),
        series_instance_uid=derived_uid("rejection", uid, "series"),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer=marks.MANUFACTURER,
        series_description=f"{marks.SERIES_DESCRIPTION_WORD} rejection note",
    )
    _copy(note, ours)
    for keyword in ("ContentDate", "SeriesDate", "InstanceCreationDate"):
        setattr(note, keyword, issued.strftime("%Y%m%d"))
    for keyword in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        setattr(note, keyword, issued.strftime("%H%M%S"))
    note.file_meta.ImplementationClassUID = UID(marks.IMPLEMENTATION_CLASS_UID)
    note.file_meta.ImplementationVersionName = marks.IMPLEMENTATION_VERSION_NAME
    return encode(note, "KOS")


def _reference(rejected: RecalledObject, ours: Dataset) -> Dataset:
    """Describe a rejected object as highdicom reads it: an image where it has rows and columns."""
    item = deepcopy(listed(ours))  # elements of `ours` are shared, not copied
    item.SOPClassUID = rejected.sop_class_uid
    item.SOPInstanceUID = rejected.sop_instance_uid
    item.SeriesInstanceUID = rejected.series_instance_uid
    for keyword in ("Rows", "Columns"):
        item.pop(keyword, None)
        if rejected.kind not in {"SR", "KOS"}:
            setattr(item, keyword, 1)
    return item


def _copy(note: Dataset, sent: Dataset) -> None:
    for keyword in _COPIED:
        if keyword in sent:
            note[keyword] = sent[keyword]
