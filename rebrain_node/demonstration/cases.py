"""Studies that are judged but not synthesised: each is right in one point or wrong in one.

They are scans of the shipped head, or copies of one with other headers. Whether a study is refused
for its headers is judged from copies without pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from rebrain_node.demonstration.study import (
    STRAIGHT,
    TWO_THICKNESSES,
    Head,
    simulate_study,
)
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import Limits
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.pipeline import judge_study
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.check import check

Instances = Sequence[Dataset]


@dataclass(frozen=True, kw_only=True)
class DemoCase:
    """One study and its right answer."""

    name: str  #: what it is, for the table
    right: str  #: ``taken``, ``taken: CODE`` (a flag) or ``refused: CODE``
    instances: tuple[Dataset, ...]


@dataclass(frozen=True, kw_only=True)
class CaseVerdict:
    """What the node says of a study."""

    text: str  #: in the form of `DemoCase.right`
    sentence: str


def demo_cases(head: Head) -> tuple[DemoCase, ...]:
    """Make the studies, in the order of the table: those that are taken first."""
    straight = simulate_study(STRAIGHT, head).instances
    two = simulate_study(TWO_THICKNESSES, head).instances
    bare = tuple(map(_without_pixels, straight))
    return (
        DemoCase(name="thick slices, no tilt", right="taken", instances=straight),
        DemoCase(name="slices of two thicknesses", right="taken", instances=two),
        DemoCase(
            name="axial reformat",
            right="taken: DERIVED",
            instances=_copies(straight, _reformat),
        ),
        DemoCase(
            name="words of another vendor",
            right="taken",
            instances=_copies(straight, _another_vendor),
        ),
        DemoCase(
            name="top of the head missing",
            right="taken: INCOMPLETE",
            instances=_copies(straight[: len(straight) * 3 // 5]),
        ),
        DemoCase(
            name="electron density, not HU",
            right="refused: HU-UNIT",
            instances=_copies(bare, _electron_density),
        ),
        DemoCase(
            name="contrast given", right="refused: CONTRAST", instances=_copies(bare, _contrast)
        ),
        DemoCase(name="child of 8 years", right="refused: AGE", instances=_copies(bare, _child)),
        DemoCase(
            name="no patient named",
            right="refused: ID-EMPTY",
            instances=_copies(bare, _nameless),
        ),
        DemoCase(
            name="two passes in one series",
            right="refused: GEOM-TWO-PASSES",
            instances=_two_passes(bare),
        ),
    )


def judge_case(instances: Instances, limits: Limits) -> CaseVerdict:
    """Judge a study as the node does, without synthesising it.

    From the headers; where these speak for it, the volume too.
    """
    candidates = judge_study(instances, limits).candidates
    accepted = [candidate for candidate in candidates if candidate.decision == "accepted"]
    if not accepted:
        return _refused(max(candidates, key=lambda each: each.instances).findings)
    chosen = [i for i in instances if str(i.SeriesInstanceUID) == accepted[0].series_instance_uid]
    try:
        flags = check(assemble(chosen, limits.geometry), chosen, limits)
    except SeriesRejectedError as error:
        return _refused(error.findings)
    findings = (*accepted[0].findings, *flags)
    codes = ", ".join(dict.fromkeys(finding.code for finding in findings))
    return CaseVerdict(
        text=f"taken: {codes}" if codes else "taken",
        sentence=findings[0].sentence if findings else accepted[0].sentence,
    )


def _refused(findings: Sequence[Finding]) -> CaseVerdict:
    return CaseVerdict(text=f"refused: {findings[0].code}", sentence=findings[0].sentence)


def _without_pixels(instance: Dataset) -> Dataset:
    bare = Dataset({e.tag: e for e in instance if e.keyword != "PixelData"})
    bare.file_meta = instance.file_meta
    return bare


def _copies(
    instances: Instances, change: Callable[[Dataset], None] | None = None
) -> tuple[Dataset, ...]:
    """Copy instances under new Study, Series, SOP Instance and Frame of Reference UIDs."""
    new: dict[str, str] = {}
    copies = tuple(deepcopy(instance) for instance in instances)
    for copy in copies:
        for keyword in (
            "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID",
        ):  # fmt: skip
            old = str(copy[keyword].value)
            setattr(copy, keyword, new.setdefault(old, generate_uid()))
        copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
        if change is not None:
            change(copy)
    return copies


def _reformat(instance: Dataset) -> None:
    """As Philips scanners write their everyday axial series of a head."""
    instance.Manufacturer, instance.ConvolutionKernel = "Philips", "UC"
    instance.ImageType = ["DERIVED", "SECONDARY", "MPR"]


def _another_vendor(instance: Dataset) -> None:
    """As a GE HiSpeed Dual in a German hospital may write it."""
    instance.Manufacturer, instance.ConvolutionKernel = "GE MEDICAL SYSTEMS", "STD+"
    instance.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "ADD"]
    instance.BodyPartExamined, instance.ContrastBolusAgent = "BRAIN", "OHNE KM"
    del instance.PatientAge, instance.RescaleType  # the age follows from the birth date


def _electron_density(instance: Dataset) -> None:
    instance.RescaleType = "ED"


def _contrast(instance: Dataset) -> None:
    instance.ContrastBolusAgent, instance.ContrastBolusVolume = "IOHEXOL", 80


def _child(instance: Dataset) -> None:
    instance.PatientAge, instance.PatientBirthDate = "008Y", "20180101"


def _nameless(instance: Dataset) -> None:
    instance.PatientID, instance.PatientName = "", ""


def _two_passes(instances: Instances) -> tuple[Dataset, ...]:
    """Overlap two passes, of which neither covers the whole head."""
    series = str(generate_uid())
    reach = len(instances) * 2 // 3
    first, second = _copies(instances[:reach]), _copies(instances[-reach:])
    for instance in second:
        x, y, z = map(float, instance.ImagePositionPatient)
        instance.ImagePositionPatient = [f"{value:.6f}" for value in (x, y, z + 2.0)]
        instance.AcquisitionNumber, instance.AcquisitionTime = 2, "101800"
        instance.StudyInstanceUID = first[0].StudyInstanceUID
        instance.FrameOfReferenceUID = first[0].FrameOfReferenceUID
    for instance in (*first, *second):
        instance.SeriesInstanceUID = series
    return (*first, *second)
