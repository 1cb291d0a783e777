"""HU: whether air, brain and bone lie where they belong on a true Hounsfield scale (hazard H12)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rebrain_node.domain.findings import Finding, unlike
from rebrain_node.domain.limits import HounsfieldLimits, Limits
from rebrain_node.domain.volume import FloatArray
from rebrain_node.instance.pixels import TISSUE_HU, padding_as_tissue_hu
from rebrain_node.steps.check.survey import Survey

_BONE_HU = 250.0
#: a peak is known as well from so many values as from all
_ENOUGH_VALUES = 2_000_000
#: grey levels are known from so many values
_COPY_VALUES = 200_000
#: of a copy of 8 bits; fewer are a drawing, and steps of 1 HU are a CT's
_FEWEST_LEVELS, _LEVELS_OF_8_BITS, _COARSE_HU = 48, 256, 2.0
_EVEN_SHARE = 0.6
#: the end of a window holds more of the image than this, and so many times its neighbours' share
_END_SHARE, _NEAR_LEVELS, _NEAR_HU = 0.002, 10, 160.0
#: where the peaks are looked for
_AIR_SEARCH_HU = (-1100.0, -700.0)
_BRAIN_SEARCH_HU = (-200.0, 400.0)


def check_scale(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find values that cannot be HU: no air, wrapped around, not finite.

    Windowed 8-bit data, a missing intercept, a wrong slope and a wrong sign all lose the peak of
    air; a 12-bit wrap turns air into values beyond the densest bone.
    """
    measured = survey.volume.hu[~survey.volume.padding]
    if len(measured) == 0 or not np.isfinite(measured).all():
        yield Finding(
            code="HU",
            sentence="the pixels hold no measured or no finite values; send the original CT",
        )
        return
    accepted = limits.hounsfield
    low, high = accepted.air_hu
    share = float(np.mean((measured >= low) & (measured <= high)))
    if share < accepted.air_share:
        yield Finding(
            code="HU",
            sentence=(
                f"only {unlike(100 * share, 100 * accepted.air_share)} % of the image is air "
                f"({low:g} to {high:g} HU), at least {100 * accepted.air_share:g} % "
                "(hounsfield.air_share) are expected: the values are not Hounsfield units (slope, "
                "intercept, sign, or a windowed copy); send the original CT"
            ),
            value=round(share, 4),
            limit=accepted.air_share,
        )
    else:
        yield from _judge_air(measured, accepted)
    wrapped = float(np.mean(measured > accepted.overflow_hu))
    if wrapped > accepted.overflow_share:
        yield Finding(
            code="HU",
            sentence=(
                f"{unlike(100 * wrapped, 100 * accepted.overflow_share)} % of the image is denser "
                f"than {accepted.overflow_hu:g} HU, at most {100 * accepted.overflow_share:g} % "
                "(hounsfield.overflow_share) are possible: stored values have wrapped around or "
                "their sign is wrong; send the original CT"
            ),
            value=round(wrapped, 4),
            limit=accepted.overflow_share,
        )

    yield from _judge_copy(measured, accepted)


