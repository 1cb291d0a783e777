"""The primary result: a series of classic MR Image Storage (PS3.3 A.4)."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from rebrain_node.domain import marks
from rebrain_node.steps.write.codes import SOURCE_IMAGE, SPATIAL_RESAMPLING, concept
from rebrain_node.steps.write.geometry import decimal, decimals, orientation
from rebrain_node.steps.write.result import Result, SliceRecord
from rebrain_node.steps.write.stamp import stamp, stamp_image, stamp_slice

BITS_STORED: Final = 12
LARGEST: Final = 2**BITS_STORED - 1  #: stored value of intensity 1

_DESCRIPTION: Final = f"{marks.SERIES_DESCRIPTION_PREFIX} from CT, {marks.NOT_FOR_DIAGNOSIS}"
_SENTENCES: Final = {
    "measured": "at the place of a measured CT slice",
    "retrieved": "between measured CT slices, guided by a slice of another person",
    "interpolated": "between measured CT slices, interpolated",
}


class SyntheticMRImage(SOPClass):
    """One slice of the synthetic series; nothing in it pretends to a scanner."""

    def __init__(self, result: Result, record: SliceRecord) -> None:
        source = result.source
        super().__init__(
            study_instance_uid=source.study_instance_uid,
            series_instance_uid=result.uids.series("MR"),
            series_number=result.series_number("MR"),
            sop_instance_uid=result.uids.instance("MR", record.index),
            sop_class_uid=MRImageStorage,
            instance_number=record.index + 1,
            modality="MR",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description=_DESCRIPTION,
            content_date=source.content_date,
            content_time=source.content_time,
        )
        self.update(source.frame)
        self.update(source.acquisition)
        self._add_mr_attributes()
        self._add_plane(result, record)
        self._add_pixels(stored_values(result.synthetic.intensity[record.index]))
        self._add_derivation(result, record)
        self.ImageComments = _comment(result, record)

    def _add_mr_attributes(self) -> None:
        """MR Image module, PS3.3 C.8.3.1: type 1 and 2, the latter empty."""
        self.ImageType = list(marks.IMAGE_TYPE)
        self.ScanningSequence = "RM"  # research mode
        self.SequenceVariant = "NONE"
        self.ScanOptions = None
        self.MRAcquisitionType = None
        self.RepetitionTime = None
        self.EchoTime = None
        self.EchoTrainLength = None
        self.BodyPartExamined = "HEAD"

    def _add_plane(self, result: Result, record: SliceRecord) -> None:
        """Image Plane module, PS3.3 C.7.6.2."""
        grid, spacing = result.synthetic.grid, result.synthetic.prepared.spacing_mm
        self.ImagePositionPatient = decimals(record.position_mm)
        self.ImageOrientationPatient = orientation(grid)
        self.PixelSpacing = decimals((grid.pixel_mm, grid.pixel_mm))
        self.SliceThickness = decimal(spacing)
        self.SpacingBetweenSlices = decimal(spacing)

    def _add_pixels(self, stored: npt.NDArray[np.uint16]) -> None:
        """Image Pixel and VOI LUT modules, PS3.3 C.7.6.3 and C.11.2."""
        self.SamplesPerPixel = 1
        self.PhotometricInterpretation = "MONOCHROME2"
        self.Rows, self.Columns = stored.shape
        self.BitsAllocated = 16
        self.BitsStored = BITS_STORED
        self.HighBit = BITS_STORED - 1
        self.PixelRepresentation = 0
        self.WindowCenter = decimal((LARGEST + 1) / 2)
        self.WindowWidth = decimal(LARGEST + 1)
        self.PixelData = stored.astype("<u2").tobytes()

    def _add_derivation(self, result: Result, record: SliceRecord) -> None:
        """General Image and Common Instance Reference modules, PS3.3 C.7.6.1 and C.12.2."""
        provenance = result.provenance
        self.DerivationDescription = (
            f"{marks.DERIVATION_PREFIX}: T1-like MR drawn from CT by a Brownian bridge network "
            f"(bundle {provenance.bundle_digest[:16]}), {marks.NOT_FOR_DIAGNOSIS}"
        )
        self.DerivationCodeSequence = [
            concept(SPATIAL_RESAMPLING),
            concept(marks.DERIVATION_CODE),
        ]
        self.SourceImageSequence = _source_images(result, record)
        self.ReferencedSeriesSequence = [source_series(result)]


def write_mr(result: Result) -> list[SyntheticMRImage]:
    """Build the MR series, one instance a slice, in order of position."""
    images = []
    for record in result.slices:
        image = SyntheticMRImage(result, record)
        stamp(image, result)
        stamp_image(image, result)
        stamp_slice(image, result, record)
        images.append(image)
    return images


def stored_values(intensity: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Map intensity [0, 1] to stored values [0, 4095]; what lies outside is clipped."""
    return np.rint(np.clip(intensity, 0.0, 1.0) * LARGEST).astype(np.uint16)


def source_series(result: Result) -> Dataset:
    """Refer to the whole source series: item of ReferencedSeriesSequence."""
    item = Dataset()
    item.SeriesInstanceUID = result.source.series_instance_uid
    item.ReferencedInstanceSequence = [
        _reference(class_uid, instance_uid)
        for instance_uid, class_uid in result.source.class_uids.items()
    ]
    return item


def _reference(class_uid: str, instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = class_uid
    item.ReferencedSOPInstanceUID = instance_uid
    return item


def _source_images(result: Result, record: SliceRecord) -> list[Dataset]:
    """Refer to the measured slices that bracket this one; frames of one instance together."""
    frames: dict[str, list[int]] = {}
    for neighbour in record.neighbours:
        numbers = frames.setdefault(neighbour.sop_instance_uid, [])
        if neighbour.frame_number is not None:
            numbers.append(neighbour.frame_number)
    items = []
    for instance_uid, numbers in frames.items():
        item = _reference(result.source.class_uids[instance_uid], instance_uid)
        if numbers:
            item.ReferencedFrameNumber = numbers
        item.SpatialLocationsPreserved = "NO"
        item.PurposeOfReferenceCodeSequence = [concept(SOURCE_IMAGE)]
        items.append(item)
    return items


def _comment(result: Result, record: SliceRecord) -> str:
    return (
        f"{marks.COMMENT_PREFIX} T1-like image drawn from CT, research only, "
        f"{marks.NOT_FOR_DIAGNOSIS}. This slice: {record.guide.kind}, "
        f"{_SENTENCES[record.guide.kind]}. Mean uncertainty {record.uncertainty:.3f} "
        f"of the display range, {result.label}."
    )
