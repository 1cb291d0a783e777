"""What the two multi-frame companions share: they lie on the MR series, frame by slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr

from rebrain_node.domain import marks
from rebrain_node.domain.job import ObjectKind
from rebrain_node.steps.write.mr import SyntheticMRImage
from rebrain_node.steps.write.references import listed, source_series
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


def reference_images(images: Sequence[SyntheticMRImage]) -> list[Dataset]:
    """Reduce the MR slices to what a companion takes its geometry and references from."""
    return [listed(image, *_GEOMETRY) for image in images]


def finish(dataset: Dataset, result: Result, kind: ObjectKind) -> None:
    """Stamp a companion and replace what highdicom drew at random."""
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
    dataset.ReferencedSeriesSequence.append(source_series(result))
    stamp(dataset, result)
    stamp_image(dataset, result)
