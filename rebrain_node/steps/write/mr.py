"""The primary result: a series of classic MR Image Storage (PS3.3 A.4)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Final

import numpy as np
from highdicom.base import SOPClass
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from rebrain_node.domain import marks
from rebrain_node.domain.volume import PlaneRegistration
from rebrain_node.steps.write.codes import SOURCE_IMAGE, SPATIAL_RESAMPLING, concept
from rebrain_node.steps.write.encoding import decimal, decimals, encoded_once, plain
from rebrain_node.steps.write.references import reference, source_series
from rebrain_node.steps.write.result import (
    Result,
    SliceRecord,
    add_slice_provenance,
    stamp,
    stamp_image,
)
from rebrain_node.watermark import mark

SERIES_DESCRIPTION: Final = f"{marks.SERIES_DESCRIPTION_PREFIX} from CT, {marks.NOT_FOR_DIAGNOSIS}"
#: type 2 of the MR Image module (PS3.3 C.8.3.1): nothing was measured
_EMPTY: Final = (
    "ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength",
)  # fmt: skip
_SENTENCES: Final = {
    "measured": "at an acquired CT slice position",
    "retrieved": "between measured CT slices, guided by a slice of another person",
    "interpolated": "between measured CT slices, interpolated",
}


def write_classic_mr(result: Result) -> list[Dataset]:
    """Build the MR series, one instance a slice, in order of position."""
    first = begin(result, MRImageStorage)
    first.update(_shared(result))
    stamp(first, result)
    encoded = encoded_once(first)
    shared = {tag: encoded.get_item(tag) for tag in encoded.keys()}  # noqa: SIM118 # iterating decodes
    return [_slice(result, record, shared, first.file_meta) for record in result.slices]


def _slice(
    result: Result,
    record: SliceRecord,
    shared: Mapping[BaseTag, DataElement],
    file_meta: FileMetaDataset,
) -> Dataset:
    """Build one slice: what all have in common, as bytes, and what is its own."""
    names = result.names("MR", record.index)
    image = Dataset(dict(shared))
    image.file_meta = deepcopy(file_meta)
    image.file_meta.MediaStorageSOPInstanceUID = names["sop_instance_uid"]
    image.SOPInstanceUID = names["sop_instance_uid"]
    image.InstanceNumber = names["instance_number"]
    image.ImagePositionPatient = decimals(record.position_mm)
    image.DerivationDescription = derivation(result, record)
    image.SourceImageSequence = source_images(result, record)
    image.ImageComments = comment(result, record)
    add_pixels(image, result, slice(record.index, record.index + 1))
    add_slice_provenance(image, result, record)
    return image


def begin(result: Result, class_uid: str, index: int = 0) -> Dataset:
    """Begin an object of the MR series with its names and nothing that a scanner would say."""
    return SOPClass(
        study_instance_uid=result.source.study_instance_uid,
        sop_class_uid=class_uid,
        modality="MR",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=SERIES_DESCRIPTION,
        **result.names("MR", index),
    )


def _shared(result: Result) -> Dataset:
    """Gather what all slices of the series have in common."""
    dataset = Dataset()
    dataset.update(result.source.frame)
    dataset.update(result.source.acquisition)
    dataset.ImageType = list(marks.IMAGE_TYPE)
    dataset.ScanningSequence = "RM"  # research mode
    dataset.SequenceVariant = "NONE"
    for keyword in _EMPTY:
        setattr(dataset, keyword, None)
    dataset.update(plane(result))
    dataset.update(window(result))
    dataset.DerivationCodeSequence = derivation_codes()
    dataset.ReferencedSeriesSequence = [source_series(result)]
    stamp_image(dataset, result)
    return dataset


def plane(result: Result) -> Dataset:
    """Image Plane module, PS3.3 C.7.6.2, without the position."""
    grid, spacing = result.synthetic.grid, result.synthetic.prepared.spacing_mm
    dataset = Dataset()
    dataset.ImageOrientationPatient = decimals((*grid.row_direction, *grid.column_direction))
    dataset.PixelSpacing = decimals((grid.pixel_mm, grid.pixel_mm))
    dataset.SliceThickness = decimal(spacing)
    dataset.SpacingBetweenSlices = decimal(spacing)
    return dataset


def add_pixels(dataset: Dataset, result: Result, frames: slice) -> None:
    """Image Pixel module, PS3.3 C.7.6.3: intensity of one slice or of all in 12 bits."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = result.synthetic.grid.rows, result.synthetic.grid.columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    stored_range = result.synthetic.stored_range
    intensity = result.synthetic.intensity[frames]
    if result.options.watermark:
        intensity = mark(intensity, result.synthetic.head[frames], frames.start or 0)
    pixels = stored_range.stored(intensity)
    if result.ink is not None:
        shows_head = np.asarray(result.synthetic.head[frames].any(axis=(1, 2)))
        pixels[shows_head[:, None, None] & result.ink] = stored_range.white
    dataset.add_new("PixelData", "OW", pixels.astype("<u2").tobytes())


