"""Reads the headers of classic and Enhanced CT instances into :class:`SourceFrame`.

Lenient by design: an absent or malformed value becomes ``None``; whoever needs the value refuses.
Sources: PS3.3 C.7.6.1 to C.7.6.3, C.7.6.16 (functional groups), C.8.2.1 (CT Image),
C.8.15.3 (Enhanced CT functional groups).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydicom.dataset import Dataset

from rebrain_node.domain.series import SourceFrame

#: functional group macro of each attribute that Enhanced CT moves out of the top level
_MACROS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "FrameType": "CTImageFrameTypeSequence",
    "ConvolutionKernel": "CTReconstructionSequence",
    "GantryDetectorTilt": "CTAcquisitionDetailsSequence",
    "AnatomicRegionSequence": "FrameAnatomySequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "FrameAcquisitionDateTime": "FrameContentSequence",
}
_YEARS = {"Y": 1.0, "M": 1.0 / 12.0, "W": 7.0 / 365.25, "D": 1.0 / 365.25}


def frames(instances: Sequence[Dataset]) -> tuple[SourceFrame, ...]:
    """List the frames of all instances, in the order given.

    Parameters
    ----------
    instances : sequence of Dataset
        Of one or of many series; pixel data are not touched.

    Returns
    -------
    tuple of SourceFrame
        One for each classic instance, one for each frame of a multi-frame instance.
    """
    return tuple(
        frame
        for index, instance in enumerate(instances)
        for frame in _frames_of_instance(index, instance)
    )


def frame_attribute(instance: Dataset, frame_number: int | None, keyword: str) -> Any:
    """Look an attribute up for one frame: per-frame group, shared group, then the top level.

    Parameters
    ----------
    instance : Dataset
        Classic or multi-frame.
    frame_number : int or None
        1-based; ``None`` for a classic instance.
    keyword : str
        The attribute's keyword in PS3.6.

    Returns
    -------
    object or None
        The value as pydicom gives it; ``None`` where absent, empty or unreadable.
    """
    if frame_number is not None and keyword in _MACROS:
        for group in _groups(instance, frame_number):
            items = _value(group, _MACROS[keyword])
            if items and (value := _value(items[0], keyword)) is not None:
                return value
    return _value(instance, keyword)


def _groups(instance: Dataset, frame_number: int) -> Iterator[Dataset]:
    per_frame = _value(instance, "PerFrameFunctionalGroupsSequence")
    if per_frame and frame_number <= len(per_frame):
        yield per_frame[frame_number - 1]
    shared = _value(instance, "SharedFunctionalGroupsSequence")
    if shared:
        yield shared[0]


def _value(dataset: Dataset, keyword: str) -> Any:
    try:
        value = dataset.get(keyword)
    except (ValueError, TypeError, KeyError, NotImplementedError):
        return None
    if value is None or (hasattr(value, "__len__") and len(value) == 0):
        return None
    return value


def _frames_of_instance(index: int, instance: Dataset) -> Iterator[SourceFrame]:
    if "PerFrameFunctionalGroupsSequence" not in instance:
        yield _frame(index, instance, None)
        return
    count = _whole(_value(instance, "NumberOfFrames")) or 0
    for number in range(1, count + 1):
        yield _frame(index, instance, number)


def _frame(index: int, instance: Dataset, number: int | None) -> SourceFrame:
    def get(keyword: str) -> Any:
        return frame_attribute(instance, number, keyword)

    return SourceFrame(
        instance_index=index,
        frame_number=number,
        sop_instance_uid=_text(get("SOPInstanceUID")),
        sop_class_uid=_text(get("SOPClassUID")),
        series_instance_uid=_text(get("SeriesInstanceUID")),
        study_instance_uid=_text(get("StudyInstanceUID")),
        frame_of_reference_uid=_text(get("FrameOfReferenceUID")),
        modality=_text(get("Modality")),
        image_type=_texts(get("FrameType") or get("ImageType")),
        image_position_patient=_three(_numbers(get("ImagePositionPatient"), 3)),
        image_orientation_patient=_six(_numbers(get("ImageOrientationPatient"), 6)),
        pixel_spacing_mm=_two(_numbers(get("PixelSpacing"), 2)),
        rows=_whole(get("Rows")),
        columns=_whole(get("Columns")),
        slice_thickness_mm=_number(get("SliceThickness")),
        gantry_tilt_deg=_number(get("GantryDetectorTilt")),
        instance_number=_whole(get("InstanceNumber")),
        series_number=_whole(get("SeriesNumber")),
        series_description=_text(get("SeriesDescription")),
        body_part=_text(get("BodyPartExamined")) or _region(get("AnatomicRegionSequence")),
        convolution_kernel="\\".join(_texts(get("ConvolutionKernel"))) or None,
        contrast_agent=_contrast(instance, number),
        manufacturer=_text(get("Manufacturer")),
        patient_age_years=_age_years(_text(get("PatientAge"))),
        rescale_type=_text(get("RescaleType")),
        bits_stored=_whole(get("BitsStored")),
        acquisition_number=_acquisition_number(get),
        acquired_at=_acquired_at(get),
    )


def _acquisition_number(get: Callable[[str], Any]) -> int | None:
    number = _whole(get("FrameAcquisitionNumber"))
    return _whole(get("AcquisitionNumber")) if number is None else number


def _acquired_at(get: Callable[[str], Any]) -> str | None:
    """Date and time of the acquisition as text that sorts (PS3.5 6.2: DA, TM, DT)."""
    moment = _text(get("FrameAcquisitionDateTime") or get("AcquisitionDateTime"))
    if moment is None and (clock := _text(get("AcquisitionTime"))):
        moment = (_text(get("AcquisitionDate")) or "") + clock
    return None if moment is None else moment.replace(":", "").replace("-", "")


def _contrast(instance: Dataset, number: int | None) -> str | None:
    """Return whatever says that contrast was given (PS3.3 C.7.6.4, C.7.6.4b)."""
    for keyword in ("ContrastBolusAgent", "ContrastBolusRoute"):
        if text := _text(_value(instance, keyword)):
            return text
    for keyword in ("ContrastBolusAgentSequence", "ContrastBolusUsageSequence"):
        if _value(instance, keyword):
            return keyword
    if number is not None:
        for group in _groups(instance, number):
            if _value(group, "ContrastBolusUsageSequence"):
                return "ContrastBolusUsageSequence"
    return None


def _region(items: Any) -> str | None:
    return _text(_value(items[0], "CodeMeaning")) if items else None


def _age_years(text: str | None) -> float | None:
    """Age String (PS3.5 6.2: three digits and D, W, M or Y) in years."""
    if text is None or len(text) != 4 or not text[:3].isdigit() or text[3] not in _YEARS:
        return None
    return int(text[:3]) * _YEARS[text[3]]


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return str(value).strip(" \0") or None


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    parts = [value] if isinstance(value, str) else list(value)
    return tuple(str(part).strip() for part in parts)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    if value is None or isinstance(value, str) or not hasattr(value, "__len__"):
        return None
    numbers = tuple(_number(part) for part in value)
    finite = tuple(number for number in numbers if number is not None)
    return finite if len(numbers) == len(finite) == count else None


def _two(values: tuple[float, ...] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])


def _three(values: tuple[float, ...] | None) -> tuple[float, float, float] | None:
    return None if values is None else (values[0], values[1], values[2])


def _six(
    values: tuple[float, ...] | None,
) -> tuple[float, float, float, float, float, float] | None:
    if values is None:
        return None
    return (values[0], values[1], values[2], values[3], values[4], values[5])
