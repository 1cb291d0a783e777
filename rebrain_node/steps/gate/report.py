"""Rules: the report says of the volume and of each slice what the images say of themselves.

Of the content tree only the measurement groups are read (PS3.16 TID 1500, TID 1501): one of the
whole volume, one of each slice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from pydicom.dataset import Dataset

from rebrain_node.domain import marks
from rebrain_node.steps.gate.evidence import Evidence, Written
from rebrain_node.steps.gate.provenance import private
from rebrain_node.steps.gate.rule import Breach, Rule, each

MEASUREMENT_GROUP: Final = "125007"  #: DCM
#: code value of a number in the report, and where the slice itself says it
NUMBERS: Final = {
    "ALPHA": marks.ALPHA,
    "MEAN-UNCERTAINTY": marks.UNCERTAINTY,
    "SIMILARITY": marks.SIMILARITY,
    "TAU": marks.TAU,
    "POSITION-DIFF": marks.POSITION_DIFFERENCE,
}
#: largest difference of a number written as text of 16 characters
TOLERANCE: Final = 1e-6


def _slices(evidence: Evidence) -> Iterator[Breach]:
    for report in evidence.of("SR"):
        groups = {_image(group): group for group in _groups(report.dataset)}
        for number, written in enumerate(evidence.mr, start=1):
            frame = number if evidence.mr_form == "enhanced" else None
            group = groups.get((str(written.get("SOPInstanceUID")), frame))
            if group is None:
                yield Breach(report.name, f"it has no row of {written.name}")
                continue
            unlike = _unlike(group, written)
            if unlike:
                what = f"its row of {written.name} says another {', '.join(unlike)}"
                yield Breach(report.name, what)


def _unlike(group: Dataset, written: Written) -> list[str]:
    unlike = []
    for code, element in NUMBERS.items():
        said, own = _number(group, code), private(written.dataset, element)
        if own is not None and not math.isfinite(own):
            continue  # GATE-SLICE-BLOCK or GATE-RETRIEVED says so
        if (said is None) != (own is None) or (own is not None and abs(said - own) > TOLERANCE):
            unlike.append(element.name)
    if _code(group, "POSITION-KIND") != private(written.dataset, marks.POSITION_KIND):
        unlike.append(marks.POSITION_KIND.name)
    if _text(group, "TRUSTED") != private(written.dataset, marks.TRUSTED):
        unlike.append(marks.TRUSTED.name)
    if _text(group, "EXEMPLAR") != private(written.dataset, marks.EXEMPLAR):
        unlike.append(marks.EXEMPLAR.name)
    return unlike


def _whole(evidence: Evidence) -> Iterator[Breach]:
    made_by = evidence.provenance
    wanted = {
        "JOB": made_by.digest,
        "REVISION": str(made_by.revision),
        "INPUT-DIGEST": made_by.input_digest,
        "BUNDLE-DIGEST": made_by.bundle_digest,
        "CONFIG-DIGEST": made_by.configuration_digest,
    }
    kinds = Counter(private(written.dataset, marks.POSITION_KIND) for written in evidence.mr)

    def fault(written: Written) -> str | None:
        whole = next((g for g in _groups(written.dataset) if _text(g, "JOB") is not None), None)
        if whole is None:
            return "it has no group of the whole volume"
        unlike = [code for code, value in wanted.items() if _text(whole, code) != value]
        limit = private(written.dataset, marks.UNCERTAIN_ABOVE)
        if limit is not None and _number(whole, "UNCERTAIN-LIMIT") != limit:
            unlike.append("UNCERTAIN-LIMIT")
        label = private(written.dataset, marks.CALIBRATION)
        if label is not None and _text(whole, "CALIBRATION") != label:
            unlike.append("CALIBRATION")
        counts = _counts(whole)
        unlike += [k for k in marks.POSITION_KINDS.values() if counts.get(k, 0) != kinds[k]]
        return f"it says another {', '.join(unlike)} than the images" if unlike else None

    return each(evidence.of("SR"), fault)


def _groups(dataset: Dataset) -> Iterator[Dataset]:
    """Measurement groups of the content tree, at any depth."""
    for item in dataset.get("ContentSequence") or ():
        if _name(item) == MEASUREMENT_GROUP:
            yield item
        elif item.get("ValueType") == "CONTAINER":
            yield from _groups(item)


def _items(group: Dataset, code: str, value_type: str) -> Iterator[Dataset]:
    for item in group.get("ContentSequence") or ():
        if item.get("ValueType") == value_type and _name(item) == code:
            yield item


def _name(item: Dataset) -> str:
    sequence = item.get("ConceptNameCodeSequence")
    return str(sequence[0].get("CodeValue")) if sequence else ""


def _number(group: Dataset, code: str) -> Any:
    for item in _items(group, code, "NUM"):
        return float(item.MeasuredValueSequence[0].NumericValue)
    return None


def _text(group: Dataset, code: str) -> str | None:
    return next((str(item.TextValue) for item in _items(group, code, "TEXT")), None)


def _code(group: Dataset, code: str) -> str | None:
    found = _items(group, code, "CODE")
    return next((str(item.ConceptCodeSequence[0].CodeValue) for item in found), None)


def _image(group: Dataset) -> tuple[str, Any]:
    """Which MR slice a group is about: instance, and frame of an Enhanced MR."""
    for item in _items(group, "SYNTHETIC", "IMAGE"):
        named = item.ReferencedSOPSequence[0]
        return str(named.ReferencedSOPInstanceUID), named.get("ReferencedFrameNumber")
    return "", None


def _counts(whole: Dataset) -> dict[str | None, int]:
    """Number of slices of each kind, by the kind that modifies it."""
    return {
        _code(item, "POSITION-KIND"): int(item.MeasuredValueSequence[0].NumericValue)
        for item in _items(whole, "SLICE-COUNT", "NUM")
    }


RULES: Final = (
    Rule("GATE-REPORT-SLICES", "The report says of each slice what the slice says.", _slices),
    Rule(
        "GATE-REPORT-WHOLE", "The report's digests, limit and counts are those of the set.", _whole
    ),
)
