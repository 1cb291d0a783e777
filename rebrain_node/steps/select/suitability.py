"""Rules on what was scanned and how: kernel, thickness, body part, extent, contrast, age."""

from __future__ import annotations

from collections.abc import Iterator

from rebrain_node.domain.age import ages_disagree
from rebrain_node.domain.body_part import read_body_part
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits, Range
from rebrain_node.steps.select.series import Series

#: evidence that the site's policy decides on
_CONTRAST = {
    "given": "contrast was given",
    "described": "the series is described as one with contrast",
}


def judge_kernel(series: Series, limits: Limits) -> Iterator[Finding]:
    """Find sharp kernels, and kernels that no rule knows."""
    kind = series.kernel_kind(limits)
    if kind == "bone":
        yield Finding(
            code="KERNEL",
            sentence=(
                "the series was reconstructed with a sharp kernel (bone, lung) by the kernels of "
                "limits.toml; send the soft-tissue series"
            ),
            value="bone",
            limit="soft",
        )
    elif kind == "unknown":
        yield Finding(
            code="KERNEL-UNKNOWN",
            sentence=(
                "the reconstruction kernel (0018,1210) is not among the kernels of limits.toml: a "
                "sharp kernel is not excluded; add it there (policy.KERNEL-UNKNOWN decides until "
                "then)"
            ),
            severity=limits.severity("KERNEL-UNKNOWN"),
            value="unknown",
            limit="soft",
        )


def judge_thickness(series: Series, limits: Limits) -> Iterator[Finding]:
    """Find slices thinner or thicker than the model learned."""
    declared = {f.slice_thickness_mm for f in series.frames if f.slice_thickness_mm}
    usual = series.thickness_mm
    for thickness in sorted(declared or ({usual} if usual else set())):
        yield from _outside(
            "THICKNESS",
            "the slice thickness is",
            thickness,
            (limits.series.thickness_mm, "series.thickness_mm", "send the thick-slice series"),
        )


def judge_body_part(series: Series, limits: Limits) -> Iterator[Finding]:
    """Find another part of the body; a word that is not known is left to the pixels."""
    part, word = read_body_part(series.first.body_part, limits.series.body_parts)
    words = ", ".join(limits.series.body_parts)
    if part == "other":
        yield Finding(
            code="NOT-HEAD",
            sentence=(
                f"Body Part Examined (0018,0015) says {word}, not one of {words} "
                "(series.body_parts of limits.toml); if it is a head, correct it at the scanner"
            ),
            value=word,
            limit=words,
        )
    elif part == "unknown":
        yield Finding(
            code="BODY-PART",
            sentence=(
                "Body Part Examined (0018,0015) holds a word that is not known; the pixels tell "
                "whether it is a head. If it is the word of your site for a head, add it to "
                f"series.body_parts of limits.toml ({words})"
            ),
            severity="flag",
            value="unknown",
            limit=words,
        )


def judge_extent(series: Series, limits: Limits) -> Iterator[Finding]:
    """Find a field of view or a length that no head has."""
    first = series.first
    if first.pixel_spacing_mm and first.rows and first.columns:
        sides = (first.rows * first.pixel_spacing_mm[0], first.columns * first.pixel_spacing_mm[1])
        yield from _outside(
            "NOT-HEAD",
            "the field of view is",
            max(sides),
            (
                limits.series.field_of_view_mm,
                "series.field_of_view_mm",
                "send the reconstruction of the head",
            ),
        )
    longest = limits.series.coverage_mm[1]
    if series.coverage_mm is not None:
        yield from _outside(
            "NOT-HEAD",
            "the series covers",
            series.coverage_mm,
            ((0.0, longest), "series.coverage_mm", "send a series of the head alone"),
        )


def judge_contrast(series: Series, limits: Limits) -> Iterator[Finding]:
    """Judge what the elements and descriptions say of contrast (`domain.contrast`)."""
    reading = series.contrast
    if reading.evidence in _CONTRAST:
        yield Finding(
            code="CONTRAST",
            sentence=(
                f"{reading.words}: {_CONTRAST[reading.evidence]}; send the series without "
                "contrast, or let policy.CONTRAST of limits.toml flag such series"
            ),
            severity=limits.severity("CONTRAST"),
            value=reading.evidence,
            limit="none",
        )
    elif reading.evidence == "doubtful":
        yield Finding(
            code="CONTRAST",
            sentence=(
                f"{reading.words}: whether contrast was given is not certain; the vessels are "
                "judged from the pixels, and the entry should be corrected at the scanner"
            ),
            severity="flag",
            value="doubtful",
            limit="none",
        )


def judge_age(series: Series, limits: Limits) -> Iterator[Finding]:
    """Judge the age, declared or from the birth date; the skull is judged from the pixels."""
    age, (low, high) = series.first.patient_age_years, limits.series.age_years
    since_birth = series.first.years_since_birth
    made_for = f"the model was made for {low:g} to {high:g} years (series.age_years of limits.toml"
    if age is None:
        yield Finding(
            code="AGE-UNKNOWN",
            sentence=(
                "neither Patient's Age (0010,1010) nor Patient's Birth Date (0010,0030) says how "
                f"old the patient is; {made_for}): make sure of it (policy.AGE-UNKNOWN)"
            ),
            severity=limits.severity("AGE-UNKNOWN"),
            value="unknown",
            limit=f"{low:g} to {high:g}",
        )
        return
    if since_birth is not None and ages_disagree(age, since_birth):
        yield Finding(
            code="AGE-UNKNOWN",
            sentence=(
                f"Patient's Age (0010,1010) says that the patient is {_years(age)}, Patient's "
                f"Birth Date (0010,0030) {_years(since_birth)}: correct the wrong one at the "
                "source (policy.AGE-UNKNOWN)"
            ),
            severity=limits.severity("AGE-UNKNOWN"),
            value="contradictory",
            limit=f"{low:g} to {high:g}",
        )
    # a birth date long ago is what de-identification writes; one of a child is believed
    judged = since_birth if since_birth is not None and since_birth < low else age
    if not low <= judged <= high:
        yield Finding(
            code="AGE",
            sentence=(
                f"the patient is {_years(judged)}; {made_for}; policy.AGE decides whether such a "
                "series is refused)"
            ),
            severity=limits.severity("AGE"),
            value=_years(judged),
            limit=f"{low:g} to {high:g}",
        )


def _years(age: float) -> str:
    """An age as it may stand in an audit log: in full years, above 89 as one group."""
    return "90 years or older" if age >= 90.0 else f"{int(age)} years old"


def _outside(
    code: str, what: str, value: float, accepted: tuple[Range, str, str]
) -> Iterator[Finding]:
    """Find a length outside (range, its key of the limits, what to do)."""
    (low, high), key, remedy = accepted
    if not low <= value <= high:
        yield Finding(
            code=code,
            sentence=(
                f"{what} {value:.1f} mm; {low:g} to {high:g} mm ({key} of limits.toml) are "
                f"accepted; {remedy}"
            ),
            value=round(value, 2),
            limit=f"{low:g} to {high:g}",
        )
