"""Which slices of a series are used, where the scanner passed over the head more than once.

A repeated scan, or one before and one after contrast, may be stored as one series. The passes are
told apart by Acquisition Number (0020,0012), by the acquisition's date and time, or, where slices
repeat each other's places, by Instance Number. Stretches one above the other are one pass, whatever
their numbers: only what lies over the same part of the head is a second one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rebrain_node.domain.arrangement import (
    Arrangement,
    arrange_frames,
    judge_arrangement,
    same_place_mm,
)
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import GeometryLimits
from rebrain_node.domain.series import SourceFrame
from rebrain_node.domain.volume import MillimetreArray

#: fewer slices are no pass but repeated slices
_LEAST_SLICES = 3
#: a slice that follows at less than this share of the step before it begins another pass
_LEAST_STEP = 0.75

_Key = Callable[[SourceFrame], int | str | None]


@dataclass(frozen=True, kw_only=True)
class SliceSelection:
    """The frames of a series that are assembled, and why not all of them."""

    frames: tuple[SourceFrame, ...]
    #: ``GEOM-PASS-CHOSEN`` (flag), or ``GEOM-TWO-PASSES`` (refusal) with all frames; else empty
    findings: tuple[Finding, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether no pass can be used."""
        return any(finding.severity == "refuse" for finding in self.findings)


def slices_to_use(frames: Sequence[SourceFrame], limits: GeometryLimits) -> SliceSelection:
    """Choose one whole pass of a series, for the selection and for the assembly alike.

    Parameters
    ----------
    frames : sequence of SourceFrame
        Of one series, in any order.
    limits : GeometryLimits
        The clinical lead's.

    Returns
    -------
    SliceSelection
        All frames where there is one pass or the slices cannot be put in an order; otherwise the
        first pass that is even and covers the head as far as all passes together.
    """
    everything = SliceSelection(frames=tuple(frames))
    arrangement = arrange_frames(frames)
    if arrangement is None or len(frames) < 2 * _LEAST_SLICES:
        return everything
    uneven = bool(judge_arrangement(arrangement, limits, tilt=False))
    distances = np.empty(len(frames))
    distances[list(arrangement.order)] = arrangement.distances_mm
    for name, key in _KEYS.items():
        if name == "Instance Number" and not uneven:
            continue
        passes = _passes([key(frame) for frame in frames], distances, limits)
        if passes and (uneven or _all_whole(passes, frames, arrangement, limits)):
            return _choose(passes, frames, arrangement, limits, name)
    copies = _copies(arrangement, limits) if uneven else 0
    if copies > 1:
        return SliceSelection(frames=tuple(frames), findings=(_inseparable(copies),))
    return everything


#: what tells passes apart, the surest first
_KEYS: Mapping[str, _Key] = {
    "Acquisition Number (0020,0012)": lambda frame: frame.acquisition_number,
    "the time of acquisition": lambda frame: frame.acquired_at,
    "Instance Number": lambda frame: frame.instance_number,
}

#: passes that differ in one of these are different images
_COMPARED: Mapping[str, Callable[[SourceFrame], Hashable]] = {
    "slice thickness": lambda frame: frame.slice_thickness_mm,
    "reconstruction kernel": lambda frame: frame.convolution_kernel,
    "Image Type": lambda frame: frame.image_type,
}


@dataclass
class _Pass:
    """Slices that were acquired one after the other in one direction along the normal."""

    low_mm: float
    high_mm: float
    places: list[int] = field(default_factory=list)  #: among the frames
    step_mm: float = 0.0  #: from the last stretch but one to the last, signed; 0 for the first

    def goes_on(self, low_mm: float, high_mm: float, least_mm: float) -> float:
        """Return the step by which a stretch continues this pass; 0 where it does not."""
        least_mm = max(least_mm, _LEAST_STEP * abs(self.step_mm))
        up, down = low_mm - self.high_mm, high_mm - self.low_mm
        if up > least_mm and self.step_mm >= 0.0:
            return up
        if down < -least_mm and self.step_mm <= 0.0:
            return down
        return 0.0


def _passes(
    keys: Sequence[int | str | None], distances: MillimetreArray, limits: GeometryLimits
) -> list[list[int]]:
    """Return the frames of each pass; empty where the keys show no more than one."""
    if any(key is None for key in keys):
        return []
    found: list[_Pass] = []
    for places in _by_key(keys):
        low, high = float(distances[places].min()), float(distances[places].max())
        last = found[-1] if found else None
        step = 0.0 if last is None else last.goes_on(low, high, same_place_mm(limits))
        if last is None or step == 0.0:
            found.append(_Pass(low, high, list(places)))
        else:
            last.places += places
            last.step_mm = step
            last.low_mm, last.high_mm = min(low, last.low_mm), max(high, last.high_mm)
    if min(len(each.places) for each in found) < _LEAST_SLICES or not _overlap(found, limits):
        return []
    return [each.places for each in found]


