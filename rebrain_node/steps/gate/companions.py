"""Rules: the set is whole, and its objects point at each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np

from rebrain_node.domain import marks
from rebrain_node.steps.gate.evidence import Evidence, Written
from rebrain_node.steps.gate.geometry import TOLERANCE_MM
from rebrain_node.steps.gate.rule import Breach, Rule, each

#: a volume has at least two slices
FEWEST_SLICES: Final = 2


def _complete(evidence: Evidence) -> Iterator[Breach]:
    counts = Counter(record.kind for record in evidence.records)
    if len(evidence.mr) < FEWEST_SLICES:
        yield Breach("set", f"it holds {len(evidence.mr)} MR slices")
    if evidence.mr_form == "enhanced" and counts["MR"] != 1:
        yield Breach("set", f"it holds {counts['MR']} Enhanced MR, not one")
    for kind in evidence.companions:
        if counts[kind] != 1:
            yield Breach("set", f"it holds {counts[kind]} {kind}, not one")


def _unasked(evidence: Evidence) -> Iterator[Breach]:
    asked = ("MR", *evidence.companions)
    for written in evidence.written:
        if written.kind not in asked:
            yield Breach(written.name, "the site did not ask for it")


def _send_order(evidence: Evidence) -> Iterator[Breach]:
    places = [marks.SERIES_ORDER.index(written.kind) for written in evidence.written]
    if places != sorted(places):
        yield Breach("set", f"objects are not in the order {', '.join(marks.SERIES_ORDER)}")


def _key_object(evidence: Evidence) -> Iterator[Breach]:
    """The key object selection names every other object, under its class and series."""
    others = {
        (record.sop_class_uid, record.series_instance_uid, record.sop_instance_uid)
        for record in evidence.records
        if record.kind != "KOS"
    }

    def fault(written: Written) -> str | None:
        found = set(_evidence_references(written, "CurrentRequestedProcedureEvidenceSequence"))
        if found == others:
            return None
        listed, strange = len(found & others), len(found - others)
        return f"it lists {listed} of {len(others)} objects, and {strange} others"

    return each(evidence.of("KOS"), fault)


def _report(evidence: Evidence) -> Iterator[Breach]:
    """The report's evidence holds every MR slice, and every source instance."""
    wanted = {str(written.get("SOPInstanceUID")) for written in evidence.mr}
    wanted |= {str(dataset.get("SOPInstanceUID")) for dataset in evidence.source}

    def fault(written: Written) -> str | None:
        found = {
            uid for keyword in _EVIDENCE for _, _, uid in _evidence_references(written, keyword)
        }
        missing = len(wanted - found)
        return f"its evidence lacks {missing} of {len(wanted)} instances" if missing else None

    return each(evidence.of("SR"), fault)


def _map_sources(evidence: Evidence) -> Iterator[Breach]:
    """Map and segmentation refer to the MR series they belong to."""
    wanted = {str(written.get("SOPInstanceUID")) for written in evidence.mr}

    def fault(written: Written) -> str | None:
        found = {
            str(reference.get("ReferencedSOPInstanceUID"))
            for item in written.items("ReferencedSeriesSequence")
            for reference in item.get("ReferencedInstanceSequence") or ()
        }
        if found & wanted == wanted:
            return None
        return f"it refers to {len(found & wanted)} of {len(wanted)} MR slices"

    return each(evidence.of("PM", "SEG"), fault)


def _map_frames(evidence: Evidence) -> Iterator[Breach]:
    """Each frame of map and segmentation names the MR slice on which it lies."""
    enhanced = evidence.mr_form == "enhanced"
    positions = {
        (str(w.get("SOPInstanceUID")), number if enhanced else None): w.get("ImagePositionPatient")
        for number, w in enumerate(evidence.mr, start=1)
    }

    def fault(written: Written) -> str | None:
        for number, frame in enumerate(written.items("PerFrameFunctionalGroupsSequence"), start=1):
            named = {
                (str(source.get("ReferencedSOPInstanceUID")), source.get("ReferencedFrameNumber"))
                for derivation in frame.get("DerivationImageSequence") or ()
                for source in derivation.get("SourceImageSequence") or ()
            }
            own = [positions[name] for name in named if positions.get(name) is not None]
            places = [item.get("ImagePositionPatient") for item in frame.PlanePositionSequence]
            if len(own) != 1 or not np.allclose(own, places, rtol=0.0, atol=TOLERANCE_MM):
                return f"frame {number} names {len(own)} MR slices, or one that lies elsewhere"
        return None

    return each(evidence.of("PM", "SEG"), fault)


_EVIDENCE: Final = (
    "CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence",
)  # fmt: skip


def _evidence_references(written: Written, keyword: str) -> Iterator[tuple[str, str, str]]:
    """Yield (class, series, instance) of an SR's evidence (PS3.3 C.17.2.3)."""
    for study in written.items(keyword):
        for series in study.get("ReferencedSeriesSequence") or ():
            for reference in series.get("ReferencedSOPSequence") or ():
                yield (
                    str(reference.get("ReferencedSOPClassUID")),
                    str(series.get("SeriesInstanceUID")),
                    str(reference.get("ReferencedSOPInstanceUID")),
                )


RULES: Final = (
    Rule("GATE-COMPLETE", "The series and each companion the site wants are there.", _complete),
    Rule("GATE-UNASKED", "Nothing is there that the site did not ask for.", _unasked),
    Rule("GATE-SEND-ORDER", "Objects are sent in order, the key object last.", _send_order),
    Rule("GATE-KEY-OBJECT", "The key object selection lists exactly the set.", _key_object),
    Rule("GATE-REPORT", "The report's evidence names source and result wholly.", _report),
    Rule("GATE-MAP-SOURCES", "Map and segmentation refer to every MR slice.", _map_sources),
    Rule("GATE-MAP-FRAMES", "Each of their frames names the MR slice it lies on.", _map_frames),
)
