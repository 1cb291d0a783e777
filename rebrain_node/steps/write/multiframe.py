"""What the two multi-frame companions share: they lie on the MR series, frame by slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.uid import MRImageStorage

from rebrain_node.domain import marks
from rebrain_node.domain.job import ObjectKind
from rebrain_node.steps.write.geometry import decimals
from rebrain_node.steps.write.mr import plane
from rebrain_node.steps.write.references import listed, reference, source_series, whole_series
from rebrain_node.steps.write.result import Result
from rebrain_node.steps.write.stamp import stamp, stamp_image

#: what a companion takes its geometry from, beside the names of a slice
_GEOMETRY: Final = (
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "LossyImageCompression",
)


def reference_images(result: Result) -> list[Dataset]:
    """Describe the slices as a companion takes its geometry and references from them.

    Of an Enhanced MR too, one data set a slice, under a name of its own; ``finish`` puts the names
    of the frames in their place.
    """
    shared = Dataset()
    shared.update(plane(result))
    shared.update(result.source.frame)
    shared.update(result.source.lossy)
    shared.SOPClassUID = MRImageStorage
    shared.StudyInstanceUID = result.source.study_instance_uid
    shared.SeriesInstanceUID = result.uids.series("MR")
    shared.Rows, shared.Columns = result.synthetic.grid.rows, result.synthetic.grid.columns
    images = []
    for record in result.slices:
        image = Dataset()
        image.update(shared)
        image.SOPInstanceUID = _name(result, record.index)
        image.ImagePositionPatient = decimals(record.position_mm)
        images.append(listed(image, *_GEOMETRY))
    return images


def _name(result: Result, index: int) -> str:
    """UID under which a companion is built on a slice."""
    if result.is_enhanced:
        return result.uids.other("MR", f"slice {index}")
    return result.uids.instance("MR", index)


def _name_frames(dataset: Dataset, result: Result, objects: Sequence[Dataset]) -> None:
    """Let a companion refer to the frames of the Enhanced MR (PS3.3 C.7.6.16.2.6)."""
    names = {_name(result, r.index): result.slice_name(r.index) for r in result.slices}
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in frame.DerivationImageSequence:
            for source in derivation.SourceImageSequence:
                name = names.get(source.ReferencedSOPInstanceUID)
                if name is not None:  # segments share an item, which is named once
                    source.update(reference(*name))
    dataset.ReferencedSeriesSequence = [whole_series(objects)]


def finish(dataset: Dataset, result: Result, objects: Sequence[Dataset], kind: ObjectKind) -> None:
    """Stamp a companion of the MR ``objects`` and replace what highdicom drew at random."""
    uid = result.uids.other(kind, "dimension organisation")
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for index in dataset.DimensionIndexSequence:
        index.DimensionOrganizationUID = uid
    correct_ambiguous_vr(dataset, is_little_endian=True)
    dataset.update(result.source.frame)
    del dataset.PatientPosition  # not in these IODs: the planes say it
    dataset.BodyPartExamined = "HEAD"
    dataset.ImageComments = (
        f"{marks.COMMENT_PREFIX}: belongs to a T1-like MR series drawn from CT, research only, "
        f"{marks.NOT_FOR_DIAGNOSIS}. Uncertainty is {result.label}."
    )
    if result.is_enhanced:
        _name_frames(dataset, result, objects)
    dataset.ReferencedSeriesSequence.append(source_series(result))
    stamp(dataset, result)
    stamp_image(dataset, result)
