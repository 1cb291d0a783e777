"""The primary result as one multi-frame Enhanced MR Image Storage (PS3.3 A.36.2).

Everything is said of each frame that the classic series says of each slice; what an acquired
image must tell of its pulse sequence is left out, as it may of a derived one.
"""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage

from rebrain_node.domain import marks
from rebrain_node.steps.write.codes import HEAD, concept
from rebrain_node.steps.write.encoding import decimals, encoded_once
from rebrain_node.steps.write.mr import (
    add_pixels,
    begin,
    comment,
    derivation,
    derivation_codes,
    plane,
    source_images,
    window,
)
from rebrain_node.steps.write.references import evidence, reference, source_series
from rebrain_node.steps.write.result import (
    Result,
    SliceRecord,
    add_private,
    add_slice_provenance,
    stamp,
    stamp_image,
)

_STACK: Final = "1"


def write_enhanced_mr(result: Result) -> list[Dataset]:
    """Build the one instance that holds all slices, in order of position."""
    source = result.source
    image = begin(result, EnhancedMRImageStorage)
    image.update(source.frame)
    add_pixels(image, result, slice(None))
    _add_description(image)
    _add_dimensions(image, result)
    image.NumberOfFrames = len(result.slices)
    image.SharedFunctionalGroupsSequence = [_shared_groups(result)]
    image.PerFrameFunctionalGroupsSequence = [
        encoded_once(_frame_groups(result, record)) for record in result.slices
    ]
    image.ReferencedSeriesSequence = [source_series(result)]
    references = [reference(class_uid, uid) for uid, class_uid in source.class_uids.items()]
    image.SourceImageEvidenceSequence = [
        evidence(source.study_instance_uid, source.series_instance_uid, references)
    ]
    image.ImageComments = (
        f"{marks.COMMENT_PREFIX} T1-like images drawn from CT, research only, "
        f"{marks.NOT_FOR_DIAGNOSIS}. Each frame says how it came about."
    )
    stamp(image, result)
    stamp_image(image, result)
    return [image]


def _add_description(dataset: Dataset) -> None:
    """Enhanced MR Image module, PS3.3 C.8.13.1, of an image that is DERIVED."""
    dataset.ImageType = list(marks.ENHANCED_IMAGE_TYPE)
    dataset.update(_appearance())
    dataset.ApplicableSafetyStandardAgency = "NOT_APPLICABLE"  # no field was switched on
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.AcquisitionContextSequence = []


def _appearance() -> Dataset:
    """Common and MR image description macros, PS3.3 C.8.16.2 and C.8.13.3.1."""
    dataset = Dataset()
    dataset.PixelPresentation = "MONOCHROME"
    dataset.VolumetricProperties = "VOLUME"
    dataset.VolumeBasedCalculationTechnique = "NONE"
    dataset.ComplexImageComponent = "MAGNITUDE"
    dataset.AcquisitionContrast = "UNKNOWN"  # T1-like is a likeness, no contrast of a magnet
    return dataset


def _add_dimensions(dataset: Dataset, result: Result) -> None:
    """Multi-frame Dimension module, PS3.3 C.7.6.17: frames by their place in the stack."""
    uid = result.uids.other("MR", "dimension organisation")
    organisation, index = Dataset(), Dataset()
    organisation.DimensionOrganizationUID = uid
    index.DimensionOrganizationUID = uid
    index.DimensionIndexPointer = Tag("InStackPositionNumber")
    index.FunctionalGroupPointer = Tag("FrameContentSequence")
    index.DimensionDescriptionLabel = "In-Stack Position Number"
    dataset.DimensionOrganizationSequence = [organisation]
    dataset.DimensionOrganizationType = "3D"
    dataset.DimensionIndexSequence = [index]


def _shared_groups(result: Result) -> Dataset:
    """Functional groups that all frames share (PS3.3 A.36.2.4)."""
    whole = plane(result)
    measures, orientation, anatomy, values, frame_type = (Dataset() for _ in range(5))
    for keyword in ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"):
        measures[keyword] = whole[keyword]
    orientation.ImageOrientationPatient = whole.ImageOrientationPatient
    anatomy.AnatomicRegionSequence = [concept(HEAD)]
    anatomy.FrameLaterality = "U"
    values.RescaleIntercept, values.RescaleSlope, values.RescaleType = "0", "1", "US"
    frame_type.FrameType = list(marks.ENHANCED_IMAGE_TYPE)
    frame_type.update(_appearance())
    groups = Dataset()
    groups.PixelMeasuresSequence = [measures]
    groups.PlaneOrientationSequence = [orientation]
    groups.FrameAnatomySequence = [anatomy]
    groups.PixelValueTransformationSequence = [values]
    groups.FrameVOILUTSequence = [window(result)]
    groups.MRImageFrameTypeSequence = [frame_type]
    return groups


def _frame_groups(result: Result, record: SliceRecord) -> Dataset:
    """Functional groups of one frame: place, words, derivation and our own (PS3.3 C.7.6.16)."""
    content, position, origin, provenance = (Dataset() for _ in range(4))
    content.StackID = _STACK
    content.InStackPositionNumber = record.index + 1
    content.DimensionIndexValues = [record.index + 1]
    content.FrameComments = comment(result, record)
    position.ImagePositionPatient = decimals(record.position_mm)
    origin.DerivationDescription = derivation(result, record)
    origin.DerivationCodeSequence = derivation_codes()
    origin.SourceImageSequence = source_images(result, record)
    groups = Dataset()
    groups.FrameContentSequence = [content]
    groups.PlanePositionSequence = [position]
    groups.DerivationImageSequence = [origin]
    add_slice_provenance(provenance, result, record)
    add_private(groups, [(marks.SLICE_PROVENANCE, [provenance])])
    return groups
