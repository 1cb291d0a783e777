"""Rules: the set is complete, and its objects refer to each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from rebrain_node.domain import marks
from rebrain_node.steps.gate.context import Context, WrittenObject
from rebrain_node.steps.gate.geometry import TOLERANCE_MM
from rebrain_node.steps.gate.rules import (
    ALL,
    KEY_OBJECTS,
    MAP_AND_SEGMENTATION,
    PRESENTATION_STATE,
    REPORT,
    Violation,
    rule,
    set_rule,
)

#: a volume has at least two slices
FEWEST_SLICES: Final = 2
EVIDENCE: Final = (
    "CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence",
)  # fmt: skip


@set_rule("GATE-COMPLETE", "The MR series and each companion that the site requests are present.")
def _complete(context: Context) -> Iterator[Violation]:
    """An image without its uncertainty and its report must not be read."""
    counts = Counter(record.kind for record in context.records)
    if len(context.mr_slices) < FEWEST_SLICES:
        yield Violation("set", f"it has {len(context.mr_slices)} MR slices")
    if context.mr_form == "enhanced" and counts["MR"] != 1:
        yield Violation("set", f"it has {counts['MR']} Enhanced MR, not one")
    for kind in context.companions:
        if counts[kind] != 1:
            yield Violation("set", f"it has {counts[kind]} {kind}, not one")


@rule("GATE-UNASKED", "No object is present that the site does not request.", on=ALL)
def _unasked(obj: WrittenObject, context: Context) -> str | None:
    """A PACS that does not support an object's class may refuse the whole set."""
    requested = ("MR", *context.companions)
    return None if obj.kind in requested else "the site does not request it"


@set_rule("GATE-SEND-ORDER", "Objects are sent in the order MR, PM, SEG, SC, PR, SR, KOS.")
def _send_order(context: Context) -> Iterator[Violation]:
    """Whoever has received the key object selection has received everything."""
    order = [marks.SERIES_ORDER.index(obj.kind) for obj in context.objects]
    if order != sorted(order):
        yield Violation("set", f"objects are not in the order {', '.join(marks.SERIES_ORDER)}")


@rule(
    "GATE-KEY-OBJECT",
    "The key object selection lists every other object of the set and nothing else.",
    on=KEY_OBJECTS,
)
def _key_object(obj: WrittenObject, context: Context) -> str | None:
    """A receiver checks by it that the set is complete."""
    others = {
        (record.sop_class_uid, record.series_instance_uid, record.sop_instance_uid)
        for record in context.records
        if record.kind != "KOS"
    }
    found = set(_evidence(obj, EVIDENCE[0]))
    if found == others:
        return None
    listed, foreign = len(found & others), len(found - others)
    return f"it lists {listed} of {len(others)} objects, and {foreign} others"


@rule(
    "GATE-PRESENTATION-STATE",
    "The presentation state shows the words SYNTHETIC - NOT FOR DIAGNOSIS on every MR slice.",
    on=PRESENTATION_STATE,
)
def _presentation_state(obj: WrittenObject, context: Context) -> str | None:
    """Whoever looks at the pixels alone sees no other mark."""
    expected = context.once(_mr_uids)
    shown = {
        str(image.get("ReferencedSOPInstanceUID"))
        for annotation in obj.items("GraphicAnnotationSequence")
        if any(
            text.get("UnformattedTextValue") == marks.VISIBLE_WORDS
            for text in annotation.get("TextObjectSequence") or ()
        )
        for image in annotation.get("ReferencedImageSequence") or ()
    }
    if shown >= expected:
        return None
    return f"it shows them on {len(shown & expected)} of {len(expected)} MR slices"


@rule("GATE-REPORT", "The report's evidence lists all MR slices and source instances.", on=REPORT)
def _report(obj: WrittenObject, context: Context) -> str | None:
    """Readers open the images of a report from its evidence."""
    expected = context.once(_mr_uids) | context.source_classes.keys()
    found = {uid for keyword in EVIDENCE for _, _, uid in _evidence(obj, keyword)}
    missing = len(expected - found)
    return f"its evidence lacks {missing} of {len(expected)} instances" if missing else None


@rule("GATE-MAP-SOURCES", "Map and segmentation refer to every MR slice.", on=MAP_AND_SEGMENTATION)
def _map_sources(obj: WrittenObject, context: Context) -> str | None:
    """Shows to which series they belong."""
    expected = context.once(_mr_uids)
    found = {
        str(reference.get("ReferencedSOPInstanceUID"))
        for item in obj.items("ReferencedSeriesSequence")
        for reference in item.get("ReferencedInstanceSequence") or ()
    }
    if found >= expected:
        return None
    return f"it refers to {len(found & expected)} of {len(expected)} MR slices"


@rule(
    "GATE-MAP-FRAMES",
    "Each frame of map and segmentation names the MR slice at its position.",
    on=MAP_AND_SEGMENTATION,
)
def _map_frames(obj: WrittenObject, context: Context) -> str | None:
    """Shows to which slice a frame belongs."""
    positions = context.once(_positions)
    for number, frame in enumerate(obj.items("PerFrameFunctionalGroupsSequence"), start=1):
        named = {
            (str(source.get("ReferencedSOPInstanceUID")), source.get("ReferencedFrameNumber"))
            for derivation in frame.get("DerivationImageSequence") or ()
            for source in derivation.get("SourceImageSequence") or ()
        }
        found = [positions[name] for name in named if positions.get(name) is not None]
        own = [item.get("ImagePositionPatient") for item in frame.PlanePositionSequence]
        if len(found) != 1 or not np.allclose(found, own, rtol=0.0, atol=TOLERANCE_MM):
            return f"frame {number} names {len(found)} MR slices, or one at another position"
    return None


def _mr_uids(context: Context) -> set[str]:
    return {str(obj.get("SOPInstanceUID")) for obj in context.mr_slices}


def _positions(context: Context) -> dict[tuple[str, int | None], Any]:
    """Image Position of each MR slice by SOP Instance UID and frame of an Enhanced MR."""
    enhanced = context.mr_form == "enhanced"
    return {
        (str(obj.get("SOPInstanceUID")), number if enhanced else None): obj.get(
            "ImagePositionPatient"
        )
        for number, obj in enumerate(context.mr_slices, start=1)
    }


def _evidence(obj: WrittenObject, keyword: str) -> Iterator[tuple[str, str, str]]:
    """Yield (class, series, instance) of the evidence of an SR document (PS3.3 C.17.2.3)."""
    for study in obj.items(keyword):
        for series in study.get("ReferencedSeriesSequence") or ():
            for reference in series.get("ReferencedSOPSequence") or ():
                yield (
                    str(reference.get("ReferencedSOPClassUID")),
                    str(series.get("SeriesInstanceUID")),
                    str(reference.get("ReferencedSOPInstanceUID")),
                )
