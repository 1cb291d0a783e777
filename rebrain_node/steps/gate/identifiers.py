"""Rules: every object is named once, by us, and says the same of itself everywhere."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Final

from rebrain_node.domain import marks
from rebrain_node.errors import InstanceMalformed
from rebrain_node.instance.scan import scan
from rebrain_node.steps.gate.evidence import Evidence, Written
from rebrain_node.steps.gate.rule import Breach, Rule, each

#: uncompressed, or compressed without loss: anything else would change what was made
LOSSLESS: Final = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2.5",  # RLE Lossless
)
#: UIDs by which a source instance is known
SOURCE_UIDS: Final = (
    "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID",
)  # fmt: skip
_UUID_VERSION = 5  # named, not drawn: the same work has the same name for ever


def _readable(evidence: Evidence) -> Iterator[Breach]:
    return (Breach(name, why) for name, why in evidence.unreadable)


def _structure(evidence: Evidence) -> Iterator[Breach]:
    """What pydicom reads leniently: doubled elements, cut ends, pixels of another length."""
    return each(evidence.written, _structure_fault)


def _structure_fault(written: Written) -> str | None:
    try:
        scan(written.record.content)
    except InstanceMalformed as error:
        return str(error)
    return None


def _four_names(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.written, _four_names_fault)


def _four_names_fault(written: Written) -> str | None:
    record, dataset, meta = written.record, written.dataset, written.dataset.file_meta
    names = {
        "SOP Class UID": (
            record.sop_class_uid, dataset.get("SOPClassUID"), meta.get("MediaStorageSOPClassUID"),
        ),
        "SOP Instance UID": (
            record.sop_instance_uid,
            dataset.get("SOPInstanceUID"),
            meta.get("MediaStorageSOPInstanceUID"),
        ),
        "Series Instance UID": (record.series_instance_uid, dataset.get("SeriesInstanceUID")),
    }  # fmt: skip
    unlike = [name for name, values in names.items() if len(set(values)) != 1]
    return f"record, file meta and data set differ in {', '.join(unlike)}" if unlike else None


def _transfer_syntax(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.written, _transfer_syntax_fault)


def _transfer_syntax_fault(written: Written) -> str | None:
    found = written.dataset.file_meta.get("TransferSyntaxUID")
    return None if found in LOSSLESS else f"its transfer syntax is {found}"


def _uid_form(evidence: Evidence) -> Iterator[Breach]:
    return each(evidence.written, _uid_form_fault)


def _uid_form_fault(written: Written) -> str | None:
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        if not _is_ours(str(written.get(keyword))):
            return f"{keyword} {written.get(keyword)} is no {marks.UID_ROOT}UUIDv{_UUID_VERSION}"
    return None


def _is_ours(uid: str) -> bool:
    match = re.fullmatch(re.escape(marks.UID_ROOT) + r"([1-9][0-9]{0,38})", uid)
    if match is None or int(match[1]) >= 1 << 128:
        return False
    return uuid.UUID(int=int(match[1])).version == _UUID_VERSION


def _uid_unique(evidence: Evidence) -> Iterator[Breach]:
    counts = Counter(str(w.get("SOPInstanceUID")) for w in evidence.written)
    return (
        Breach("set", f"{uid} names {count} objects") for uid, count in counts.items() if count > 1
    )


def _uid_foreign(evidence: Evidence) -> Iterator[Breach]:
    taken = {str(dataset.get(k)) for dataset in evidence.source for k in SOURCE_UIDS}

    def fault(written: Written) -> str | None:
        used = [k for k in ("SOPInstanceUID", "SeriesInstanceUID") if written.get(k) in taken]
        return f"{', '.join(used)} is a UID of the source" if used else None

    return each(evidence.written, fault)


def _series(evidence: Evidence) -> Iterator[Breach]:
    kinds: dict[str, set[str]] = {}
    series: dict[str, set[str]] = {}
    for written in evidence.written:
        uid = str(written.get("SeriesInstanceUID"))
        kinds.setdefault(uid, set()).add(written.kind)
        series.setdefault(written.kind, set()).add(uid)
    for uid, found in kinds.items():
        if len(found) > 1:
            yield Breach("set", f"series {uid} holds {', '.join(sorted(found))}")
    for kind, uids in series.items():
        if len(uids) > 1:
            yield Breach("set", f"{kind} is spread over {len(uids)} series")


RULES: Final = (
    Rule("GATE-READABLE", "The bytes of every object are a DICOM file (PS3.10).", _readable),
    Rule("GATE-STRUCTURE", "The bytes stand the strict scan of received ones.", _structure),
    Rule(
        "GATE-FOUR-NAMES",
        "The outbox's record, the file meta and the data set name the same object.",
        _four_names,
    ),
    Rule(
        "GATE-TRANSFER-SYNTAX",
        "Pixels are stored uncompressed or compressed without loss.",
        _transfer_syntax,
    ),
    Rule("GATE-UID-FORM", "Every UID of ours is 2.25 and a named UUID.", _uid_form),
    Rule("GATE-UID-UNIQUE", "No two objects bear the same SOP Instance UID.", _uid_unique),
    Rule("GATE-UID-FOREIGN", "No object bears a UID of its source.", _uid_foreign),
    Rule("GATE-SERIES", "Each kind of object is one series of its own.", _series),
)
