"""The last touch on every object: what it shares with the others, over what highdicom put in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import UID

from rebrain_node.domain import marks
from rebrain_node.domain.marks import PrivateElement
from rebrain_node.steps.write.elements import add_private
from rebrain_node.steps.write.result import Result, SliceRecord
from rebrain_node.steps.write.text import LONG_STRING, plain

#: set by highdicom from the wall clock; an object must not depend on it
_CLOCKED: Final = ("InstanceCreationDate", "InstanceCreationTime")

_YES_NO: Final = {True: "YES", False: "NO"}


def stamp(dataset: Dataset, result: Result) -> None:
    """Overwrite identity, marks, dates, equipment and file meta of a finished object in place."""
    for keyword in _CLOCKED:
        dataset.pop(keyword, None)
    dataset.update(result.common)
    dataset.file_meta.ImplementationClassUID = UID(marks.IMPLEMENTATION_CLASS_UID)
    dataset.file_meta.ImplementationVersionName = marks.IMPLEMENTATION_VERSION_NAME


def stamp_image(dataset: Dataset, result: Result) -> None:
    """Add the marks of an image to those of every object."""
    dataset.ContentQualification = marks.CONTENT_QUALIFICATION
    dataset.BurnedInAnnotation = "NO"
    dataset.RecognizableVisualFeatures = "YES"
    dataset.update(result.source.lossy)


def stamp_slice(dataset: Dataset, result: Result, record: SliceRecord) -> None:
    """Add the provenance of one slice to the private block."""
    add_private(dataset, _slice_values(result, record))


def add_slice_provenance(groups: Dataset, result: Result, record: SliceRecord) -> None:
    """Add the same to the functional groups of a frame, as a group of our own."""
    item = Dataset()
    add_private(item, _slice_values(result, record))
    add_private(groups, [(marks.SLICE_PROVENANCE, [item])])


def _slice_values(result: Result, record: SliceRecord) -> Iterable[tuple[PrivateElement, object]]:
    guide = record.guide
    frames = [n.frame_number for n in record.neighbours]
    return (
        (marks.POSITION_KIND, marks.POSITION_KINDS[guide.kind]),
        (marks.ALPHA, guide.target.alpha),
        (marks.NEIGHBOURS, [n.sop_instance_uid for n in record.neighbours]),
        (marks.EXEMPLAR, None if guide.exemplar is None else plain(guide.exemplar, LONG_STRING)),
        (marks.SIMILARITY, guide.similarity),
        (marks.POSITION_DIFFERENCE, guide.position_difference_mm),
        (marks.TAU, guide.tau),
        (marks.UNCERTAINTY, record.uncertainty),
        (marks.CALIBRATED, _YES_NO[result.synthetic.meaning.calibrated]),
        (marks.TRUSTED, None if record.trusted is None else _YES_NO[record.trusted]),
        (marks.NEIGHBOUR_FRAMES, None if None in frames else frames),
    )