def _by_key(keys: Sequence[int | str | None]) -> Iterator[list[int]]:
    order = sorted(range(len(keys)), key=lambda place: (str(type(keys[place])), keys[place]))
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or keys[order[end]] != keys[order[start]]:
            yield order[start:end]
            start = end


def _overlap(passes: Sequence[_Pass], limits: GeometryLimits) -> bool:
    ordered = sorted(passes, key=lambda each: each.low_mm)
    reached = ordered[0].high_mm
    for each in ordered[1:]:
        if each.low_mm < reached - same_place_mm(limits):
            return True
        reached = max(reached, each.high_mm)
    return False


def _all_whole(
    passes: Sequence[Sequence[int]],
    frames: Sequence[SourceFrame],
    union: Arrangement,
    limits: GeometryLimits,
) -> bool:
    return all(_whole(each, union, limits) for each in _arranged(passes, frames))


def _arranged(passes: Sequence[Sequence[int]], frames: Sequence[SourceFrame]) -> list[Arrangement]:
    each = (arrange_frames([frames[place] for place in places]) for places in passes)
    return [arrangement for arrangement in each if arrangement is not None]


def _whole(each: Arrangement, union: Arrangement, limits: GeometryLimits) -> bool:
    """Whether a pass is even and covers as much as all together, within one of its steps."""
    if judge_arrangement(each, limits, tilt=False):
        return False
    missing = union.coverage_mm - each.coverage_mm
    return missing <= float(np.median(each.steps_mm)) + limits.step_mm


def _choose(
    passes: Sequence[Sequence[int]],
    frames: Sequence[SourceFrame],
    union: Arrangement,
    limits: GeometryLimits,
    name: str,
) -> SliceSelection:
    arranged = _arranged(passes, frames)
    whole = [place for place, each in enumerate(arranged) if _whole(each, union, limits)]
    differing = _differing(passes, frames)
    if not whole or differing:
        longest = max(each.coverage_mm for each in arranged)
        why = (
            f"they differ in {differing}"
            if differing
            else f"none is both even and as long as all together ({union.coverage_mm:.0f} mm; the "
            f"longest covers {longest:.0f} mm)"
        )
        return SliceSelection(
            frames=tuple(frames),
            findings=(
                Finding(
                    code="GEOM-TWO-PASSES",
                    sentence=(
                        f"the series holds {len(passes)} passes over the same part of the head "
                        f"(told apart by {name}), and {why}; send one pass as a series of its own"
                    ),
                    value=float(len(passes)),
                    limit=1.0,
                ),
            ),
        )
    used = sorted(passes[whole[0]])
    return SliceSelection(
        frames=tuple(frames[place] for place in used),
        findings=(
            Finding(
                code="GEOM-PASS-CHOSEN",
                sentence=(
                    f"the series holds {len(passes)} passes over the same part of the head (told "
                    f"apart by {name}); only pass {whole[0] + 1} is judged, {len(used)} of "
                    f"{len(frames)} slices: if another pass is meant, send it as its own series"
                ),
                severity="flag",
                value=float(len(passes)),
                limit=1.0,
            ),
        ),
    )


def _differing(passes: Sequence[Sequence[int]], frames: Sequence[SourceFrame]) -> str:
    """Name what makes passes different images and not one scan repeated; empty where nothing."""
    named = [
        what
        for what, read in _COMPARED.items()
        if len({frozenset(read(frames[place]) for place in each) for each in passes}) > 1
    ]
    return ", ".join(named)


def _copies(arrangement: Arrangement, limits: GeometryLimits) -> int:
    """Return how many slices lie at every single place; 1 unless it is the same number."""
    places = 1 + np.concatenate([[0], np.cumsum(arrangement.steps_mm >= same_place_mm(limits))])
    counts = np.bincount(places.astype(int))[1:]
    return int(counts[0]) if len(counts) >= _LEAST_SLICES and len(set(counts)) == 1 else 1


def _inseparable(copies: int) -> Finding:
    return Finding(
        code="GEOM-TWO-PASSES",
        sentence=(
            f"{copies} slices lie at every place of the series: it holds {copies} passes over the "
            "head that neither Acquisition Number, time of acquisition nor Instance Number tells "
            "apart; send one pass as a series of its own"
        ),
        value=float(copies),
        limit=1.0,
    )
