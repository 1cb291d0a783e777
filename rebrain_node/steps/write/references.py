"""How objects point at each other and at the source, and the list of the whole set (KOS)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag

from rebrain_node.domain import marks
from rebrain_node.steps.write.result import Result, stamp

#: what highdicom reads of a referenced object; the true identity is stamped on as bytes
_IDENTITY: Final = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime",
)  # fmt: skip
#: the same elements for all: empty, and never changed
_NOBODY: Final = {
    Tag(keyword): DataElement(Tag(keyword), dictionary_VR(keyword), None) for keyword in _IDENTITY
}
_LISTED: Final = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns",
)  # fmt: skip


def reference(class_uid: str, instance_uid: str, frame: int | None = None) -> Dataset:
    """Refer to one instance or one frame of it (Image SOP Instance Reference, PS3.3 10.3)."""
    item = Dataset()
    item.ReferencedSOPClassUID = class_uid
    item.ReferencedSOPInstanceUID = instance_uid
    if frame is not None:
        item.ReferencedFrameNumber = frame
    return item


def source_series(result: Result) -> Dataset:
    """Refer to the whole source series: item of ReferencedSeriesSequence (PS3.3 C.12.2)."""
    item = Dataset()
    item.SeriesInstanceUID = result.source.series_instance_uid
    item.ReferencedInstanceSequence = [
        reference(class_uid, uid) for uid, class_uid in result.source.class_uids.items()
    ]
    return item


def whole_series(instances: Sequence[Dataset]) -> Dataset:
    """Refer to a series of ours: item of ReferencedSeriesSequence (PS3.3 C.12.2)."""
    item = Dataset()
    item.SeriesInstanceUID = instances[0].SeriesInstanceUID
    item.ReferencedInstanceSequence = [
        reference(instance.SOPClassUID, instance.SOPInstanceUID) for instance in instances
    ]
    return item


def evidence(study_uid: str, series_uid: str | None, references: Iterable[Dataset]) -> Dataset:
    """Refer to instances of one series below its study (PS3.3 C.8.13.2.1, C.17.2.3)."""
    series, study = Dataset(), Dataset()
    series.SeriesInstanceUID = series_uid
    series.ReferencedSOPSequence = list(references)
    study.StudyInstanceUID = study_uid
    study.ReferencedSeriesSequence = [series]
    return study


def listed(dataset: Dataset, *also: str) -> Dataset:
    """Reduce an object to its names, and the attributes named, without the patient."""
    item = Dataset(dict(_NOBODY))
    for keyword in (*_LISTED, *also):
        if keyword in dataset:
            item[keyword] = dataset[keyword]
    return item


def write_key_objects(result: Result, objects: Sequence[Dataset]) -> Dataset:
    """Build the list of all objects written before it (PS3.3 A.35.4, PS3.16 TID 2010).

    It is sent last: who has it has everything.
    """
    references = [listed(dataset) for dataset in objects]
    content = KeyObjectSelection(
        document_title=codes.DCM.ForResearch,
        referenced_objects=references,
        description=(
            f"{marks.COMMENT_PREFIX}: complete set of {len(references)} objects derived from one "
            f"CT series, research only, {marks.NOT_FOR_DIAGNOSIS}"
        ),
    )
    dataset = KeyObjectSelectionDocument(
        evidence=references,
        content=content,
        series_description=f"{marks.SERIES_DESCRIPTION_WORD} complete set of MR T1",
        **result.names("KOS"),
    )
    stamp(dataset, result)
    return dataset
