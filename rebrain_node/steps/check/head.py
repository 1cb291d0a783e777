"""NOT-HEAD, CRANIECTOMY, AGE, INCOMPLETE: an adult's whole head, its skull closed (H7, H9, H10).

Whether the head stands upright is judged first (H3): an orientation that was written wrongly, e.g.
feet first for head first, would mirror the patient, and headers alone cannot show it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from rebrain_node.domain.findings import Finding, unlike
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.volume import MillimetreArray
from rebrain_node.steps.check.survey import Survey

#: over this height every head tapers, wherever it is cut
_TAPER_MM = 80.0
#: at the base of the skull: bone, and what is no air, fat or bone between it
_SKULL_HU, _BRAIN_HU = 150.0, (0.0, 90.0)
#: openings of the base for vessels and nerves are narrower than twice this
_CLOSED_MM = 12.0
#: a slice without any bone counts as a gap of half a head
_WIDEST_MM = 250.0


def check_head(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find what is no head: no taper, no ring of skull, no brain in it, nothing but one material.

    A plastic phantom fails here: its inside is air or one plastic, without the spread between
    fluid, grey and white matter.
    """
    least = least_share(survey)
    if least > limits.head.taper_share:
        yield Finding(
            code="NOT-HEAD",
            sentence=(
                "the smallest section of what was scanned is "
                f"{unlike(100 * least, 100 * limits.head.taper_share, 0)} % of the largest, a head "
                f"tapers to at most {100 * limits.head.taper_share:g} % (head.taper_share): it is "
                "a cylinder or a part of the trunk; send the series of the head"
            ),
            value=round(least, 3),
            limit=limits.head.taper_share,
        )
    height = ring_height_mm(survey, limits.head.ring_share)
    if height < limits.head.ring_height_mm:
        yield Finding(
            code="NOT-HEAD",
            sentence=(
                "a closed ring of skull is seen over "
                f"{unlike(height, limits.head.ring_height_mm, 0)} mm; a head shows at least "
                f"{limits.head.ring_height_mm:g} mm (head.ring_height_mm): send the series of the "
                "head"
            ),
            value=round(height, 1),
            limit=limits.head.ring_height_mm,
        )
        return
    volume = brain_volume_ml(survey)
    low, high = limits.head.brain_volume_ml
    if not low <= volume <= high:
        yield Finding(
            code="NOT-HEAD",
            sentence=(
                "the inside of the vault measures "
                f"{unlike(volume, low if volume < low else high, 0)} ml, {low:g} to {high:g} ml "
                "(head.brain_volume_ml) are expected of a head: send the series of the head"
            ),
            value=round(volume),
            limit=f"{low:g} to {high:g}",
        )
    spread = tissue_spread_hu(survey)
    if spread < limits.head.tissue_spread_hu:
        yield Finding(
            code="NOT-HEAD",
            sentence=(
                "the inside of the skull varies by "
                f"{unlike(spread, limits.head.tissue_spread_hu)} HU, a brain by at least "
                f"{limits.head.tissue_spread_hu:g} HU (head.tissue_spread_hu): fluid, grey and "
                "white matter are not seen, as in a phantom"
            ),
            value=round(spread, 2),
            limit=limits.head.tissue_spread_hu,
        )