def derivation_codes() -> list[Dataset]:
    """Code how the images were made: a true standard code, and our own (PS3.16 CID 7203)."""
    return [concept(SPATIAL_RESAMPLING), concept(marks.DERIVATION_CODE)]


def window(result: Result) -> Dataset:
    """Show the recipe's whole range of stored values (VOI LUT module, PS3.3 C.11.2.1.2.1)."""
    stored_range = result.synthetic.stored_range
    dataset = Dataset()
    dataset.WindowCenter = decimal((stored_range.black + stored_range.white + 1) / 2)
    dataset.WindowWidth = decimal(stored_range.white - stored_range.black + 1)
    return dataset


def derivation(result: Result, record: SliceRecord) -> str:
    """Say how a slice was made; of a retrieved one also by which exemplar it was guided."""
    sentence = (
        f"{marks.DERIVATION_PREFIX}: T1-like MR drawn from CT by a Brownian bridge network "
        f"(bundle {result.provenance.bundle_digest[:16]}), {marks.NOT_FOR_DIAGNOSIS}"
    )
    guide = record.guide
    if guide.exemplar is None:
        return sentence
    facts = [f"guided by exemplar {plain(guide.exemplar)} of another person"]
    if guide.similarity is not None and guide.tau is not None:
        facts.append(f"similarity {guide.similarity:.3f} (threshold {guide.tau:.3f})")
    if guide.position_difference_mm is not None:
        facts.append(f"{guide.position_difference_mm:+.1f} mm from this place")
    if guide.registration is not None:
        facts.append(_registration(guide.registration))
    return f"{sentence}; {', '.join(facts)}"


def _registration(by: PlaneRegistration) -> str:
    return (
        f"registered in its plane: turned by {by.rotation_deg:+.1f} degrees, scaled by "
        f"{by.scale:.3f}, moved {by.posterior_mm:+.1f} mm to posterior and {by.left_mm:+.1f} mm "
        "to the left"
    )


def source_images(result: Result, record: SliceRecord) -> list[Dataset]:
    """Refer to the measured slices that bracket this one; frames of one instance together."""
    frames: dict[str, list[int]] = {}
    for neighbour in record.neighbours:
        numbers = frames.setdefault(neighbour.sop_instance_uid, [])
        if neighbour.frame_number is not None:
            numbers.append(neighbour.frame_number)
    items = []
    for instance_uid, numbers in frames.items():
        item = reference(result.source.class_uids[instance_uid], instance_uid)
        if numbers:
            item.ReferencedFrameNumber = numbers
        item.SpatialLocationsPreserved = "NO"
        item.PurposeOfReferenceCodeSequence = [concept(SOURCE_IMAGE)]
        items.append(item)
    return items


def comment(result: Result, record: SliceRecord) -> str:
    """Say in words how one slice came about, and how far it can be trusted."""
    warning = f": {marks.NOT_TRUSTED}" if record.trusted is False else ""
    no_room = " No visible mark: there is no room beside the head." if result.lacks_room else ""
    return (
        f"{marks.COMMENT_PREFIX} T1-like image drawn from CT, research only, "
        f"{marks.NOT_FOR_DIAGNOSIS}. This slice: {record.guide.kind}, "
        f"{_SENTENCES[record.guide.kind]}. Mean uncertainty {record.uncertainty:.3f} "
        f"of the display range, {result.label}{warning}.{no_room}"
    )
