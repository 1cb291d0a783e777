"""Rules: map, segmentation and the numbers of each slice tell of one and the same uncertainty.

They are written by different lines of code from the same volume, so the gate adds up the pixels
again: the mean of the map within the head is the slice's number, and the segmentation is the map
above the limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from rebrain_node.domain import marks
from rebrain_node.domain.volume import FloatArray, MaskArray
from rebrain_node.steps.gate.evidence import Evidence, Written
from rebrain_node.steps.gate.pixels import map_values
from rebrain_node.steps.gate.plane import planes
from rebrain_node.steps.gate.provenance import private
from rebrain_node.steps.gate.rule import Breach, Rule

#: largest difference of two means of the same voxels, float32 summed in another order
MEAN_TOLERANCE: Final = 2e-5
LARGEST: Final = (1 << 16) - 1  #: stored value of an expected error of 1 in whole numbers
UNCERTAIN, OUTSIDE = 1, 2  #: numbers of the segments


@dataclass(frozen=True)
class _Doubt:
    """The uncertainty of one slice, as the companions hold it."""

    written: Written  #: the MR slice
    map: FloatArray  #: (rows, columns), expected absolute error
    step: float  #: of the stored values of the map
    uncertain: MaskArray | None  #: (rows, columns), segment 1; None without a segmentation
    outside: MaskArray | None  #: (rows, columns), segment 2


def _map_mean(evidence: Evidence) -> Iterator[Breach]:
    for doubt in _doubts(evidence):
        said = private(doubt.written.dataset, marks.UNCERTAINTY)
        values = doubt.map if doubt.outside is None else doubt.map[~doubt.outside]
        if said is None or not math.isfinite(said) or not np.isfinite(values).all():
            continue  # GATE-SLICE-BLOCK or GATE-MAP-FINITE says so
        if doubt.outside is None:  # the head is not known, but no mean lies beyond the extremes
            low, high = float(values.min()), float(values.max())
        else:
            low = high = float(values.mean(dtype=np.float64)) if values.size else 0.0
        tolerance = MEAN_TOLERANCE + doubt.step
        if not low - tolerance <= said <= high + tolerance:
            what = f"it says a mean uncertainty of {said:.4f}, the map {low:.4f} to {high:.4f}"
            yield Breach(doubt.written.name, what)


def _mask(evidence: Evidence) -> Iterator[Breach]:
    for doubt in _doubts(evidence):
        limit = private(doubt.written.dataset, marks.UNCERTAIN_ABOVE)
        if limit is None or doubt.uncertain is None or doubt.outside is None:
            continue  # no segmentation, or GATE-PRIVATE-BLOCK says so
        surely = ~doubt.outside & (doubt.map > limit + doubt.step)
        perhaps = ~doubt.outside & (doubt.map > limit - doubt.step)
        wrong = int((surely & ~doubt.uncertain).sum() + (doubt.uncertain & ~perhaps).sum())
        if wrong:
            what = f"{wrong} voxels of the segmentation are not those of the map above {limit:g}"
            yield Breach(doubt.written.name, what)


def _trusted(evidence: Evidence) -> Iterator[Breach]:
    for written in evidence.mr:
        limit, said = (private(written.dataset, e) for e in (marks.UNTRUSTED_ABOVE, marks.TRUSTED))
        mean = private(written.dataset, marks.UNCERTAINTY)
        if mean is None or not math.isfinite(mean):
            continue  # GATE-SLICE-BLOCK says so
        wanted = None if limit is None else ("YES" if mean <= limit else "NO")
        if said != wanted:
            what = f"it says trusted {said}; {mean:.4f} against a limit of {limit} is {wanted}"
            yield Breach(written.name, what)


def _doubts(evidence: Evidence) -> Iterator[_Doubt]:
    """Bring each MR slice together with its frames of map and segmentation, by their places."""
    slices = {written.name: written for written in evidence.mr}
    for written in evidence.of("PM"):
        is_float = "FloatPixelData" in written.dataset
        scale, step = (1.0, 0.0) if is_float else (1.0 / LARGEST, 0.5 / LARGEST)
        values = map_values(written).reshape(-1, *_shape(written))
        masks = _masks(evidence)
        empty = np.zeros(_shape(written), dtype=np.bool_)
        for name, frame in zip(_nearest(evidence, written), values, strict=True):
            yield _Doubt(
                slices[name],
                frame * np.float32(scale),
                step,
                None if masks is None else masks.get((UNCERTAIN, name), empty),
                None if masks is None else masks.get((OUTSIDE, name), empty),
            )


def _masks(evidence: Evidence) -> dict[tuple[int, str], MaskArray] | None:
    """Frames of the segmentation by segment and MR slice; None where there is none."""
    for written in evidence.of("SEG"):
        rows, columns = _shape(written)
        segments = [
            int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            for frame in written.items("PerFrameFunctionalGroupsSequence")
        ]
        content = np.frombuffer(written.dataset.PixelData, dtype=np.uint8)
        bits = np.unpackbits(content, bitorder="little", count=len(segments) * rows * columns)
        frames = bits.reshape(-1, rows, columns).astype(np.bool_)
        names = _nearest(evidence, written)
        return dict(zip(zip(segments, names, strict=True), frames, strict=True))
    return None


def _nearest(evidence: Evidence, written: Written) -> list[str]:
    """Name of the MR slice nearest to each frame of a companion, along the normal."""
    normal = evidence.mr_planes[0].normal
    places = np.array([plane.position_mm @ normal for plane in evidence.mr_planes])
    return [
        evidence.mr_planes[int(np.abs(places - plane.position_mm @ normal).argmin())].name
        for plane in planes(written.name, written.dataset)
    ]


def _shape(written: Written) -> tuple[int, int]:
    return int(written.get("Rows") or 0), int(written.get("Columns") or 0)


RULES: Final = (
    Rule(
        "GATE-MAP-MEAN",
        "The uncertainty each slice states is the mean of the map within the head.",
        _map_mean,
    ),
    Rule(
        "GATE-MASK",
        "The segmentation marks the voxels of the head at which the map is above the limit.",
        _mask,
    ),
    Rule(
        "GATE-TRUSTED",
        "A slice is marked as not to be trusted exactly where it is above the limit.",
        _trusted,
    ),
)
