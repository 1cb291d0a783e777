"""The uncertainty as two objects that lie on the MR series, frame by slice.

The Parametric Map (PS3.3 A.75) gives a value to each voxel. The Segmentation (PS3.3 A.51) marks
the voxels not to be trusted, for viewers that show no map: segment 1 those inside the head with an
uncertainty above the limit of the options, segment 2 those outside the head, where nothing was
synthesised and any structure is an artefact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from highdicom import AlgorithmIdentificationSequence, VOILUTTransformation
from highdicom.color import CIELabColor
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.uid import MRImageStorage

from rebrain_node.domain import marks
from rebrain_node.domain.job import ObjectKind
from rebrain_node.steps.write import codes
from rebrain_node.steps.write.codes import concept
from rebrain_node.steps.write.encoding import decimals, plain
from rebrain_node.steps.write.mr import plane
from rebrain_node.steps.write.references import listed, reference, source_series, whole_series
from rebrain_node.steps.write.result import Result, stamp, stamp_image

_LARGEST: Final = 2**16 - 1  #: stored value of an uncertainty of 1 with uint16
_SHOWN_UP_TO: Final = 0.3  #: uncertainty shown white
_LONG_STRING: Final = 64  #: characters of VR LO (PS3.5 6.2)
_ORANGE: Final = CIELabColor(67.0, 43.0, 74.0)
_GREY: Final = CIELabColor(54.0, 0.0, 0.0)
#: what an object takes its geometry from, beside the names of a slice
_GEOMETRY: Final = (
    "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "LossyImageCompression",
)  # fmt: skip


def write_parametric_map(result: Result, images: Sequence[Dataset]) -> Dataset:
    """Build the map of uncertainty, ratio of the display range, one frame a slice."""
    uncertainty = result.synthetic.uncertainty
    if result.options.map_precision == "float32":
        pixels: npt.NDArray[np.generic] = np.clip(uncertainty, 0.0, 1.0).astype(np.float32)
        mapping, one = _mapping(result, (0.0, 1.0), 1.0), 1.0
    else:
        pixels = np.empty(uncertainty.shape, dtype=np.uint16)
        for stored, values in zip(pixels, uncertainty, strict=True):
            stored[...] = np.rint(np.clip(values, 0.0, 1.0) * _LARGEST)
        mapping, one = _mapping(result, (0, _LARGEST), 1.0 / _LARGEST), float(_LARGEST)
    dataset = ParametricMap(
        pixel_array=pixels,
        contains_recognizable_visual_features=True,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            VOILUTTransformation(
                window_center=one * _SHOWN_UP_TO / 2,
                window_width=one * _SHOWN_UP_TO,
                voi_lut_function="LINEAR_EXACT",  # LINEAR needs a width of at least 1
            )
        ],
        content_label="UNCERTAINTY",
        content_description=_quantity(result),
        series_description=f"{marks.SERIES_DESCRIPTION_WORD} uncertainty of MR T1, {result.label}",
        **_arguments(result, "PM"),
    )
    _finish(dataset, result, images, "PM")
    return dataset


def _mapping(
    result: Result, value_range: tuple[int, int] | tuple[float, float], slope: float
) -> RealWorldValueMapping:
    meaning = result.synthetic.meaning
    quantity = codes.EXPECTED_ERROR if meaning.alpha is None else codes.HALF_WIDTH
    return RealWorldValueMapping(
        lut_label="UNCERTAINTY" if meaning.calibrated else "UNCALIBRATED",
        lut_explanation=_quantity(result),
        unit=concept(codes.NO_UNITS),
        value_range=value_range,
        slope=slope,
        intercept=0.0,
        quantity_definition=concept(quantity),
    )


def _quantity(result: Result) -> str:
    """What a value of the map is, and how far it can be trusted; at most 64 characters (LO)."""
    quantity = result.synthetic.meaning.quantity
    whole = f"{quantity} / range, {result.label}"
    return whole if len(whole) <= _LONG_STRING else f"{quantity}, {result.label}"


def write_segmentation(result: Result, images: Sequence[Dataset]) -> Dataset:
    """Build the segmentation; frames without a voxel are left out."""
    synthetic, limit = result.synthetic, result.options.uncertain_above
    uncertain = synthetic.head & (synthetic.uncertainty > limit)
    voxels = np.stack([uncertain, ~synthetic.head], axis=-1).astype(np.uint8)
    above = f"Uncertainty above {limit:g}, {result.label}"
    dataset = Segmentation(
        pixel_array=voxels,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _segment(result, 1, above, codes.UNCERTAIN, _ORANGE),
            _segment(result, 2, "Outside the head", codes.OUTSIDE, _GREY),
        ],
        omit_empty_frames=bool(voxels.any()),
        content_label="UNTRUSTED",
        content_description="Voxels of the synthetic MR that are not to be trusted",
        series_description=f"{marks.SERIES_DESCRIPTION_WORD} voxels of MR T1 not to be trusted",
        **_arguments(result, "SEG"),
    )
    _finish(dataset, result, images, "SEG")
    return dataset


def _segment(
    result: Result, number: int, label: str, kind: codes.Triple, colour: CIELabColor
) -> SegmentDescription:
    provenance = result.provenance
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=concept(codes.SPATIAL_CONCEPT),
        segmented_property_type=concept(kind),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=plain(provenance.bundle_name),
            family=concept(codes.ARTIFICIAL_INTELLIGENCE),
            version=plain(provenance.bundle_version),
            source=marks.MANUFACTURER,
        ),
        display_color=colour,
    )


def _arguments(result: Result, kind: ObjectKind) -> dict[str, Any]:
    """Arguments of highdicom that both objects have in common."""
    return {
        "source_images": _source_images(result),
        "manufacturer_model_name": marks.MODEL_NAME,
        "software_versions": plain(result.provenance.software_version),
        "device_serial_number": result.provenance.bundle_digest,
        **result.names(kind),
    }


def _source_images(result: Result) -> list[Dataset]:
    """Describe the slices as highdicom takes geometry and references from them.

    Of an Enhanced MR too, one data set a slice, under a name of its own; ``_finish`` puts the names
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
    """UID under which highdicom knows a slice."""
    if result.is_enhanced:
        return result.uids.other("MR", f"slice {index}")
    return result.uids.instance("MR", index)


