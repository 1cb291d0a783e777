"""Rules: every object and every slice states its origin, and the statement is true."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final

from pydicom.dataset import Dataset

from rebrain_node.domain import marks
from rebrain_node.steps.gate.context import Context, Plane, WrittenObject
from rebrain_node.steps.gate.geometry import TOLERANCE_MM
from rebrain_node.steps.gate.rules import ALL, SLICES, Violation, rule, set_rule

#: elements of the private block that every object has; the others are conditional
OBJECT_ELEMENTS: Final = tuple(
    e
    for e in marks.OBJECT_ELEMENTS
    if e not in (marks.FINDINGS, marks.PREDECESSOR, marks.UNTRUSTED_ABOVE, marks.TISSUE_SHIFT)
)
#: a slice this near to a measured one is at its position
SAME_POSITION_MM: Final = 0.05
#: transfer syntaxes that are lossy whatever Lossy Image Compression says (PS3.5 A.4)
LOSSY_SYNTAXES: Final = (
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
)
#: numbers that a retrieved slice must state
RETRIEVAL_NUMBERS: Final = (marks.SIMILARITY, marks.TAU, marks.POSITION_DIFFERENCE)
#: a keyed hash and nothing else: no name, no path, no patient number
KEYED_HASH: Final = re.compile(r"[0-9a-f]{16,64}")


@rule("GATE-PRIVATE-BLOCK", "Every object contains the complete private block.", on=ALL)
def _private_block(obj: WrittenObject, _: Context) -> str | None:
    """Keeps the provenance at sites that drop the report."""
    missing = [e.name for e in OBJECT_ELEMENTS if obj.private(e) is None]
    return f"its private block lacks {', '.join(missing)}" if missing else None


@rule("GATE-PRIVATE-VALUES", "Digests and revision in the private block are the job's.", on=ALL)
def _private_values(obj: WrittenObject, context: Context) -> str | None:
    """A recall would miss an object with the block of another job."""
    job = context.provenance
    expected = {
        marks.JOB: job.digest,
        marks.REVISION: str(job.revision),
        marks.INPUT_DIGEST: job.input_digest,
        marks.BUNDLE_DIGEST: job.bundle_digest,
        marks.CONFIGURATION_DIGEST: job.configuration_digest,
    }
    found = {element: obj.private(element) for element in expected}
    different = [e.name for e, v in found.items() if v is not None and str(v) != expected[e]]
    return f"{', '.join(different)} is not that of the job" if different else None


@rule(
    "GATE-PREDECESSOR",
    "A later revision names MR series and report of the revision before; a first revision names "
    "none.",
    on=ALL,
)
def _predecessor(obj: WrittenObject, context: Context) -> str | None:
    """Whoever finds two results of one CT must see which replaces which."""
    before = context.provenance.predecessor
    series = None if before is None else before.mr_series_uid
    report = None if before is None else before.report_uid
    if obj.private(marks.PREDECESSOR) != series:
        return "its private block does not name the MR series of the revision before"
    named = [
        reference.get("ReferencedSOPInstanceUID")
        for study in obj.items("PredecessorDocumentsSequence")
        for item in study.get("ReferencedSeriesSequence") or ()
        for reference in item.get("ReferencedSOPSequence") or ()
    ]
    expected = [report] if report is not None and obj.kind == "SR" else []
    return None if named == expected else "it does not name the report of the revision before"


@set_rule(
    "GATE-SOURCE-SERIES",
    "All source instances have the job's series, one study and one frame of reference.",
    on="the source",
)
def _source_series(context: Context) -> Iterator[Violation]:
    """All other rules compare with the source, which must be one series."""
    for keyword, expected in (
        ("SeriesInstanceUID", context.provenance.source_series_uid),
        ("StudyInstanceUID", context.source[0].get("StudyInstanceUID")),
        ("FrameOfReferenceUID", context.source[0].get("FrameOfReferenceUID")),
    ):
        if any(dataset.get(keyword) != expected for dataset in context.source):
            yield Violation("source", f"{keyword} differs between its instances or from the job's")


@rule(
    "GATE-SLICE-BLOCK",
    "The private block states position kind, alpha, neighbours and uncertainty of the slice.",
    on=SLICES,
)
def _slice_block(obj: WrittenObject, _: Context) -> str | None:
    """Whoever measures on a slice must be able to tell whether it was measured."""
    found = {e: obj.private(e) for e in marks.SLICE_ELEMENTS_ALWAYS}
    missing = [e.name for e, value in found.items() if value is None]
    if missing:
        return f"its private block lacks {', '.join(missing)}"
    if found[marks.POSITION_KIND] not in marks.POSITION_KINDS.values():
        return f"its position kind is {found[marks.POSITION_KIND]}"
    uncertainty = float(found[marks.UNCERTAINTY])
    if not (math.isfinite(uncertainty) and uncertainty >= 0):
        return f"its mean uncertainty is {uncertainty}"
    return None


@rule("GATE-KIND-IN-WORDS", "Image Comments name the private block's position kind.", on=SLICES)
def _kind_in_words(obj: WrittenObject, _: Context) -> str | None:
    """A reader and a program must get the same information."""
    comments = str(obj.get("ImageComments") or "")
    offsets = {word: comments.find(word) for word in marks.POSITION_KINDS}
    named = [word for word, offset in offsets.items() if offset >= 0]
    first = min(named, key=offsets.__getitem__) if named else None
    kind = obj.private(marks.POSITION_KIND)
    if kind is None or kind not in marks.POSITION_KINDS.values():
        return None  # reported by GATE-SLICE-BLOCK
    if first is not None and marks.POSITION_KINDS[first] == kind:
        return None
    return f"Image Comments name {first or 'no kind'}, the private block {kind}"


@rule(
    "GATE-SOURCE-IMAGES",
    "Source Image Sequence refers to the slice's neighbours, which are instances of the source.",
    on=SLICES,
)
def _source_images(obj: WrittenObject, context: Context) -> str | None:
    """A viewer's link to the CT slice must work."""
    items = obj.items("SourceImageSequence")
    if not items:
        return "Source Image Sequence is absent or empty"
    for item in items:
        uid = str(item.get("ReferencedSOPInstanceUID"))
        if context.source_classes.get(uid) != item.get("ReferencedSOPClassUID"):
            return f"it refers to {uid}, which is not an instance of the source"
    named = {str(item.get("ReferencedSOPInstanceUID")) for item in items}
    own = _neighbours(obj)
    return None if not own or named == set(own) else "its private block names other neighbours"