def _judge_copy(measured: FloatArray, limits: HounsfieldLimits) -> Iterator[Finding]:
    """Find a copy that was windowed, or reduced to 8 bits, and stretched back to HU.

    Its values are few and evenly spaced, or many lie at the end of the window and none above.
    """
    values = np.rint(measured[:: max(1, len(measured) // _COPY_VALUES)] * 100.0) / 100.0
    levels, counts = np.unique(values, return_counts=True)
    gaps = np.diff(levels)
    gap = float(np.median(gaps)) if len(gaps) else 0.0
    few = _FEWEST_LEVELS <= len(levels) <= _LEVELS_OF_8_BITS and gap >= _COARSE_HU
    if few and float(np.mean(np.abs(gaps - gap) <= 1.0)) >= _EVEN_SHARE:
        yield Finding(
            code="HU",
            sentence=(
                f"the image holds {len(levels)} grey levels that lie {gap:.1f} HU apart, a CT more "
                f"than {_LEVELS_OF_8_BITS}: it is a copy of 8 bits that was stretched back to HU; "
                "send the original CT"
            ),
            value=float(len(levels)),
            limit=float(_LEVELS_OF_8_BITS),
        )
        return
    end, share = float(levels[-1]), float(counts[-1] / len(values))
    near = levels[-1 - _NEAR_LEVELS : -1]
    dense = len(near) == _NEAR_LEVELS and end - float(near[0]) <= _NEAR_HU
    spike = share > _END_SHARE and counts[-1] >= _NEAR_LEVELS * np.median(counts[-1 - len(near) :])
    if dense and spike and end < limits.overflow_hu:
        yield Finding(
            code="HU",
            sentence=(
                f"{100 * share:.1f} % of the image lies at exactly {end:.0f} HU and nothing above, "
                f"at most {100 * _END_SHARE:g} % are expected: it is a copy that was windowed up "
                f"to {end:.0f} HU; send the original CT"
            ),
            value=round(share, 4),
            limit=_END_SHARE,
        )


def check_padding(survey: Survey, _: Limits) -> Iterator[Finding]:
    """Flag a declared padding value that is as dense as tissue and is not believed."""
    wrong = [hu for i in survey.instances if (hu := padding_as_tissue_hu(i)) is not None]
    if wrong:
        low, high = TISSUE_HU
        yield Finding(
            code="HU-PADDING",
            sentence=(
                f"Pixel Padding Value (0028,0120) is {wrong[0]:.0f} HU, between {low:g} and "
                f"{high:g} HU as tissue is: it is not believed and these pixels count as measured; "
                "correct it at the scanner or archive that writes it"
            ),
            severity="flag",
            value=round(wrong[0]),
            limit=f"outside {low:g} to {high:g}",
        )


def _judge_air(measured: FloatArray, limits: HounsfieldLimits) -> Iterator[Finding]:
    """Find a scale that is shifted as a whole: air has one value, whoever is scanned."""
    step = max(1, len(measured) // _ENOUGH_VALUES)
    air = peak_hu(measured[::step], _AIR_SEARCH_HU)
    if air is not None and not limits.air_hu[0] <= air <= limits.air_hu[1]:
        yield _off("air", air, limits.air_hu)


def check_tissues(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find brain and bone peaks that are not where they belong."""
    brain = peak_hu(survey.hu[survey.brain])
    accepted = limits.hounsfield
    if brain is not None and not accepted.brain_hu[0] <= brain <= accepted.brain_hu[1]:
        yield _off("brain", brain, accepted.brain_hu)
    bone = survey.hu[survey.vault][survey.head[survey.vault] & (survey.hu[survey.vault] > _BONE_HU)]
    if len(bone):
        median = float(np.median(bone))
        if not accepted.bone_hu[0] <= median <= accepted.bone_hu[1]:
            yield _off("bone", median, accepted.bone_hu)


def peak_hu(values: FloatArray, among: tuple[float, float] = _BRAIN_SEARCH_HU) -> float | None:
    """Return the most frequent value of a range of HU, smoothed over 10 HU, or ``None``."""
    counts, edges = np.histogram(values, bins=np.arange(among[0], among[1] + 2.0, 2.0))
    if not counts.any():
        return None
    smooth = np.convolve(counts, np.ones(5), mode="same")
    return float(edges[int(np.argmax(smooth))] + 1.0)


def _off(tissue: str, value: float, limits: tuple[float, float]) -> Finding:
    nearest = limits[0] if value < limits[0] else limits[1]
    return Finding(
        code="HU",
        sentence=(
            f"{tissue} lies at {unlike(value, nearest, 0)} HU, {limits[0]:g} to {limits[1]:g} HU "
            f"(hounsfield.{tissue}_hu) are expected: the values are not Hounsfield units or the "
            "scanner is not calibrated; send the original CT"
        ),
        value=round(value, 1),
        limit=f"{limits[0]:g} to {limits[1]:g}",
    )
