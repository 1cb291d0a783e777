"""Whether the assembled series may be synthesised: identity, geometry, HU scale, domain.

The selection judged headers when the study was complete; this judges the very volume that will be
synthesised. Each gate is a small function over the volume or one coarse survey of it; all numbers
are the clinical lead's limits. Later gates need what earlier ones have found true: on a false HU
scale, or without a head, the rest would be noise and is not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from pydicom.dataset import Dataset

from rebrain_node.domain.arrangement import arrange, judge_arrangement
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.volume import SourceVolume
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.instance.identity import judge_identity
from rebrain_node.instance.synthetic import synthetic_mark
from rebrain_node.steps.check.artefacts import (
    judge_contrast,
    judge_metal,
    judge_motion,
    judge_noise,
)
from rebrain_node.steps.check.domain import judge_domain, judge_turn
from rebrain_node.steps.check.head import judge_head, judge_size, judge_upright, judge_vertex
from rebrain_node.steps.check.hounsfield import judge_scale, judge_tissues
from rebrain_node.steps.check.skull import judge_opening
from rebrain_node.steps.check.survey import Survey, survey

__all__ = ["GATES", "Gate", "check", "judge_volume"]

Gate = Callable[[SourceVolume, Survey, Limits], Iterator[Finding]]

#: what is judged of a head on a true scale, in this order
GATES: Mapping[str, Gate] = {
    "tissues": lambda _, look, limits: judge_tissues(look, limits.hounsfield),
    "opening": lambda _, look, limits: judge_opening(look, limits),
    "size": lambda _, look, limits: judge_size(look, limits),
    "contrast": lambda _, look, limits: judge_contrast(look, limits),
    "metal": judge_metal,
    "noise": judge_noise,
    "motion": lambda _, look, limits: judge_motion(look, limits),
    "vertex": lambda _, look, limits: judge_vertex(look, limits),
    "turn": lambda _, look, limits: judge_turn(look, limits),
    "domain": lambda _, look, limits: judge_domain(look, limits),
}


def check(
    volume: SourceVolume, instances: Sequence[Dataset], limits: Limits
) -> tuple[Finding, ...]:
    """Judge the assembled series.

    Parameters
    ----------
    volume : SourceVolume
        Assembled from ``instances``.
    instances : sequence of Dataset
        As received, of one series.
    limits : Limits
        The clinical lead's.

    Returns
    -------
    tuple of Finding
        Flags with which the result is published.

    Raises
    ------
    SeriesRejectedError
        The series must not be synthesised; all findings are listed, refusals first.
    """
    findings = (*_judge_instances(instances), *judge_volume(volume, limits))
    ordered = tuple(sorted(findings, key=lambda finding: finding.severity == "flag"))
    if any(finding.severity == "refuse" for finding in ordered):
        raise SeriesRejectedError(ordered)
    return ordered


def _judge_instances(instances: Sequence[Dataset]) -> Iterator[Finding]:
    yield from judge_identity(instances)
    marks = [mark for instance in instances if (mark := synthetic_mark(instance))]
    if marks:
        yield Finding(
            code="SRC-SYNTHETIC",
            sentence=f"the series is synthetic ({marks[0]}); only measured images may be used",
            value=float(len(marks)),
            limit=0.0,
        )


def judge_volume(volume: SourceVolume, limits: Limits) -> tuple[Finding, ...]:
    """List what the geometry and the pixels of a volume say against or about it."""
    arrangement = arrange(volume.positions_mm, volume.normal, volume.thickness_mm)
    geometry = judge_arrangement(arrangement, limits.geometry)
    scale = tuple(judge_scale(volume, limits.hounsfield))
    if scale:
        return (*geometry, *scale)
    look = survey(volume)
    upright = tuple(judge_upright(look, limits))
    if upright:
        return (*geometry, *upright)
    head = tuple(judge_head(look, limits))
    if head:
        return (*geometry, *head, *judge_tissues(look, limits.hounsfield))
    found = (finding for gate in GATES.values() for finding in gate(volume, look, limits))
    return (*geometry, *found)
