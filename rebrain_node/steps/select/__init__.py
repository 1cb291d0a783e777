"""Which series of a study is to be synthesised: every series judged, at most one accepted.

Headers only; pixels are judged by ``check``. The order of preference and the tie rule are in
docs/selection.md, every code in docs/refusals.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from pydicom.dataset import Dataset

from rebrain_node.domain.body_part import read_body_part
from rebrain_node.domain.contrast import ContrastReading
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.selection import Candidate, Selection
from rebrain_node.instance.identity import judge_patients
from rebrain_node.steps.select.rules import judge
from rebrain_node.steps.select.series import Series, series_of

__all__ = ["PREFERENCES", "Candidate", "Selection", "select"]

#: coverage is compared in steps of this, as far as a whole head needs it
_COVERAGE_STEP_MM = 10.0
_WHOLE_HEAD_MM = 130.0

#: what each item of the ranking key compares, and how
PREFERENCES: Mapping[str, str] = {
    "a whole head": "at least `series.coverage_mm` over less",
    "original images": "over a reformat that the site's policy lets pass",
    "a soft-tissue kernel": "over an unknown one; sharp kernels are refused",
    "no contrast by an element of the header": "over contrast that the site's policy lets pass",
    "the longer coverage": (
        "centre to centre, in steps of 10 mm, up to 130 mm: a whole head is a whole head"
    ),
    "no words for contrast": "in the descriptions, and no elements that contradict each other",
    "a body part that says head": "over none and over an unknown word",
    "the preferred thickness": "thick or thin, as `series.prefer` says",
    "more slices": "by number",
    "the lower series number": "a series without a number comes last",
    "the lower series UID": (
        "as text: ties end here, so the choice never depends on the order of arrival"
    ),
}

_Key = tuple[bool, bool, bool, bool, float, bool, bool, float, int, int, str]


def select(
    study: Sequence[Dataset], limits: Limits, unfit: Mapping[str, Sequence[Finding]] | None = None
) -> Selection:
    """Judge every series and accept the best one of each study, if any will do.

    Parameters
    ----------
    study : sequence of Dataset
        Instances of one study, in any order, with or without pixel data. Instances of several
        studies are judged study by study.
    limits : Limits
        The clinical lead's.
    unfit : mapping of str to sequence of Finding, optional
        Series that were accepted before and then refused by the check of their volume, by UID,
        with its findings: they make way for the next that will do.
    """
    candidates: list[Candidate] = []
    for _, members in groupby(
        series_of(study, limits.geometry), key=lambda series: series.study_instance_uid
    ):
        candidates += _select_in_study(tuple(members), limits, unfit or {})
    return Selection(candidates=tuple(candidates))


def _select_in_study(
    members: tuple[Series, ...], limits: Limits, unfit: Mapping[str, Sequence[Finding]]
) -> list[Candidate]:
    patients = judge_patients([i for series in members for i in series.instances])
    findings = {
        s.series_instance_uid: _refusals_first((*patients, *judge(s, limits))) for s in members
    }
    fit = [s for s in members if not _refusals(findings[s.series_instance_uid])]
    ranked = sorted(fit, key=lambda series: _ranking_key(series, limits))
    made_way = [s for s in ranked if s.series_instance_uid in unfit]
    ranked = [s for s in ranked if s.series_instance_uid not in unfit]
    findings |= {s.series_instance_uid: tuple(unfit[s.series_instance_uid]) for s in made_way}
    if ranked:
        uid = ranked[0].series_instance_uid
        reasons = [_second_choice(s, findings[s.series_instance_uid]) for s in made_way]
        findings[uid] = (*reasons, *findings[uid])
    return [_candidate(s, findings[s.series_instance_uid], ranked, limits) for s in members]


def _refusals_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.severity == "flag"))


def _refusals(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(finding for finding in findings if finding.severity == "refuse")


def _candidate(
    series: Series, findings: tuple[Finding, ...], ranked: Sequence[Series], limits: Limits
) -> Candidate:
    explanation = _description(series, limits) if series.frames else ()
    accepted = bool(ranked) and series is ranked[0]
    if series in ranked:
        place = ranked.index(series) + 1
        explanation = (*explanation, f"rank {place} of {len(ranked)} that would do")
        if len(ranked) > 1 and accepted:
            why = _reason(_ranking_key(series, limits), _ranking_key(ranked[1], limits))
            explanation = (*explanation, f"preferred for {why}")
        if not accepted:
            findings = (_not_preferred(series, ranked[0], limits), *findings)
    return Candidate(
        study_instance_uid=series.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        series_description=(series.first.series_description or "") if series.frames else "",
        instances=len(series.instances),
        decision="accepted" if accepted else "refused",
        findings=findings,
        explanation=explanation,
    )


def _not_preferred(series: Series, best: Series, limits: Limits) -> Finding:
    why = _reason(_ranking_key(best, limits), _ranking_key(series, limits))
    return Finding(
        code="NOT-PREFERRED",
        sentence=(
            f"the series would do, but {_named(best)} of the study was preferred for {why}; "
            "nothing is to be done"
        ),
        value=why,
    )


def _named(series: Series) -> str:
    number = series.first.series_number
    return "another series" if number is None else f"series {number}"


def _second_choice(preferred: Series, findings: Sequence[Finding]) -> Finding:
    why = next((f for f in findings if f.severity == "refuse"), None)
    reason = "for a reason that is not kept" if why is None else f"as {why.code}: {why.sentence}"
    return Finding(
        code="SECOND-CHOICE",
        sentence=f"{_named(preferred)} of the study was tried first and was refused {reason}",
        severity="flag",
        value="" if why is None else why.code,
    )


def _ranking_key(series: Series, limits: Limits) -> _Key:
    """Return the key by which series are sorted, best first."""
    first = series.first
    body_part, _ = read_body_part(first.body_part, limits.series.body_parts)
    thickness = series.thickness_mm or 0.0
    number = first.series_number
    return (
        (series.coverage_mm or 0.0) < limits.series.coverage_mm[0],
        not series.original,
        series.kernel_kind(limits) != "soft",
        series.contrast.evidence == "given",
        -(min(series.span_mm, _WHOLE_HEAD_MM) // _COVERAGE_STEP_MM),
        series.contrast.evidence in {"described", "doubtful"},
        body_part != "head",
        -thickness if limits.series.prefer == "thick" else thickness,
        -len(series.frames),
        number if number is not None else 1 << 31,
        series.series_instance_uid,
    )


def _reason(better: _Key, worse: _Key) -> str:
    """Name the first preference by which one series ranks before another."""
    differing = (name for name, a, b in zip(PREFERENCES, better, worse, strict=True) if a != b)
    return next(differing, list(PREFERENCES)[-1])


def _description(series: Series, limits: Limits) -> tuple[str, ...]:
    """Say what was seen in the headers: numbers and our own words only."""
    lines = [f"slices: {len(series.frames)}, instances: {len(series.instances)}"]
    if series.coverage_mm is not None:
        lines.append(f"covers {series.coverage_mm:.1f} mm along its normal")
    if series.thickness_mm is not None:
        lines.append(f"slice thickness {series.thickness_mm:g} mm")
    if series.tilt_deg >= 0.1:
        lines.append(f"gantry tilt {series.tilt_deg:.1f} degrees, corrected exactly")
    lines.append(f"kernel: {series.kernel_kind(limits)}")
    lines.append(_contrast_line(series.contrast))
    return tuple(lines)


def _contrast_line(contrast: ContrastReading) -> str:
    if contrast.evidence == "silent":
        return "no contrast declared"
    if contrast.evidence == "none":
        return f"no contrast declared: {contrast.words}"
    return f"contrast {contrast.evidence}: {contrast.words}"
