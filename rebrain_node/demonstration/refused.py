"""Studies that a node must refuse, made from one that it accepts.

Each is a separate study with new UIDs; its fault is the only other change.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid


@dataclass(frozen=True, kw_only=True)
class RefusedStudy:
    """A study with one fault and the code of the finding it must get."""

    name: str
    instances: tuple[Dataset, ...]
    code: str  #: the finding that must be among the reasons (docs/refusals.md)

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return str(self.instances[0].StudyInstanceUID)


def refused_studies(good: Sequence[Dataset]) -> tuple[RefusedStudy, ...]:
    """Make them from the instances of one thick-slice axial series, in the order of its slices."""
    return (
        RefusedStudy(name="localizer only", instances=_localizer(good), code="LOCALIZER"),
        RefusedStudy(name="a slice missing", instances=_missing(good), code="GEOM-GAP"),
        RefusedStudy(name="two patients mixed", instances=_mixed(good), code="ID-MIXED"),
    )


def _localizer(good: Sequence[Dataset]) -> tuple[Dataset, ...]:
    middle = _as_new_study(good[len(good) // 2 : len(good) // 2 + 1])
    for instance in middle:
        instance.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        instance.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]  # coronal, as a scout lies
        instance.SeriesDescription = "SCOUT"
    return middle


def _missing(good: Sequence[Dataset]) -> tuple[Dataset, ...]:
    middle = len(good) // 2
    return _as_new_study([*good[:middle], *good[middle + 1 :]])


def _mixed(good: Sequence[Dataset]) -> tuple[Dataset, ...]:
    instances = _as_new_study(good)
    for instance in instances[len(instances) // 2 :]:
        instance.PatientID = "SOMEBODY-ELSE"
        instance.PatientName = "SOMEBODY^ELSE"
    return instances


def _as_new_study(instances: Sequence[Dataset]) -> tuple[Dataset, ...]:
    """Copy instances under new Study, Series, SOP Instance and Frame of Reference UIDs."""
    new: dict[str, str] = {}
    copies = tuple(deepcopy(instance) for instance in instances)
    for copy in copies:
        for keyword in (
            "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID",
        ):  # fmt: skip
            if keyword in copy:
                old = str(copy[keyword].value)
                setattr(copy, keyword, new.setdefault(old, generate_uid()))
        copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
    return copies
