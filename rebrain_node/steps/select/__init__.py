"""Which series of a study is to be synthesised: every series judged, at most one accepted.

Headers only; pixels are the business of ``check``. The order of preference and the tie rule are in
docs/selection.md, every code in docs/refusals.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from pydicom.dataset import Dataset

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.selection import Candidate, Selection
from rebrain_node.instance.identity import judge_persons
from rebrain_node.steps.select.ranking import describe, ranking_key, reason
from rebrain_node.steps.select.rules import judge
from rebrain_node.steps.select.series import Series, series_of

__all__ = ["Candidate", "Selection", "select"]


def select(study: Sequence[Dataset], limits: Limits) -> Selection:
    """Judge every series and accept the best one of each study, if any will do.

    Parameters
    ----------
    study : sequence of Dataset
        Instances of one study, in any order, with or without pixel data. Instances of several
        studies are judged study by study.
    limits : Limits
        The clinical lead's.
    """
    candidates: list[Candidate] = []
    for _, members in groupby(series_of(study), key=lambda series: series.study_instance_uid):
        candidates += _select_in_study(tuple(members), limits)
    return Selection(candidates=tuple(candidates))


def _select_in_study(members: tuple[Series, ...], limits: Limits) -> list[Candidate]:
    persons = judge_persons([i for series in members for i in series.instances])
    findings = {s.series_instance_uid: (*persons, *judge(s, limits)) for s in members}
    fit = [s for s in members if not _refusals(findings[s.series_instance_uid])]
    ranked = sorted(fit, key=lambda series: ranking_key(series, limits))
    return [_candidate(s, findings[s.series_instance_uid], ranked, limits) for s in members]


def _refusals(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(finding for finding in findings if finding.severity == "refuse")


def _candidate(
    series: Series, findings: tuple[Finding, ...], ranked: Sequence[Series], limits: Limits
) -> Candidate:
    explanation = describe(series, limits) if series.frames else ()
    accepted = bool(ranked) and series is ranked[0]
    if series in ranked:
        place = ranked.index(series) + 1
        explanation = (*explanation, f"rank {place} of {len(ranked)} that would do")
        if len(ranked) > 1 and accepted:
            why = reason(ranking_key(series, limits), ranking_key(ranked[1], limits))
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
    why = reason(ranking_key(best, limits), ranking_key(series, limits))
    return Finding(
        code="NOT-PREFERRED",
        sentence=f"the series would do, but another of the study was preferred for {why}",
        value=why,
    )
