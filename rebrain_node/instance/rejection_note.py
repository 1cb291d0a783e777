"""Read a rejection note that another system made (IHE IOCM; PS3.3 A.35.4, PS3.16 CID 7011)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydicom.dataset import Dataset

from rebrain_node.domain.delivery import REJECTION_TITLES, RejectionDocument

#: Key Object Selection Document Storage
KEY_OBJECT_SELECTION: Final = "1.2.840.10008.5.1.4.1.1.88.59"


def rejection_of(instance: Dataset) -> RejectionDocument | None:
    """Read which objects a Key Object Selection rejects; None where it is no rejection note.

    Rejected is what the content or the evidence names; a reference that cannot be read is left
    out.
    """
    if instance.get("SOPClassUID") != KEY_OBJECT_SELECTION:
        return None
    for title in _items(instance, "ConceptNameCodeSequence"):
        code = str(title.get("CodeValue", ""))
        if title.get("CodingSchemeDesignator") == "DCM" and code in REJECTION_TITLES:
            return RejectionDocument(
                sop_instance_uid=str(instance.SOPInstanceUID),
                title=code,
                rejected=tuple(dict.fromkeys(_referenced(instance))),
            )
    return None


def _referenced(instance: Dataset) -> Iterator[str]:
    holders = list(_items(instance, "ContentSequence"))
    for study in _items(instance, "CurrentRequestedProcedureEvidenceSequence"):
        holders += _items(study, "ReferencedSeriesSequence")
    for holder in holders:
        for reference in _items(holder, "ReferencedSOPSequence"):
            uid = reference.get("ReferencedSOPInstanceUID")
            if uid:
                yield str(uid)


def _items(data_set: Dataset, keyword: str) -> Iterator[Dataset]:
    yield from data_set.get(keyword) or ()  # the scan has refused what is no sequence
