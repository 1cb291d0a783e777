"""The rules a series must keep, from its headers; the first finding decides, all are listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rebrain_node.domain.arrangement import (
    judge_arrangement,
    judge_declared_tilt,
    judge_planes,
)
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.image_type import shown
from rebrain_node.domain.limits import Limits
from rebrain_node.instance.charset import charset_problem
from rebrain_node.instance.identity import judge_identity, judge_named
from rebrain_node.instance.synthetic import synthetic_mark
from rebrain_node.steps.select.kinds import (
    judge_derived,
    judge_energy,
    judge_image_type,
    judge_localizer,
    judge_modality,
    judge_temporal,
    plane_angle_deg,
)
from rebrain_node.steps.select.series import Series
from rebrain_node.steps.select.suitability import (
    judge_age,
    judge_body_part,
    judge_contrast,
    judge_extent,
    judge_kernel,
    judge_thickness,
)

#: of a CT image (PS3.3 C.8.2.1.1.5)
_LEAST_BITS = 12
#: of Rescale Type, in capitals; HU is the defined term (PS3.3 C.11.1.1.2)
_HOUNSFIELD = frozenset({"HU", "HOUNSFIELD", "HOUNSFIELD UNIT", "HOUNSFIELD UNITS"})

Rule = Callable[[Series, Limits], Iterator[Finding]]


def judge(series: Series, limits: Limits) -> tuple[Finding, ...]:
    """List all findings of a series: those that refuse before those that flag, in rule order."""
    if not series.frames:
        return (_no_frames(),)
    found = [finding for rule in RULES for finding in rule(series, limits)]
    return tuple(sorted(found, key=lambda finding: finding.severity == "flag"))


def _no_frames() -> Finding:
    return Finding(code="TOO-FEW", sentence="the series holds no image", value=0.0)


def _synthetic(series: Series, _: Limits) -> Iterator[Finding]:
    marks = [mark for instance in series.instances if (mark := synthetic_mark(instance))]
    if marks:
        yield Finding(
            code="SRC-SYNTHETIC",
            sentence=(f"the series is synthetic ({marks[0]}); send the measured CT"),
            value=float(len(marks)),
            limit=0.0,
        )


def _identity(series: Series, _: Limits) -> Iterator[Finding]:
    yield from judge_identity(series.axial_instances)
    yield from judge_named(series.axial_instances)


def _charset(series: Series, _: Limits) -> Iterator[Finding]:
    problems = [p for instance in series.instances if (p := charset_problem(instance))]
    if problems:
        yield Finding(
            code="CHARSET",
            sentence=f"{problems[0]}; it cannot be copied, so correct it at the sender",
            value=float(len(problems)),
            limit=0.0,
        )


def _size(series: Series, limits: Limits) -> Iterator[Finding]:
    low, high = limits.series.matrix
    sides = [side or 0 for f in series.frames for side in (f.rows, f.columns)]
    odd = [side for side in sides if not low <= side <= high]
    if odd:
        yield Finding(
            code="SIZE",
            sentence=f"an image has {odd[0]} rows or columns; {low:g} to {high:g} are accepted "
            "(series.matrix of limits.toml); check what the sender wrote",
            value=float(odd[0]),
            limit=f"{low:g} to {high:g}",
        )
    if len(series.frames) > limits.series.slices[1]:
        yield Finding(
            code="SIZE",
            sentence=(
                f"the number of slices is {len(series.frames)}; at most "
                f"{limits.series.slices[1]:g} are accepted (series.slices of limits.toml); send "
                "the thick-slice series"
            ),
            value=float(len(series.frames)),
            limit=limits.series.slices[1],
        )


def _planes(series: Series, limits: Limits) -> Iterator[Finding]:
    yield from judge_planes(series.frames, limits.geometry)


def _plane(series: Series, limits: Limits) -> Iterator[Finding]:
    angle = plane_angle_deg(series, limits)
    if angle is not None and angle > limits.series.plane_tolerance_deg:
        yield Finding(
            code="GEOM-ORIENTATION",
            sentence=(
                f"the slices are not {limits.series.plane}: their normal is {angle:.0f} degrees "
                f"off, {limits.series.plane_tolerance_deg:g} (series.plane_tolerance_deg of "
                f"limits.toml) are accepted; send the {limits.series.plane} series"
            ),
            value=round(angle, 1),
            limit=limits.series.plane_tolerance_deg,
        )


def _bits(series: Series, _: Limits) -> Iterator[Finding]:
    """Find copies of fewer bits than a CT image may have (PS3.3 C.8.2.1.1.5: 12 to 16)."""
    least = min((f.bits_stored for f in series.frames if f.bits_stored is not None), default=None)
    if least is not None and least < _LEAST_BITS:
        yield Finding(
            code="HU",
            sentence=(
                f"an image stores {least} bits a pixel (Bits Stored), Hounsfield units need at "
                f"least {_LEAST_BITS}: it is a windowed copy; send the original CT"
            ),
            value=float(least),
            limit=float(_LEAST_BITS),
        )


def _unit(series: Series, _: Limits) -> Iterator[Finding]:
    """Find values in another unit than HU; absent means HU (PS3.3 C.8.2.1, Rescale Type 1C)."""
    others = sorted({f.rescale_type for f in series.frames if f.rescale_type} - _HOUNSFIELD)
    if others:
        yield Finding(
            code="HU-UNIT",
            sentence=(
                f"Rescale Type (0028,1054) says that the values are {shown(others[0])}, not "
                "Hounsfield units (HU); send the CT series in HU, e.g. not a monoenergetic, "
                "effective-Z or electron density image"
            ),
            value=shown(others[0]),
            limit="HU",
        )


def _count(series: Series, limits: Limits) -> Iterator[Finding]:
    if len(series.frames) < limits.series.slices[0]:
        yield Finding(
            code="TOO-FEW",
            sentence=(
                f"the number of slices is {len(series.frames)}; at least "
                f"{limits.series.slices[0]:g} are needed (series.slices of limits.toml); send the "
                "whole series"
            ),
            value=float(len(series.frames)),
            limit=limits.series.slices[0],
        )


def _arrangement(series: Series, limits: Limits) -> Iterator[Finding]:
    yield from series.passes
    if any(finding.severity == "refuse" for finding in series.passes):
        return  # what follows would speak of gaps and repeats that are none
    if series.arrangement is not None and len(series.frames) > 1:
        yield from judge_arrangement(series.arrangement, limits.geometry)
        yield from judge_declared_tilt(series.frames, series.arrangement)


def _coverage(series: Series, limits: Limits) -> Iterator[Finding]:
    least = limits.series.coverage_mm[0]
    if series.coverage_mm is not None and series.coverage_mm < least:
        yield Finding(
            code="INCOMPLETE",
            sentence=(
                f"the series covers {series.coverage_mm:.1f} mm along its normal; {least:g} mm "
                "(series.coverage_mm of limits.toml) make a whole head; send the whole series"
            ),
            severity=limits.severity("INCOMPLETE"),
            value=round(series.coverage_mm, 1),
            limit=least,
        )
    numbers = [f.instance_number for f in series.frames if f.instance_number is not None]
    if len(numbers) == len(series.frames) and min(numbers) > 1:
        yield Finding(
            code="INCOMPLETE",
            sentence=(
                f"the instance numbers begin at {min(numbers)}, not at 1: slices at an end of the "
                "series may be missing; compare with the scanner and send what is missing"
            ),
            severity=limits.severity("INCOMPLETE"),
            value=float(min(numbers)),
            limit=1.0,
        )


RULES: tuple[Rule, ...] = (
    _synthetic, judge_modality, judge_localizer, judge_derived, judge_image_type, judge_energy,
    judge_temporal, _identity, _charset, _size, _bits, _unit, _planes, _plane, _arrangement,
    judge_kernel, judge_thickness, judge_body_part, judge_extent, _count, judge_contrast,
    judge_age, _coverage,
)  # fmt: skip
