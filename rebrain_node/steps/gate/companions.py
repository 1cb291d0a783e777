"""Rules: map, segmentation and report agree with what each slice states.

They are written by different code from the same volume, so the gate computes the numbers again
from the pixels: the mean of the map within the head is the slice's uncertainty, and the
segmentation is the map above the limit. Of the report's content tree only the measurement groups
are read (PS3.16 TID 1500, TID 1501): one for the volume, one for each slice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset

from rebrain_node.domain import marks
from rebrain_node.domain.volume import FloatArray, MaskArray
from rebrain_node.steps.gate.context import Context, WrittenObject
from rebrain_node.steps.gate.pixels import map_values
from rebrain_node.steps.gate.rules import REPORT, SLICES, Violation, rule, set_rule

#: largest difference of two means of the same voxels, float32 summed in another order
MEAN_TOLERANCE: Final = 2e-5
LARGEST: Final = (1 << 16) - 1  #: stored value of an expected error of 1 in whole numbers
UNCERTAIN, OUTSIDE = 1, 2  #: numbers of the segments
MEASUREMENT_GROUP: Final = "125007"  #: DCM
#: code value of a number in the report, and the element in which the slice itself states it
NUMBERS: Final = {
    "ALPHA": marks.ALPHA,
    "MEAN-UNCERTAINTY": marks.UNCERTAINTY,
    "SIMILARITY": marks.SIMILARITY,
    "TAU": marks.TAU,
    "POSITION-DIFF": marks.POSITION_DIFFERENCE,
}
#: largest difference of a number written as text of 16 characters
TEXT_TOLERANCE: Final = 1e-6
ROUNDING: Final = 0.00501  #: of a number that is shown with three significant digits


@dataclass(frozen=True, eq=False)
class SliceUncertainty:
    """The uncertainty of one MR slice as the companions state it."""

    slice: WrittenObject
    map: FloatArray  #: (rows, columns), expected absolute error
    step: float  #: of the stored values of the map
    uncertain: MaskArray | None  #: (rows, columns), segment 1; None without a segmentation
    outside: MaskArray | None  #: (rows, columns), segment 2


@set_rule(
    "GATE-MAP-MEAN",
    "The uncertainty of each slice is the mean of the map within the head.",
    on="MR slices, PM, SEG",
)
def _map_mean(context: Context) -> Iterator[Violation]:
    """Number and map must agree.

    Without a segmentation the head is not known, and the number must lie within the map's range.
    """
    for each in _uncertainties(context):
        stated = each.slice.private(marks.UNCERTAINTY)
        values = each.map if each.outside is None else each.map[~each.outside]
        if stated is None or not math.isfinite(stated) or not np.isfinite(values).all():
            continue  # reported by GATE-SLICE-BLOCK or GATE-MAP-FINITE
        if each.outside is None:  # the head is not known, but a mean lies between the extremes
            low, high = float(values.min()), float(values.max())
        else:
            low = high = float(values.mean(dtype=np.float64)) if values.size else 0.0
        tolerance = MEAN_TOLERANCE + each.step
        if not low - tolerance <= stated <= high + tolerance:
            what = f"its mean uncertainty is {stated:.4f}, the map's {low:.4f} to {high:.4f}"
            yield Violation(each.slice.name, what)


@set_rule(
    "GATE-MASK",
    "The segmentation marks the voxels of the head at which the map is above the limit.",
    on="MR slices, PM, SEG",
)
def _mask(context: Context) -> Iterator[Violation]:
    """Most viewers show only the segmentation."""
    for each in _uncertainties(context):
        limit = each.slice.private(marks.UNCERTAIN_ABOVE)
        if limit is None or each.uncertain is None or each.outside is None:
            continue  # no segmentation, or reported by GATE-PRIVATE-BLOCK
        certainly = ~each.outside & (each.map > limit + each.step)
        possibly = ~each.outside & (each.map > limit - each.step)
        wrong = int((certainly & ~each.uncertain).sum() + (each.uncertain & ~possibly).sum())
        if wrong:
            what = f"{wrong} voxels of the segmentation are not those of the map above {limit:g}"
            yield Violation(each.slice.name, what)


@rule(
    "GATE-TRUSTED",
    "A slice is marked as not to be trusted exactly where its uncertainty is above the limit.",
    on=SLICES,
)
def _trusted(obj: WrittenObject, _: Context) -> str | None:
    """A slice of high uncertainty must be marked wherever it is shown."""
    limit, stated = obj.private(marks.UNTRUSTED_ABOVE), obj.private(marks.TRUSTED)
    mean = obj.private(marks.UNCERTAINTY)
    if mean is None or not math.isfinite(mean):
        return None  # reported by GATE-SLICE-BLOCK
    expected = None if limit is None else ("YES" if mean <= limit else "NO")
    if stated == expected:
        return None
    return f"it states trusted {stated}; {mean:.4f} against a limit of {limit} is {expected}"


@set_rule(
    "GATE-REPORT-SLICES",
    "The report states of each slice what the slice states of itself.",
    on="MR slices, SR",
)
def _report_slices(context: Context) -> Iterator[Violation]:
    """Report and private block are written by different code, and a site may keep only one."""
    for report in context.of("SR"):
        groups = {_image(group): group for group in _groups(report.dataset)}
        for number, obj in enumerate(context.mr_slices, start=1):
            frame = number if context.mr_form == "enhanced" else None
            group = groups.get((str(obj.get("SOPInstanceUID")), frame))
            if group is None:
                yield Violation(report.name, f"it has no row for {obj.name}")
                continue
            different = _differences(group, obj)
            if different:
                what = f"its row for {obj.name} differs in {', '.join(different)}"
                yield Violation(report.name, what)


@rule(
    "GATE-REPORT-WHOLE",
    "Digests, limit, calibration and slice counts in the report are those of the set.",
    on=REPORT,
)
def _report_whole(obj: WrittenObject, context: Context) -> str | None:
    """A recall reads the report."""
    job = context.provenance
    expected = {
        "JOB": job.digest,
        "REVISION": str(job.revision),
        "INPUT-DIGEST": job.input_digest,
        "BUNDLE-DIGEST": job.bundle_digest,
        "CONFIG-DIGEST": job.configuration_digest,
    }
    group = next((g for g in _groups(obj.dataset) if _text(g, "JOB") is not None), None)
    if group is None:
        return "it has no measurement group for the volume"
    different = [code for code, value in expected.items() if _text(group, code) != value]
    limit = obj.private(marks.UNCERTAIN_ABOVE)
    if limit is not None and _number(group, "UNCERTAIN-LIMIT") != limit:
        different.append("UNCERTAIN-LIMIT")
    label = obj.private(marks.CALIBRATION)
    if label is not None and _text(group, "CALIBRATION") != label:
        different.append("CALIBRATION")
    counts = _slice_counts(group)
    kinds = Counter(each.private(marks.POSITION_KIND) for each in context.mr_slices)
    different += [k for k in marks.POSITION_KINDS.values() if counts.get(k, 0) != kinds[k]]
    return f"it differs from the images in {', '.join(different)}" if different else None


def _uncertainties(context: Context) -> Iterator[SliceUncertainty]:
    """Match each MR slice with its frames of map and segmentation by position."""
    slices = {obj.name: obj for obj in context.mr_slices}
    masks = context.once(_masks)
    for obj in context.of("PM"):
        is_float = "FloatPixelData" in obj.dataset
        scale, step = (1.0, 0.0) if is_float else (1.0 / LARGEST, 0.5 / LARGEST)
        values = map_values(obj).reshape(-1, *obj.shape)
        empty = np.zeros(obj.shape, dtype=np.bool_)
        for name, frame in zip(_nearest_slices(context, obj), values, strict=True):
            yield SliceUncertainty(
                slices[name],
                frame * np.float32(scale),
                step,
                None if masks is None else masks.get((UNCERTAIN, name), empty),
                None if masks is None else masks.get((OUTSIDE, name), empty),
            )


def _masks(context: Context) -> dict[tuple[int, str], MaskArray] | None:
    """Frames of the segmentation by segment and MR slice; None where there is none."""
    for obj in context.of("SEG"):
        rows, columns = obj.shape
        segments = [
            int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            for frame in obj.items("PerFrameFunctionalGroupsSequence")
        ]
        content = np.frombuffer(obj.dataset.PixelData, dtype=np.uint8)
        bits = np.unpackbits(content, bitorder="little", count=len(segments) * rows * columns)
        frames = bits.reshape(-1, rows, columns).astype(np.bool_)
        names = _nearest_slices(context, obj)
        return dict(zip(zip(segments, names, strict=True), frames, strict=True))
    return None


def _nearest_slices(context: Context, obj: WrittenObject) -> list[str]:
    """Name of the MR slice nearest to each frame of a companion, along the normal."""
    normal = context.mr_planes[0].normal
    positions = np.array([plane.position_mm @ normal for plane in context.mr_planes])
    return [
        context.mr_planes[int(np.abs(positions - plane.position_mm @ normal).argmin())].name
        for plane in obj.planes
    ]


def _differences(group: Dataset, obj: WrittenObject) -> list[str]:
    """Name what a measurement group states otherwise than its slice."""
    different = []
    for code, element in NUMBERS.items():
        stated, own = _number(group, code), obj.private(element)
        if own is not None and not math.isfinite(own):
            continue  # reported by GATE-SLICE-BLOCK or GATE-RETRIEVED
        if stated is None or own is None:
            is_same = stated is own
        else:
            is_same = abs(stated - own) <= TEXT_TOLERANCE
        if not is_same:
            different.append(element.name)
    for element, text in (
        (marks.POSITION_KIND, _code(group, "POSITION-KIND")),
        (marks.TRUSTED, _text(group, "TRUSTED")),
        (marks.EXEMPLAR, _text(group, "EXEMPLAR")),
    ):
        if text != obj.private(element):
            different.append(element.name)
    return different


def _groups(dataset: Dataset) -> Iterator[Dataset]:
    """Measurement groups of the content tree, at any depth."""
    for item in dataset.get("ContentSequence") or ():
        if _concept(item) == MEASUREMENT_GROUP:
            yield item
        elif item.get("ValueType") == "CONTAINER":
            yield from _groups(item)


def _items(group: Dataset, code: str, value_type: str) -> Iterator[Dataset]:
    for item in group.get("ContentSequence") or ():
        if item.get("ValueType") == value_type and _concept(item) == code:
            yield item


def _concept(item: Dataset) -> str:
    sequence = item.get("ConceptNameCodeSequence")
    return str(sequence[0].get("CodeValue")) if sequence else ""


def _number(group: Dataset, code: str) -> float | None:
    """Return a number in full, or as it is shown where that is no rounding of it."""
    for item in _items(group, code, "NUM"):
        measured = item.MeasuredValueSequence[0]
        shown = float(measured.NumericValue)
        full = float(measured.get("FloatingPointValue", shown))
        return full if abs(shown - full) <= ROUNDING * abs(full) else shown
    return None


def _text(group: Dataset, code: str) -> str | None:
    return next((str(item.TextValue) for item in _items(group, code, "TEXT")), None)


def _code(group: Dataset, code: str) -> str | None:
    found = _items(group, code, "CODE")
    return next((str(item.ConceptCodeSequence[0].CodeValue) for item in found), None)


def _image(group: Dataset) -> tuple[str, Any]:
    """MR slice of a measurement group: SOP Instance UID, and frame of an Enhanced MR."""
    for item in _items(group, "SYNTHETIC", "IMAGE"):
        named = item.ReferencedSOPSequence[0]
        return str(named.ReferencedSOPInstanceUID), named.get("ReferencedFrameNumber")
    return "", None


def _slice_counts(group: Dataset) -> dict[str | None, int]:
    """Number of slices of each position kind."""
    return {
        _code(item, "POSITION-KIND"): int(item.MeasuredValueSequence[0].NumericValue)
        for item in _items(group, "SLICE-COUNT", "NUM")
    }
