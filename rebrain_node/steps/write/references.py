"""How objects point at each other and at the source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset

from rebrain_node.steps.write.result import Result

#: what highdicom reads of a referenced object; the true identity is stamped on as bytes
_IDENTITY: Final = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
_LISTED: Final = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Rows",
    "Columns",
)


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
        reference(class_uid, instance_uid)
        for instance_uid, class_uid in result.source.class_uids.items()
    ]
    return item


def source_evidence(result: Result) -> Dataset:
    """Refer to the whole source series below its study (PS3.3 C.8.13.2.1, C.17.2.3)."""
    series, study = Dataset(), Dataset()
    series.SeriesInstanceUID = result.source.series_instance_uid
    series.ReferencedSOPSequence = [
        reference(class_uid, instance_uid)
        for instance_uid, class_uid in result.source.class_uids.items()
    ]
    study.StudyInstanceUID = result.source.study_instance_uid
    study.ReferencedSeriesSequence = [series]
    return study


def whole_series(instances: Sequence[Dataset]) -> Dataset:
    """Refer to a series of ours: item of ReferencedSeriesSequence (PS3.3 C.12.2)."""
    item = Dataset()
    item.SeriesInstanceUID = instances[0].SeriesInstanceUID
    item.ReferencedInstanceSequence = [
        reference(instance.SOPClassUID, instance.SOPInstanceUID) for instance in instances
    ]
    return item


def listed(dataset: Dataset, *also: str) -> Dataset:
    """Reduce an object to its names, and the attributes named, without the patient."""
    item = Dataset()
    for keyword in (*_LISTED, *also):
        if keyword in dataset:
            item[keyword] = dataset[keyword]
    for keyword in _IDENTITY:
        setattr(item, keyword, None)
    return item
