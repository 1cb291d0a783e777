"""Rules: where every object and every slice comes from stands in it, and is true."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from pydicom.dataset import Dataset

from rebrain_node.domain import marks
from rebrain_node.domain.marks import PrivateElement
from rebrain_node.steps.gate.evidence import Evidence, Written
from rebrain_node.steps.gate.geometry import TOLERANCE_MM
from rebrain_node.steps.gate.plane import Plane
from rebrain_node.steps.gate.rule import Breach, Rule, each

#: elements of the private block that every object has; the others only where there are any
OBJECT_ELEMENTS: Final = tuple(
    e
    for e in marks.OBJECT_ELEMENTS
    if e not in (marks.FINDINGS, marks.PREDECESSOR, marks.UNTRUSTED_ABOVE)
)
#: a slice this near to a measured one is at its place
SAME_PLACE_MM: Final = 0.05
#: transfer syntaxes that lose information whatever the flag says (PS3.5 A.4)
LOSSY_SYNTAXES: Final = (
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
)


def private(dataset: Dataset, element: PrivateElement) -> Any:
    """Value of an element of our private block, None where block or element is absent."""
    try:
        value = dataset.private_block(marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR)[
            element.offset
        ].value
    except KeyError:
        return None
    return None if value == "" else value


def _private_block(evidence: Evidence) -> Iterator[Breach]:
    def fault(written: Written) -> str | None:
        missing = [e.name for e in OBJECT_ELEMENTS if private(written.dataset, e) is None]
        return f"its private block lacks {', '.join(missing)}" if missing else None

    return each(evidence.written, fault)


def _private_values(evidence: Evidence) -> Iterator[Breach]:
    made_by = evidence.provenance
    wanted = {
        marks.JOB: made_by.digest,
        marks.REVISION: str(made_by.revision),
        marks.INPUT_DIGEST: made_by.input_digest,
        marks.BUNDLE_DIGEST: made_by.bundle_digest,
        marks.CONFIGURATION_DIGEST: made_by.configuration_digest,
    }

    def fault(written: Written) -> str | None:
        found = {element: private(written.dataset, element) for element in wanted}
        unlike = [e.name for e, v in found.items() if v is not None and str(v) != wanted[e]]
        return f"{', '.join(unlike)} is not that of the job" if unlike else None

    return each(evidence.written, fault)


def _predecessor(evidence: Evidence) -> Iterator[Breach]:
    """A result of a late slice names what it replaces: series in the block, report in the SR."""
    before = evidence.provenance.predecessor
    series = None if before is None else before.mr_series_uid
    report = None if before is None else before.report_uid

    def fault(written: Written) -> str | None:
        if private(written.dataset, marks.PREDECESSOR) != series:
            return "its private block does not name the MR series of the revision before"
        named = [
            reference.get("ReferencedSOPInstanceUID")
            for study in written.items("PredecessorDocumentsSequence")
            for item in study.get("ReferencedSeriesSequence") or ()
            for reference in item.get("ReferencedSOPSequence") or ()
        ]
        wanted = [report] if report is not None and written.kind == "SR" else []
        return None if named == wanted else "it does not name the report of the revision before"

    return each(evidence.written, fault)


def _source_series(evidence: Evidence) -> Iterator[Breach]:
    for keyword, wanted in (
        ("SeriesInstanceUID", evidence.provenance.source_series_uid),
        ("StudyInstanceUID", evidence.source[0].get("StudyInstanceUID")),
        ("FrameOfReferenceUID", evidence.source[0].get("FrameOfReferenceUID")),
    ):
        if any(dataset.get(keyword) != wanted for dataset in evidence.source):
            yield Breach("source", f"{keyword} of its instances is not one and the job's")


def _slice_block(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, _slice_block_fault)


def _slice_block_fault(written: Written) -> str | None:
    found = {e: private(written.dataset, e) for e in marks.SLICE_ELEMENTS_ALWAYS}
    missing = [e.name for e, value in found.items() if value is None]
    if missing:
        return f"its private block lacks {', '.join(missing)}"
    if found[marks.POSITION_KIND] not in marks.POSITION_KINDS.values():
        return f"its position kind is {found[marks.POSITION_KIND]}"
    uncertainty = float(found[marks.UNCERTAINTY])
    if not (math.isfinite(uncertainty) and uncertainty >= 0):
        return f"its mean uncertainty is {uncertainty}"
    return None


def _kind_in_words(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.mr, _kind_in_words_fault)


def _kind_in_words_fault(written: Written) -> str | None:
    """The first of the kinds that the comment names is the kind of the slice."""
    comments = str(written.get("ImageComments") or "")
    places = {word: comments.find(word) for word in marks.POSITION_KINDS}
    named = [word for word, place in places.items() if place >= 0]
    first = min(named, key=places.__getitem__) if named else None
    kind = private(written.dataset, marks.POSITION_KIND)
    if kind is None or kind not in marks.POSITION_KINDS.values():
        return None  # GATE-SLICE-BLOCK says so
    if first is not None and marks.POSITION_KINDS[first] == kind:
        return None
    return f"Image Comments say {first or 'no kind'}, the private block {kind}"


def _source_images(evidence: Evidence) -> Iterator[Breach]:
    classes = {str(d.get("SOPInstanceUID")): str(d.get("SOPClassUID")) for d in evidence.source}

    def fault(written: Written) -> str | None:
        items = written.items("SourceImageSequence")
        if not items:
            return "Source Image Sequence is absent or empty"
        for item in items:
            uid = str(item.get("ReferencedSOPInstanceUID"))
            if classes.get(uid) != item.get("ReferencedSOPClassUID"):
                return f"it refers to {uid}, which is no instance of the source"
        named = {str(item.get("ReferencedSOPInstanceUID")) for item in items}
        own = _neighbours(written)
        return None if not own or named == set(own) else "its private block names other neighbours"

    return each(evidence.mr, fault)


def _bracket(evidence: Evidence) -> Iterator[Breach]:
    """The named neighbours lie on either side, at the distances that alpha says."""
    own = {plane.name: plane for plane in evidence.mr_planes}
    for written in evidence.mr:
        plane, around = own.get(written.name), _neighbour_planes(evidence, written)
        if plane is None or not around:
            continue
        fault = _bracket_fault(plane, around, float(private(written.dataset, marks.ALPHA) or 0.0))
        if fault:
            yield Breach(written.name, fault)


def _bracket_fault(plane: Plane, around: list[Plane], alpha: float) -> str | None:
    place = float(plane.position_mm @ plane.normal)
    low, *rest = sorted(float(p.position_mm @ plane.normal) for p in around)
    high = rest[0] if rest else low
    if not low - TOLERANCE_MM <= place <= high + TOLERANCE_MM and abs(place - low) > SAME_PLACE_MM:
        return f"its neighbours lie {low - place:.2f} and {high - place:.2f} mm from it"
    gap = high - low
    wanted = (place - low) / gap if gap > SAME_PLACE_MM else 0.0
    if abs(wanted - alpha) * gap > SAME_PLACE_MM:
        return f"its alpha is {alpha:.3f}, its position says {wanted:.3f}"
    return None


def _measured(evidence: Evidence) -> Iterator[Breach]:
    """A slice is measured exactly where a measured slice lies."""
    normal = evidence.source_planes[0].normal
    places = [float(plane.position_mm @ normal) for plane in evidence.source_planes]
    own = {plane.name: float(plane.position_mm @ normal) for plane in evidence.mr_planes}
    for written in evidence.mr:
        kind = private(written.dataset, marks.POSITION_KIND)
        if written.name not in own or kind is None:
            continue
        nearest = min(abs(place - own[written.name]) for place in places)
        if kind == marks.POSITION_KINDS["measured"] and nearest > SAME_PLACE_MM:
            yield Breach(written.name, f"it says measured, {nearest:.2f} mm from a measured slice")


def _referenced_series(evidence: Evidence) -> Iterator[Breach]:
    wanted = {str(dataset.get("SOPInstanceUID")) for dataset in evidence.source}
    series = str(evidence.source[0].get("SeriesInstanceUID"))

    def fault(written: Written) -> str | None:
        found = {
            str(reference.get("ReferencedSOPInstanceUID"))
            for item in written.items("ReferencedSeriesSequence")
            if item.get("SeriesInstanceUID") == series
            for reference in item.get("ReferencedInstanceSequence") or ()
        }
        if found == wanted:
            return None
        return f"Referenced Series Sequence names {len(found & wanted)} of {len(wanted)} instances"

    return each(evidence.mr, fault)


def _lossy(evidence: Evidence) -> Iterator[Breach]:
    lost = any(_is_lossy(dataset) for dataset in evidence.source)

    def fault(written: Written) -> str | None:
        found = written.get("LossyImageCompression")
        if lost and found != "01":
            return f"Lossy Image Compression is {found}, but the source was compressed with loss"
        return None if found in ("00", "01") else f"Lossy Image Compression is {found}"

    return each(evidence.mr, fault)


def _is_lossy(dataset: Dataset) -> bool:
    meta = getattr(dataset, "file_meta", None)
    syntax = None if meta is None else meta.get("TransferSyntaxUID")
    return dataset.get("LossyImageCompression") == "01" or syntax in LOSSY_SYNTAXES


def _neighbours(written: Written) -> tuple[str, ...]:
    value = private(written.dataset, marks.NEIGHBOURS)
    if value is None:
        return ()
    return (str(value),) if isinstance(value, str) else tuple(str(uid) for uid in value)


def _neighbour_planes(evidence: Evidence, written: Written) -> list[Plane]:
    frames = private(written.dataset, marks.NEIGHBOUR_FRAMES)
    uids = _neighbours(written)
    if frames is None:
        numbers = [1] * len(uids)
    else:
        numbers = [int(n) for n in ([frames] if isinstance(frames, int) else frames)]
    wanted = set(zip(uids, numbers, strict=False))
    return [p for p in evidence.source_planes if (p.name, p.frame) in wanted]


RULES: Final = (
    Rule("GATE-PRIVATE-BLOCK", "Every object bears our private block, whole.", _private_block),
    Rule("GATE-PRIVATE-VALUES", "The private block names this job and no other.", _private_values),
    Rule(
        "GATE-PREDECESSOR",
        "A later revision names series and report of the one before, a first one names none.",
        _predecessor,
    ),
    Rule(
        "GATE-SOURCE-SERIES",
        "The source instances are of one series, study and frame, the job's.",
        _source_series,
    ),
    Rule("GATE-SLICE-BLOCK", "Every MR slice says in numbers how it came about.", _slice_block),
    Rule("GATE-KIND-IN-WORDS", "Image Comments and private block say the same.", _kind_in_words),
    Rule(
        "GATE-SOURCE-IMAGES",
        "Every MR slice refers to the source slices it was made from, and they exist.",
        _source_images,
    ),
    Rule("GATE-BRACKET", "The named neighbours lie around the slice as alpha says.", _bracket),
    Rule("GATE-MEASURED", "No slice says measured where nothing was measured.", _measured),
    Rule(
        "GATE-REFERENCED-SERIES",
        "Every MR slice refers to the whole source series.",
        _referenced_series,
    ),
    Rule("GATE-LOSSY", "What was once compressed with loss says so for ever.", _lossy),
)
