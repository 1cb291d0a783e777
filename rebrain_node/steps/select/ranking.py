"""Which of the series that would do is the best, and why: a documented order of preferences."""

from __future__ import annotations

from rebrain_node.domain.limits import Limits
from rebrain_node.steps.select.kernel import kernel_kind
from rebrain_node.steps.select.series import Series

#: coverage is compared in steps of this, as far as a whole head needs it
_COVERAGE_STEP_MM = 10.0
_WHOLE_HEAD_MM = 130.0

#: what each place of the key compares; docs/selection.md says the same
PREFERENCES = (
    "a soft-tissue kernel",
    "no contrast declared",
    "a body part that says head",
    "the longer coverage",
    "the preferred thickness",
    "more slices",
    "the lower series number",
    "the lower series UID",
)

Key = tuple[int, int, int, float, float, int, int, str]


def ranking_key(series: Series, limits: Limits) -> Key:
    """Return the key by which series are sorted, best first."""
    first = series.first
    kind = kernel_kind(first.manufacturer, first.convolution_kernel, limits.kernels)
    thickness = series.thickness_mm or 0.0
    number = first.series_number
    return (
        0 if kind == "soft" else 1,
        0 if first.contrast_agent is None else 1,
        0 if first.body_part else 1,
        -(min(series.span_mm, _WHOLE_HEAD_MM) // _COVERAGE_STEP_MM),
        -thickness if limits.series.prefer == "thick" else thickness,
        -len(series.frames),
        number if number is not None else 1 << 31,
        series.series_instance_uid,
    )


def reason(better: Key, worse: Key) -> str:
    """Name the first preference by which one series ranks before another."""
    differing = (name for name, a, b in zip(PREFERENCES, better, worse, strict=True) if a != b)
    return next(differing, PREFERENCES[-1])


def describe(series: Series, limits: Limits) -> tuple[str, ...]:
    """Say what was seen in the headers: numbers and our own words only."""
    first = series.first
    kind = kernel_kind(first.manufacturer, first.convolution_kernel, limits.kernels)
    lines = [f"slices: {len(series.frames)}, instances: {len(series.instances)}"]
    if series.coverage_mm is not None:
        lines.append(f"covers {series.coverage_mm:.1f} mm along its normal")
    if series.thickness_mm is not None:
        lines.append(f"slice thickness {series.thickness_mm:g} mm")
    if series.tilt_deg >= 0.1:
        lines.append(f"gantry tilt {series.tilt_deg:.1f} degrees, corrected exactly")
    lines.append(f"kernel: {kind}")
    lines.append("contrast declared" if first.contrast_agent else "no contrast declared")
    return tuple(lines)
