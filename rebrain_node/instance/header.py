"""Reads the headers of classic and Enhanced CT instances into :class:`SourceFrame`.

Lenient by design: an absent or malformed value becomes ``None``; whoever needs the value refuses.
Sources: PS3.3 C.7.6.1 to C.7.6.3, C.7.6.16 (functional groups), C.8.2.1 (CT Image),
C.8.15.3 (Enhanced CT functional groups).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from statistics import median
from typing import Any

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from rebrain_node.domain.age import age_years, years_since_birth
from rebrain_node.domain.contrast import ContrastElements, read_contrast
from rebrain_node.domain.image_type import is_localizer
from rebrain_node.domain.series import SourceFrame
from rebrain_node.instance.elements import UNREADABLE

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
    "VolumeBasedCalculationTechnique": "CTImageFrameTypeSequence",
    "ConvolutionKernel": "CTReconstructionSequence",
    "GantryDetectorTilt": "CTAcquisitionDetailsSequence",
    "AnatomicRegionSequence": "FrameAnatomySequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "FrameAcquisitionDateTime": "FrameContentSequence",
}
#: thicknesses of one series that lie closer are one: scanners write 4.998 and 5.002
_THICKNESS_NOISE_MM = 0.05
#: series UID, and thickness as declared
_Thickness = tuple[str | None, float | None]
_EXAMINATION_DATES = (
    "StudyDate", "AcquisitionDate", "SeriesDate", "ContentDate", "AcquisitionDateTime",
)  # fmt: skip


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
    read = [
        frame
        for index, instance in enumerate(instances)
        for frame in _frames_of_instance(index, instance)
    ]
    thickness_mm = _thickness_without_noise(read)
    return tuple(
        frame
        if thickness_mm[_thickness(frame)] == frame.slice_thickness_mm
        else replace(frame, slice_thickness_mm=thickness_mm[_thickness(frame)])
        for frame in read
    )


def axial_instances(instances: Sequence[Dataset]) -> tuple[Dataset, ...]:
    """Leave out the scouts that lie within a series of slices; a series of scouts stays whole.

    Parameters
    ----------
    instances : sequence of Dataset
        Of one series, in any order.
    """
    slices = tuple(i for i in instances if not is_localizer(_texts(_value(i, "ImageType"))))
    return slices or tuple(instances)


def _thickness(frame: SourceFrame) -> _Thickness:
    return frame.series_instance_uid, frame.slice_thickness_mm


def _thickness_without_noise(
    read: Sequence[SourceFrame],
) -> Mapping[_Thickness, float | None]:
    """Map each declared thickness of each series to the most frequent one within the noise."""
    counts = Counter(_thickness(frame) for frame in read)
    nearest: dict[_Thickness, _Thickness] = {}
    for key in sorted(counts, key=lambda key: (-counts[key], str(key))):
        near = (other for other in nearest.values() if _differ_by_noise(key, other))
        nearest[key] = next(near, key)
    members: dict[_Thickness, list[float]] = defaultdict(list)
    for key, usual in nearest.items():
        members[usual].append(key[1] or 0.0)
    return {
        key: key[1] if len(members[usual]) == 1 else round(median(members[usual]), 2)
        for key, usual in nearest.items()
    }


def _differ_by_noise(one: _Thickness, other: _Thickness) -> bool:
    if one[0] != other[0] or not one[1] or not other[1]:
        return False
    return abs(one[1] - other[1]) <= _THICKNESS_NOISE_MM


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
    tag = _tag(keyword)
    if tag not in dataset.keys():  # noqa: SIM118 - of the data set itself it costs a lookup by name
        return None
    try:
        value = dataset[tag].value
    except UNREADABLE:
        return None
    if value is None or (hasattr(value, "__len__") and len(value) == 0):
        return None
    return value


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


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

    image_type = tuple(term.upper() for term in _texts(get("FrameType") or get("ImageType")))
    born = _text(get("PatientBirthDate"))
    examined = tuple(_text(get(keyword)) for keyword in _EXAMINATION_DATES)
    return SourceFrame(
        instance_index=index,
        frame_number=number,
        sop_instance_uid=_text(get("SOPInstanceUID")),
        sop_class_uid=_text(get("SOPClassUID")),
        series_instance_uid=_text(get("SeriesInstanceUID")),
        study_instance_uid=_text(get("StudyInstanceUID")),
        frame_of_reference_uid=_text(get("FrameOfReferenceUID")),
        modality=_code(get("Modality")),
        image_type=image_type,
        volume_calculation=_text(get("VolumeBasedCalculationTechnique")),
        presentation_intent=_code(get("PresentationIntentType")),
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
        contrast=read_contrast(_contrast_elements(instance, number, get), image_type),
        manufacturer=_text(get("Manufacturer")),
        patient_age_years=age_years(_text(get("PatientAge")), born, examined),
        years_since_birth=years_since_birth(born, examined),
        rescale_type=_code(get("RescaleType")),
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


def _contrast_elements(
    instance: Dataset, number: int | None, get: Callable[[str], Any]
) -> ContrastElements:
    """Collect what is read of contrast (PS3.3 C.7.6.4, C.7.6.4b, C.7.6.16.2.12)."""
    agents = [_text(get("ContrastBolusAgent")) or ""]
    agents += [
        _text(_value(item, "CodeMeaning")) or "CONTRAST"
        for item in _value(instance, "ContrastBolusAgentSequence") or ()
        if any(not element.is_empty for element in item)
    ]
    holders = [instance, *(() if number is None else _groups(instance, number))]
    administered = [
        _text(_value(item, "ContrastBolusAgentAdministered"))
        for holder in holders
        for item in _value(holder, "ContrastBolusUsageSequence") or ()
    ]
    start_time = _text(get("ContrastBolusStartTime")) or ""
    return ContrastElements(
        agents=tuple(agents),
        ingredient=_text(get("ContrastBolusIngredient")) or "",
        route=_text(get("ContrastBolusRoute")) or "",
        volume_ml=_number(get("ContrastBolusVolume")),
        dose_ml=_number(get("ContrastBolusTotalDose")),
        concentration=_number(get("ContrastBolusIngredientConcentration")),
        start_time=start_time,
        # only where it is compared: otherwise the slices of a series are read once
        acquisition_time=(_text(get("AcquisitionTime")) or "") if start_time else "",
        usage=any(a != "NO" for a in administered) if administered else None,
        description=_text(get("SeriesDescription")) or "",
        protocol=_text(get("ProtocolName")) or "",
    )


def _region(items: Any) -> str | None:
    return _text(_value(items[0], "CodeMeaning")) if items else None


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return str(value).strip(" \0") or None


def _code(value: Any) -> str | None:
    """Read a code string in capitals, as it should be written (PS3.5 6.2, CS)."""
    text = _text(value)
    return None if text is None else text.upper()


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
