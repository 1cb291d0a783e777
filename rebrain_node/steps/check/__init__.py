"""Whether the assembled series may be synthesised: identity, geometry, HU scale, a sound head.

The selection judged headers when the study was complete; this judges the very volume that will be
synthesised. Each check is a small function of one coarse survey of it; all numbers are the
clinical lead's limits. Later checks need what earlier ones have found true: on a false HU scale,
upside down, or without a head, their numbers would be noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pydicom.dataset import Dataset

from rebrain_node.domain.arrangement import arrange, judge_arrangement
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.volume import SourceVolume
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.instance.header import axial_instances
from rebrain_node.instance.identity import judge_identity
from rebrain_node.instance.synthetic import synthetic_mark
from rebrain_node.steps.check.artefacts import (
    check_contrast,
    check_metal,
    check_motion,
    check_noise,
)
from rebrain_node.steps.check.head import (
    check_ends,
    check_head,
    check_opening,
    check_size,
    check_upright,
)
from rebrain_node.steps.check.hounsfield import check_padding, check_scale, check_tissues
from rebrain_node.steps.check.ood import check_densities, check_face_direction
from rebrain_node.steps.check.survey import Survey
from rebrain_node.steps.check.watermark import check_watermark

__all__ = ["BASIC_CHECKS", "HEAD_CHECKS", "PRECONDITIONS", "Check", "check", "check_volume"]

Check = Callable[[Survey, Limits], Iterator[Finding]]


def check_instances(survey: Survey, _: Limits) -> Iterator[Finding]:
    """Find instances of two patients or examinations, and synthetic ones."""
    yield from judge_identity(survey.instances)
    marks = [mark for instance in survey.instances if (mark := synthetic_mark(instance))]
    if marks:
        yield Finding(
            code="SRC-SYNTHETIC",
            sentence=f"the series is synthetic ({marks[0]}); only measured images may be used",
            value=float(len(marks)),
            limit=0.0,
        )


def check_geometry(survey: Survey, limits: Limits) -> Iterator[Finding]:
    """Find missing, duplicate, uneven and displaced slices and too great a tilt."""
    volume = survey.volume
    arrangement = arrange(volume.positions_mm, volume.normal, volume.thickness_mm)
    rotations = volume.rotations
    if rotations is not None:
        arrangement = replace(arrangement, phases=rotations.phases)
    yield from judge_arrangement(arrangement, limits.geometry)
    if rotations is not None and rotations.shift_mm:
        yield Finding(
            code="GEOM-PAIRS-RECENTRED",
            sentence=(
                f"the scanner measured {max(rotations.phases) + 1} slices in each rotation; the "
                f"header places them {rotations.shift_mm:.1f} mm beside each other: they were "
                "shifted back in their planes by the outline of the head"
            ),
            severity="flag",
            value=round(rotations.shift_mm, 2),
            limit=limits.geometry.displacement_mm,
        )


#: of every series
BASIC_CHECKS: tuple[Check, ...] = (
    check_instances, check_watermark, check_geometry, check_padding,
)  # fmt: skip
#: after a finding of one of these nothing that follows is judged, but for the tissues of no head
PRECONDITIONS: tuple[Check, ...] = (check_scale, check_upright, check_head)
#: of an upright head on a true scale
HEAD_CHECKS: tuple[Check, ...] = (
    check_ends, check_tissues, check_opening, check_size, check_contrast, check_metal, check_noise,
    check_motion, check_face_direction, check_densities,
)  # fmt: skip


def check(
    volume: SourceVolume, instances: Sequence[Dataset], limits: Limits
) -> tuple[Finding, ...]:
    """Judge the assembled series.

    Parameters
    ----------
    volume : SourceVolume
        Assembled from ``instances``.
    instances : sequence of Dataset
        As received, of one series; scouts among them are not judged.
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
    findings = _findings(Survey(volume, axial_instances(instances)), limits)
    ordered = tuple(sorted(findings, key=lambda finding: finding.severity == "flag"))
    if any(finding.severity == "refuse" for finding in ordered):
        raise SeriesRejectedError(ordered)
    return ordered


def check_volume(volume: SourceVolume, limits: Limits) -> tuple[Finding, ...]:
    """List what the geometry and the pixels of a volume say against or about it."""
    return tuple(_findings(Survey(volume), limits))


def _findings(survey: Survey, limits: Limits) -> Iterator[Finding]:
    for each in BASIC_CHECKS:
        yield from each(survey, limits)
    for precondition in PRECONDITIONS:
        failed = tuple(precondition(survey, limits))
        if failed:
            yield from failed
            yield from check_tissues(survey, limits) if precondition is check_head else ()
            return
    if survey.top_cm2 > limits.head.top_cm2:
        survey = survey.below_the_cut()
    for each in HEAD_CHECKS:
        yield from each(survey, limits)