@rule(
    "GATE-BRACKET",
    "The neighbours lie on either side of the slice, at the distances that alpha states.",
    on=SLICES,
)
def _bracket(obj: WrittenObject, context: Context) -> str | None:
    """Neighbours and positions are written by different code."""
    neighbours = _neighbour_planes(obj, context)
    if not obj.planes or not neighbours:
        return None
    plane, alpha = obj.planes[0], float(obj.private(marks.ALPHA) or 0.0)
    position = float(plane.position_mm @ plane.normal)
    low, *rest = sorted(float(p.position_mm @ plane.normal) for p in neighbours)
    high = rest[0] if rest else low
    inside = low - TOLERANCE_MM <= position <= high + TOLERANCE_MM
    if not inside and abs(position - low) > SAME_POSITION_MM:
        return f"its neighbours lie {low - position:.2f} and {high - position:.2f} mm from it"
    gap = high - low
    expected = (position - low) / gap if gap > SAME_POSITION_MM else 0.0
    if abs(expected - alpha) * gap > SAME_POSITION_MM:
        return f"its alpha is {alpha:.3f}, its position gives {expected:.3f}"
    return None


@rule("GATE-MEASURED", "A slice of position kind MEASURED lies on a measured slice.", on=SLICES)
def _measured(obj: WrittenObject, context: Context) -> str | None:
    """Interpolated anatomy must never be called measured."""
    kind = obj.private(marks.POSITION_KIND)
    if not obj.planes or kind != marks.POSITION_KINDS["measured"]:
        return None
    normal = context.source_planes[0].normal
    position = obj.planes[0].position_mm @ normal
    nearest = min(abs(float(p.position_mm @ normal - position)) for p in context.source_planes)
    if nearest <= SAME_POSITION_MM:
        return None
    return f"it is called measured, {nearest:.2f} mm from the nearest measured slice"


@rule(
    "GATE-REFERENCED-SERIES",
    "Referenced Series Sequence names every instance of the source series.",
    on=SLICES,
)
def _referenced_series(obj: WrittenObject, context: Context) -> str | None:
    """The whole input, not only the neighbours, determines each slice."""
    expected = context.source_classes.keys()
    series = str(context.source[0].get("SeriesInstanceUID"))
    found = {
        str(reference.get("ReferencedSOPInstanceUID"))
        for item in obj.items("ReferencedSeriesSequence")
        if item.get("SeriesInstanceUID") == series
        for reference in item.get("ReferencedInstanceSequence") or ()
    }
    if found == expected:
        return None
    count = len(found & expected)
    return f"Referenced Series Sequence names {count} of {len(expected)} instances"