def _name_frames(dataset: Dataset, result: Result, images: Sequence[Dataset]) -> None:
    """Let an object refer to the frames of the Enhanced MR (PS3.3 C.7.6.16.2.6)."""
    names = {_name(result, r.index): result.slice_name(r.index) for r in result.slices}
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        for derivation in frame.DerivationImageSequence:
            for source in derivation.SourceImageSequence:
                name = names.get(source.ReferencedSOPInstanceUID)
                if name is not None:  # segments share an item, which is named once
                    source.update(reference(*name))
    dataset.ReferencedSeriesSequence = [whole_series(images)]


def _order_as_series(dataset: Dataset, result: Result) -> None:
    """Put the frames in the order of the slices of the series; highdicom has them reversed."""
    places = {_name(result, record.index): record.index for record in result.slices}
    frames = list(dataset.PerFrameFunctionalGroupsSequence)

    def place(number: int) -> tuple[int, int]:
        segment = frames[number].get("SegmentIdentificationSequence")
        source = frames[number].DerivationImageSequence[0].SourceImageSequence[0]
        return (
            int(segment[0].ReferencedSegmentNumber) if segment else 0,
            places[source.ReferencedSOPInstanceUID],
        )

    order = sorted(range(len(frames)), key=place)
    for number in order:
        index = dataset.PerFrameFunctionalGroupsSequence[number].FrameContentSequence[0]
        values = index.DimensionIndexValues
        slice_number = place(number)[1] + 1
        index.DimensionIndexValues = (
            slice_number if isinstance(values, int) else [*values[:-1], slice_number]
        )
    dataset.PerFrameFunctionalGroupsSequence = [frames[number] for number in order]
    keyword = next(k for k in ("FloatPixelData", "PixelData") if k in dataset)
    content = np.frombuffer(dataset[keyword].value, dtype=np.uint8)
    if dataset.get("BitsAllocated") == 1:  # frames need not begin with a byte
        bits = np.unpackbits(content, bitorder="little")
        size = dataset.Rows * dataset.Columns
        reordered = bits[: size * len(frames)].reshape(len(frames), size)[order].ravel()
        packed = np.packbits(reordered, bitorder="little").tobytes()
        dataset[keyword].value = packed + bytes(len(packed) % 2)
    else:
        dataset[keyword].value = content.reshape(len(frames), -1)[order].tobytes()


def _finish(
    dataset: ParametricMap | Segmentation,
    result: Result,
    images: Sequence[Dataset],
    kind: ObjectKind,
) -> None:
    """Stamp an object on the MR ``images`` and replace what highdicom chose at random."""
    uid = result.uids.other(kind, "dimension organisation")
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for index in dataset.DimensionIndexSequence:
        index.DimensionOrganizationUID = uid
    _order_as_series(dataset, result)
    correct_ambiguous_vr(dataset, is_little_endian=True)
    dataset.update(result.source.frame)
    del dataset.PatientPosition  # not in these IODs: the planes say it
    dataset.ImageComments = (
        f"{marks.COMMENT_PREFIX}: belongs to a T1-like MR series drawn from CT, research only, "
        f"{marks.NOT_FOR_DIAGNOSIS}. Uncertainty is {result.label}."
    )
    if result.is_enhanced:
        _name_frames(dataset, result, images)
    dataset.ReferencedSeriesSequence.append(source_series(result))
    stamp(dataset, result)
    stamp_image(dataset, result)
    # an index of the frames in memory; highdicom leaves it open, of which CPython 3.13 warns
    dataset._db_con.close()  # noqa: SLF001 - there is no public way