def check_upright(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find a head whose top lies where the header says that the feet are.

    The top of a head is a dome: the outermost slice is small. Below, the series ends in the skull
    base, the face or the neck.
    """
    upper, lower = end_shares(survey)
    dome, cut = limits.head.dome_share
    if lower <= dome and upper >= cut:
        yield Finding(
            code="GEOM-ORIENTATION",
            sentence=(
                f"the head is upside down: the slice nearest to the feet shows {100 * lower:.0f} % "
                f"of its largest section, the one farthest from them {100 * upper:.0f} %; the "
                "orientation or the patient's position was written wrongly at the scanner; correct "
                "it there and send the series again"
            ),
            value=round(lower, 3),
            limit=dome,
        )


def end_shares(survey: Survey) -> tuple[float, float]:
    """Return the sections of the uppermost and the lowest slice with head, of the largest one."""
    sections = survey.sections_cm2[survey.occupied]
    if len(sections) == 0:
        return 0.0, 0.0
    first, last = (float(sections[end] / sections.max()) for end in (0, -1))
    return (last, first) if survey.head_first else (first, last)


def least_share(survey: Survey) -> float:
    """Return the smallest section of the largest; 0 where too little is scanned to tell."""
    found = survey.occupied
    height_mm = np.ptp(survey.distances_mm[found]) if len(found) else 0.0
    sections = survey.sections_cm2[found]
    return float(sections.min() / sections.max()) if height_mm >= _TAPER_MM else 0.0


def ring_height_mm(survey: Survey, share: float) -> float:
    """Return the height over which bone is met in at least ``share`` of the directions."""
    rings = np.isfinite(survey.inner_mm[survey.vault]).mean(axis=1)
    return float(survey.heights_mm[survey.vault][rings >= share].sum())


def brain_volume_ml(survey: Survey) -> float:
    """Return what lies inside the inner table of the vault, as far as scanned."""
    areas = survey.cavity_mask.sum(axis=(1, 2)) * survey.pixel_area_mm2
    return float(areas @ survey.heights_mm) / 1000.0


def tissue_spread_hu(survey: Survey) -> float:
    """Return half the distance from the 5th to the 95th percentile of the smoothed brain."""
    smooth = ndimage.uniform_filter(survey.hu, (1, 5, 5))[survey.brain]
    if len(smooth) == 0:
        return 0.0
    low, high = np.percentile(smooth, [5.0, 95.0])
    return float(high - low) / 2.0


def section_cm2(survey: Survey) -> float:
    """Return the largest section of the inside of the skull."""
    if len(survey.cavity) == 0:
        return 0.0
    return float(survey.cavity_mask.sum(axis=(1, 2)).max()) * survey.pixel_area_mm2 / 100.0


def check_size(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find the head of a child by its size; a head cut below its cavity has none."""
    if survey.missing_mm and len(survey.cavity) == 0:
        return
    section, least = section_cm2(survey), limits.head.adult_section_cm2
    if section < least:
        yield Finding(
            code="AGE",
            sentence=(
                "the largest section of the inside of the skull is "
                f"{unlike(section, least, 0)} cm2; an adult's is at least {least:g} cm2 "
                "(head.adult_section_cm2), and the model was made for adults"
            ),
            severity=limits.severity("AGE"),
            value=round(section, 1),
            limit=least,
        )


def check_opening(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find an opening of the vault."""
    area, most = opening_cm2(survey, limits.head.opening_mm), limits.head.opening_cm2
    if area > most:
        yield Finding(
            code="CRANIECTOMY",
            sentence=(
                f"the vault has openings of {unlike(area, most)} cm2 that are wider than "
                f"{limits.head.opening_mm:g} mm (head.opening_mm), at most {most:g} cm2 "
                "(head.opening_cm2) are accepted: part of the skull was removed"
            ),
            severity=limits.severity("CRANIECTOMY"),
            value=round(area, 2),
            limit=most,
        )


def opening_cm2(survey: Survey, width_mm: float) -> float:
    """Return the area of the gaps of the vault that are wider than ``width_mm``."""
    gaps = np.minimum(gaps_mm(survey), _WIDEST_MM)
    return float(gaps[gaps > width_mm] @ survey.heights_mm[survey.vault][gaps > width_mm]) / 100.0


def gaps_mm(survey: Survey) -> MillimetreArray:
    """Return the widest gap of the skull along its circumference, for each slice of the vault."""
    return np.array([_gap_mm(survey.outer_mm[k]) for k in survey.vault])


def _gap_mm(outer_mm: MillimetreArray) -> float:
    missing = ~np.isfinite(outer_mm)
    if missing.all():
        return np.inf
    radius = float(np.nanmedian(outer_mm))
    return _longest_run(missing) * 2.0 * np.pi * radius / len(outer_mm)


def _longest_run(flags: npt.NDArray[np.bool_]) -> int:
    """Return the length of the longest run of true values on a circle that is not all true."""
    breaks = np.flatnonzero(~np.concatenate([flags, flags]))
    return int(np.max(np.diff(breaks), initial=1)) - 1


def check_ends(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find a series that begins above the base of the skull or ends below the top of the head.

    Without its top a head shows no vault where one is looked for, so that this is told first.
    """
    yield from _check_top(survey, limits)
    yield from _check_base(survey, limits)


def _check_top(survey: Survey, limits: Limits) -> Iterator[Finding]:
    top = -1 if survey.head_first else 0
    inside, most = survey.top_cm2, limits.head.top_cm2
    share = float(survey.sections_cm2[top] / survey.sections_cm2.max())
    if inside > most:
        yield _cut_off(
            "the top of the head is cut off: inside the skull the uppermost slice still shows "
            f"{unlike(inside, most, 0)} cm2, at most {most:g} cm2 (head.top_cm2) are expected; "
            "openings of the skull and contrast above it are not seen; send the whole series, up "
            "to the vertex",
            (round(inside, 1), most),
            limits,
        )
    elif share > limits.head.vertex_share:
        yield _cut_off(
            f"the top of the head is cut off: the uppermost slice still shows {100 * share:.0f} % "
            f"of the head's largest section, at most {100 * limits.head.vertex_share:g} % "
            "(head.vertex_share) are expected; send the whole series, up to the vertex",
            (round(share, 3), limits.head.vertex_share),
            limits,
        )


def _check_base(survey: Survey, limits: Limits) -> Iterator[Finding]:
    depth, deepest = float(survey.depths_mm.max()), limits.head.base_depth_mm
    most = limits.head.base_cm2
    if depth > deepest:
        return
    inside = enclosed_cm2(survey, 0 if survey.head_first else -1)
    if inside > most:
        yield _cut_off(
            f"the bottom of the head is cut off: the lowest slice, {depth:.0f} mm below the top of "
            f"the head, still shows {unlike(inside, most, 0)} cm2 of brain; down to {deepest:g} mm "
            f"(head.base_depth_mm) at most {most:g} cm2 (head.base_cm2) are expected; send the "
            "whole series, from the base of the skull",
            (round(inside, 1), most),
            limits,
        )


def _cut_off(sentence: str, value_and_limit: tuple[float, float], limits: Limits) -> Finding:
    value, limit = value_and_limit
    severity = limits.severity("INCOMPLETE")
    return Finding(
        code="INCOMPLETE", sentence=sentence, severity=severity, value=value, limit=limit
    )


def enclosed_cm2(survey: Survey, place: int) -> float:
    """Return the soft tissue of a slice that bone surrounds, gaps of 24 mm closed."""
    radius = np.rint(_CLOSED_MM / np.array(survey.pixel_mm)).astype(int)
    down, across = np.indices(tuple(2 * radius + 1))
    disc = np.hypot((down - radius[0]) / radius[0], (across - radius[1]) / radius[1]) <= 1.0
    hu = survey.hu[place]
    margin = tuple((r + 1, r + 1) for r in radius)
    bone = ndimage.binary_closing(np.pad(survey.head[place] & (hu > _SKULL_HU), margin), disc)
    bone = bone[margin[0][0] : -margin[0][1], margin[1][0] : -margin[1][1]]
    inside = ndimage.binary_fill_holes(bone) & ~bone
    soft = ndimage.binary_opening(inside & (hu > _BRAIN_HU[0]) & (hu < _BRAIN_HU[1]))
    return float(soft.sum()) * survey.pixel_area_mm2 / 100.0