@rule(
    "GATE-LOSSY",
    "Lossy Image Compression is 01 where the source was ever compressed lossily, else 00 or 01.",
    on=SLICES,
)
def _lossy(obj: WrittenObject, context: Context) -> str | None:
    """Required by PS3.3 C.7.6.1.1.5, permanently."""
    found = obj.get("LossyImageCompression")
    if context.once(_is_source_lossy) and found != "01":
        return f"Lossy Image Compression is {found}, but the source was compressed lossily"
    return None if found in ("00", "01") else f"Lossy Image Compression is {found}"


def _is_source_lossy(context: Context) -> bool:
    return any(_is_lossy(dataset) for dataset in context.source)


def _is_lossy(dataset: Dataset) -> bool:
    meta = getattr(dataset, "file_meta", None)
    syntax = None if meta is None else meta.get("TransferSyntaxUID")
    return dataset.get("LossyImageCompression") == "01" or syntax in LOSSY_SYNTAXES


def _neighbours(obj: WrittenObject) -> tuple[str, ...]:
    value = obj.private(marks.NEIGHBOURS)
    if value is None:
        return ()
    return (str(value),) if isinstance(value, str) else tuple(str(uid) for uid in value)


def _neighbour_planes(obj: WrittenObject, context: Context) -> list[Plane]:
    frames = obj.private(marks.NEIGHBOUR_FRAMES)
    uids = _neighbours(obj)
    if frames is None:
        numbers = [1] * len(uids)
    else:
        numbers = [int(n) for n in ([frames] if isinstance(frames, int) else frames)]
    expected = set(zip(uids, numbers, strict=False))
    return [p for p in context.source_planes if (p.name, p.frame) in expected]


@rule(
    "GATE-RETRIEVED",
    "A retrieved slice names its exemplar by a keyed hash, with similarity, threshold and "
    "position difference; no other slice names one.",
    on=SLICES,
)
def _retrieved(obj: WrittenObject, _: Context) -> str | None:
    """A recall of an exemplar must find every slice it guided; its name must identify nobody."""
    exemplar = obj.private(marks.EXEMPLAR)
    if not _is_retrieved(obj):
        return None if exemplar is None else "it names an exemplar but is not retrieved"
    if exemplar is None:
        return "it is retrieved, but names no exemplar"
    if KEYED_HASH.fullmatch(str(exemplar)) is None:
        return "the name of its exemplar is not a keyed hash"
    missing = [e.name for e in RETRIEVAL_NUMBERS if not _is_number(obj.private(e))]
    return f"it is retrieved, but lacks {', '.join(missing)}" if missing else None


@rule(
    "GATE-SIMILARITY",
    "The similarity of an exemplar is a cosine, and not below its threshold.",
    on=SLICES,
)
def _similarity(obj: WrittenObject, _: Context) -> str | None:
    """An exemplar that is not similar enough must not guide a slice."""
    similarity, tau = (obj.private(e) for e in (marks.SIMILARITY, marks.TAU))
    if not _is_number(similarity) or not _is_number(tau):
        return None  # reported by GATE-RETRIEVED
    if not -1.0 <= similarity <= 1.0:
        return f"the similarity of its exemplar is {similarity:.3f}, which is not a cosine"
    if _is_retrieved(obj) and similarity < tau:
        return f"the similarity of its exemplar is {similarity:.3f}, below the threshold {tau:.3f}"
    return None


@rule(
    "GATE-EXEMPLAR-IN-WORDS",
    "Derivation Description names the exemplar of a retrieved slice, and none otherwise.",
    on=SLICES,
)
def _exemplar_in_words(obj: WrittenObject, _: Context) -> str | None:
    """The text that a viewer shows must mention the slice of another subject."""
    description = str(obj.get("DerivationDescription") or "")
    exemplar = obj.private(marks.EXEMPLAR)
    if exemplar is not None:
        return None if str(exemplar) in description else "Derivation Description lacks its exemplar"
    return "Derivation Description mentions an exemplar" if "exemplar" in description else None


def _is_retrieved(obj: WrittenObject) -> bool:
    return bool(obj.private(marks.POSITION_KIND) == marks.POSITION_KINDS["retrieved"])


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)
