"""The rules a series must keep, from its headers; the first finding decides, all are listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from rebrain_node.domain.arrangement import (
    judge_arrangement,
    judge_declared_tilt,
    judge_planes,
)
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits, Range
from rebrain_node.domain.volume import MillimetreArray
from rebrain_node.instance.charset import charset_problem
from rebrain_node.instance.identity import judge_identity
from rebrain_node.instance.synthetic import synthetic_mark
from rebrain_node.steps.select.series import Series, kernel_kind

_CT_SOP_CLASSES = frozenset(
    {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
)
#: axis of the patient (LPS) along which the slices of a plane follow each other
_AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
#: what scanners write into Contrast/Bolus Agent when none was given
_NO_CONTRAST = frozenset(
    {"NO", "NONE", "N", "0", "NO CONTRAST", "WITHOUT", "WO", "W/O", "UNENHANCED"}
)

#: of a CT image (PS3.3 C.8.2.1.1.4)
_LEAST_BITS = 12

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
            sentence=(
                f"the series is synthetic ({marks[0]}); only measured images may be synthesised"
            ),
            value=float(len(marks)),
            limit=0.0,
        )


def _modality(series: Series, _: Limits) -> Iterator[Finding]:
    if any(f.modality != "CT" for f in series.frames):
        yield Finding(
            code="MODALITY",
            sentence="the series is not CT; only CT series are synthesised",
            limit="CT",
        )
    elif any(f.sop_class_uid not in _CT_SOP_CLASSES for f in series.frames):
        yield Finding(
            code="MODALITY",
            sentence=(
                "the series holds objects other than CT images, e.g. a secondary capture or a "
                "dose page"
            ),
            limit="CT Image Storage",
        )


def _localizer(series: Series, _: Limits) -> Iterator[Finding]:
    if any("LOCALIZER" in f.image_type for f in series.frames):
        yield Finding(
            code="LOCALIZER",
            sentence="the series holds localizer images (scout, topogram), not slices",
            value="LOCALIZER",
        )


def _derived(series: Series, _: Limits) -> Iterator[Finding]:
    if any(f.image_type[:2] != ("ORIGINAL", "PRIMARY") for f in series.frames):
        yield Finding(
            code="DERIVED",
            sentence=(
                "the images are not original and primary (Image Type): they were computed from "
                "others, e.g. a reformat, or do not say what they are"
            ),
            limit="ORIGINAL\\PRIMARY",
        )


def _identity(series: Series, _: Limits) -> Iterator[Finding]:
    yield from judge_identity(series.instances)


def _charset(series: Series, _: Limits) -> Iterator[Finding]:
    problems = [p for instance in series.instances if (p := charset_problem(instance))]
    if problems:
        yield Finding(
            code="CHARSET",
            sentence=f"{problems[0]}; a name that cannot be read cannot be copied",
        )


def _size(series: Series, limits: Limits) -> Iterator[Finding]:
    low, high = limits.series.matrix
    sides = [side or 0 for f in series.frames for side in (f.rows, f.columns)]
    odd = [side for side in sides if not low <= side <= high]
    if odd:
        yield Finding(
            code="SIZE",
            sentence=f"an image has {odd[0]} rows or columns; {low:g} to {high:g} are accepted",
            value=float(odd[0]),
            limit=f"{low:g} to {high:g}",
        )
    if len(series.frames) > limits.series.slices[1]:
        yield Finding(
            code="SIZE",
            sentence=(
                f"the number of slices is {len(series.frames)}; at most "
                f"{limits.series.slices[1]:g} are accepted"
            ),
            value=float(len(series.frames)),
            limit=limits.series.slices[1],
        )


def _planes(series: Series, limits: Limits) -> Iterator[Finding]:
    yield from judge_planes(series.frames, limits.geometry)


def _plane(series: Series, limits: Limits) -> Iterator[Finding]:
    normals = [f.normal for f in series.frames if f.normal is not None]
    if not normals:
        return
    angle = _angle_to_plane_deg(normals[0], limits)
    if angle > limits.series.plane_tolerance_deg:
        yield Finding(
            code="GEOM-ORIENTATION",
            sentence=(
                f"the slices are not {limits.series.plane}: their normal is {angle:.0f} degrees "
                f"off, {limits.series.plane_tolerance_deg:g} are accepted"
            ),
            value=round(angle, 1),
            limit=limits.series.plane_tolerance_deg,
        )


def _angle_to_plane_deg(normal: MillimetreArray, limits: Limits) -> float:
    cosine = abs(float(normal[_AXES[limits.series.plane]]))
    return float(np.degrees(np.arccos(min(1.0, cosine))))


def _bits(series: Series, _: Limits) -> Iterator[Finding]:
    """Find copies of fewer bits than a CT image may have (PS3.3 C.8.2.1.1.4: 12 to 16)."""
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
    others = sorted({f.rescale_type for f in series.frames if f.rescale_type} - {"HU"})
    if others:
        yield Finding(
            code="HU-UNIT",
            sentence=(
                f"Rescale Type (0028,1054) says that the values are {_shown(others[0])}, not "
                "Hounsfield units (HU); send the CT series in HU, e.g. not a monoenergetic, "
                "effective-Z or electron density image"
            ),
            value=_shown(others[0]),
            limit="HU",
        )


def _shown(defined_term: str) -> str:
    """A code string as it may stand in a sentence (PS3.5 6.2, CS): nothing but its characters."""
    return "".join(c for c in defined_term.upper() if c.isalnum() or c in "_ ")[:16] or "unknown"


def _head(series: Series, limits: Limits) -> Iterator[Finding]:
    part = (series.first.body_part or "").upper()
    if part and not any(word in part for word in limits.series.body_parts):
        yield Finding(
            code="NOT-HEAD",
            sentence=(
                "Body Part Examined (0018,0015) says that this is not a head; if it is, correct "
                "it at the scanner"
            ),
            limit=", ".join(limits.series.body_parts),
        )
    first, (low, high) = series.first, limits.series.field_of_view_mm
    if first.pixel_spacing_mm and first.rows and first.columns:
        sides = (first.rows * first.pixel_spacing_mm[0], first.columns * first.pixel_spacing_mm[1])
        yield from _outside("NOT-HEAD", "the field of view is", max(sides), (low, high))
    if series.coverage_mm is not None and series.coverage_mm > limits.series.coverage_mm[1]:
        yield from _outside(
            "NOT-HEAD", "the series covers", series.coverage_mm, (0.0, limits.series.coverage_mm[1])
        )


def _outside(code: str, what: str, value: float, accepted: Range) -> Iterator[Finding]:
    if not accepted[0] <= value <= accepted[1]:
        yield Finding(
            code=code,
            sentence=f"{what} {value:.1f} mm; {accepted[0]:g} to {accepted[1]:g} mm are accepted",
            value=round(value, 2),
            limit=f"{accepted[0]:g} to {accepted[1]:g}",
        )


def _kernel(series: Series, limits: Limits) -> Iterator[Finding]:
    kinds = {
        kernel_kind(f.manufacturer, f.convolution_kernel, limits.kernels) for f in series.frames
    }
    if "bone" in kinds:
        yield Finding(
            code="KERNEL",
            sentence=(
                "the series was reconstructed with a sharp kernel (bone, lung); send the "
                "soft-tissue series"
            ),
            value="bone",
            limit="soft",
        )
    elif "unknown" in kinds:
        yield Finding(
            code="KERNEL-UNKNOWN",
            sentence="the reconstruction kernel is not known: a sharp kernel is not excluded",
            severity=limits.severity("KERNEL-UNKNOWN"),
            value="unknown",
            limit="soft",
        )


def _thickness(series: Series, limits: Limits) -> Iterator[Finding]:
    declared = {f.slice_thickness_mm for f in series.frames if f.slice_thickness_mm}
    usual = series.thickness_mm
    for thickness in sorted(declared or ({usual} if usual else set())):
        yield from _outside(
            "THICKNESS", "the slice thickness is", thickness, limits.series.thickness_mm
        )


def _contrast(series: Series, limits: Limits) -> Iterator[Finding]:
    agents = {(f.contrast_agent or "").strip().upper() for f in series.frames} - {""}
    if agents - _NO_CONTRAST:
        yield Finding(
            code="CONTRAST",
            sentence="the header says that contrast agent was given; send the series without it",
            severity=limits.severity("CONTRAST"),
            value="declared",
            limit="none",
        )


def _age(series: Series, limits: Limits) -> Iterator[Finding]:
    """Judge the declared age; 0 is what de-identification leaves, the skull tells a newborn."""
    age, (low, high) = series.first.patient_age_years, limits.series.age_years
    if age and not low <= age <= high:
        yield Finding(
            code="AGE",
            sentence=(
                f"the patient's age is outside {low:g} to {high:g} years, for which the model "
                "was made"
            ),
            severity=limits.severity("AGE"),
            limit=f"{low:g} to {high:g}",
        )


def _count(series: Series, limits: Limits) -> Iterator[Finding]:
    if len(series.frames) < limits.series.slices[0]:
        yield Finding(
            code="TOO-FEW",
            sentence=(
                f"the number of slices is {len(series.frames)}; at least "
                f"{limits.series.slices[0]:g} are needed"
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
                f"the series covers {series.coverage_mm:.1f} mm of the head; at least {least:g} mm "
                "are needed to be called complete"
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
                f"the instance numbers begin at {min(numbers)}: slices at an end of the series "
                "may be missing"
            ),
            severity=limits.severity("INCOMPLETE"),
            value=float(min(numbers)),
            limit=1.0,
        )


RULES: tuple[Rule, ...] = (
    _synthetic, _modality, _localizer, _derived, _identity, _charset, _size, _bits, _unit,
    _planes, _plane, _arrangement, _kernel, _thickness, _head, _count, _contrast, _age, _coverage,
)  # fmt: skip
