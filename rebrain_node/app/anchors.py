"""Compares the anchors in structured reports of this node with its audit log.

A report names number and hash of a row of the log, with the signature of the node. Reports lie in
the PACS, where the administrator of the node cannot change them: they show a log whose end was
cut, that was written again, or an old copy that was put back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rebrain_node.domain.audit import AuditDifference, Checkpoint
from rebrain_node.domain.marks import CODING_SCHEME
from rebrain_node.errors import StateError
from rebrain_node.model.keys import is_signed
from rebrain_node.steps.write import codes
from rebrain_node.store.checkpoints import row_fault

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from rebrain_node.settings import Settings
    from rebrain_node.store.audit_check import AuditCheck, LogReading


@dataclass(frozen=True, kw_only=True)
class ReportAnchor:
    """What one report says of the log."""

    name: str  #: file, relative to the folder
    sop_instance_uid: str
    sequence: int
    hash: str
    signed: Checkpoint | None  #: None in a report of an earlier version


@dataclass(frozen=True, kw_only=True)
class ReportComparison:
    """What came of the comparison."""

    compared: int  #: signed reports of this node
    unsigned: int  #: reports of this node without a signature, of an earlier version
    others: int  #: reports with the key of another node
    before: int  #: of those compared, older than the first row of the log
    differences: tuple[AuditDifference, ...]

    @property
    def agree(self) -> bool:
        """Whether there was something to compare and nothing contradicts it."""
        return bool(self.compared or self.unsigned) and not self.differences


def compare_reports(check: AuditCheck, folder: Path) -> ReportComparison:
    """Compare every report below a folder with the log.

    Raises
    ------
    StateError
        The folder has no report with an anchor.
    OSError
        A file cannot be read.
    """
    anchors = tuple(read_anchors(folder))
    if not anchors:
        raise StateError(
            f"{folder} holds no structured report with an anchor of an audit log; export the SR "
            "of synthetic series from the PACS into it"
        )
    rows = check.rows(
        [each.sequence for each in anchors], [each.sop_instance_uid for each in anchors]
    )
    counts = {"compared": 0, "unsigned": 0, "others": 0, "before": 0}
    differences: list[AuditDifference] = []
    for each in anchors:
        kind, fault = _verdict(each, check.keys, rows)
        counts[kind] += 1
        counts["before"] += kind != "others" and each.sequence < rows.first - 1
        if fault is not None:
            sentence = f"report {each.name} (SOP instance {each.sop_instance_uid}): {fault}"
            differences.append(AuditDifference(kind="report", subject=each.name, sentence=sentence))
    return ReportComparison(differences=tuple(differences), **counts)


def fetch_reports(settings: Settings, name: str, folder: Path) -> int:
    """Retrieve the reports that a destination holds into a folder; how many.

    Raises
    ------
    SettingsError
        There is no destination of that name that is reached over DICOM.
    DeliveryError
        It cannot be reached, or cannot be asked.
    """
    from rebrain_node.app.tasks import find_destination
    from rebrain_node.network.report_query import fetch_reports

    return fetch_reports(find_destination(settings, name), settings.receiver.ae_title, folder)


def _verdict(
    each: ReportAnchor, keys: Collection[str], rows: LogReading
) -> tuple[Literal["compared", "unsigned", "others"], str | None]:
    """Say whose report it is, and in what it contradicts the log."""
    is_known = each.sop_instance_uid in rows.objects
    if each.signed is None:
        return ("unsigned", _row_fault(each, rows)) if is_known else ("others", None)
    if each.signed.key not in keys:
        fault = (
            f"it is signed with the key {each.signed.key}, which is not the key of this node, and "
            "the outbox holds it: the log was written again with another key, or an earlier key "
            "is to be given with --key"
        )
        return ("compared", fault) if is_known else ("others", None)
    if not is_signed(each.signed.statement, each.signed.signature, each.signed.key):
        return "compared", "its signature is not of what it says: the report was altered"
    altered = _row_fault(each, rows)
    if altered is None and not is_known:
        altered = "the outbox does not know it: its rows were removed, or an old copy was put back"
    return "compared", altered


def _row_fault(each: ReportAnchor, rows: LogReading) -> str | None:
    return row_fault(each.sequence, each.hash, rows.hashes, rows.first)


def read_anchors(folder: Path) -> Iterator[ReportAnchor]:
    """Read the anchor of every structured report below a folder; other files are passed over.

    Raises
    ------
    OSError
        A file cannot be read.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.uid import Comprehensive3DSRStorage

    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            report = pydicom.dcmread(path)
            if report.get("SOPClassUID") == Comprehensive3DSRStorage:
                found = _anchor(str(path.relative_to(folder)), report)
                if found is not None:
                    yield found
        except (InvalidDicomError, ValueError, TypeError, AttributeError, KeyError):
            continue  # no report of ours


def _anchor(name: str, report: Dataset) -> ReportAnchor | None:
    texts = dict(_texts(report))
    head = texts.get(codes.AUDIT_HEAD[0])
    if head is None:
        return None
    number, digest = head.split()
    signature, signed = texts.get(codes.AUDIT_SIGNATURE[0]), None
    if signature is not None:
        place, signed_at, key, value = signature.split()
        signed = Checkpoint(
            number=int(place),
            kind="checkpoint",
            sequence=int(number),
            hash=digest,
            signed_at=signed_at,
            key=key,
            signature=value,
        )
    return ReportAnchor(
        name=name,
        sop_instance_uid=str(report.SOPInstanceUID),
        sequence=int(number),
        hash=digest,
        signed=signed,
    )


def _texts(item: Dataset) -> Iterator[tuple[str, str]]:
    """Yield code value and text of every text item of our scheme, at any depth."""
    waiting = [item]
    while waiting:
        one = waiting.pop()
        waiting.extend(one.get("ContentSequence") or ())
        if one.get("ValueType") == "TEXT" and one.get("ConceptNameCodeSequence"):
            name = one.ConceptNameCodeSequence[0]
            if name.get("CodingSchemeDesignator") == CODING_SCHEME:
                yield str(name.get("CodeValue")), str(one.TextValue)
