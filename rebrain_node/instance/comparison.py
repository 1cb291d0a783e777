"""Comparison of an object as it was sent with the object that a destination holds."""

from __future__ import annotations

from io import BytesIO
from typing import Final

from pydicom import dcmread
from pydicom.dataset import Dataset

#: what identifies patient and examination of a study
_IDENTITY: Final = {"Patient ID": "PatientID", "Accession Number": "AccessionNumber"}
#: elements that an archive may add or change without changing the object
_OF_THE_ARCHIVE: Final = frozenset(
    {
        "RetrieveAETitle", "InstanceAvailability", "StorageMediaFileSetUID", "SpecificCharacterSet",
        "TimezoneOffsetFromUTC", "InstanceCreatorUID",
    }
)  # fmt: skip


def changed_elements(sent: bytes, stored: Dataset) -> tuple[str, ...]:
    """Keywords of the elements of an object that the destination holds otherwise or not at all.

    Private elements and those that an archive may change are left out.
    """
    return tuple(
        element.keyword
        for element in dcmread(BytesIO(sent))
        if element.keyword
        and element.keyword not in _OF_THE_ARCHIVE
        and (element.tag not in stored or stored[element.tag].value != element.value)
    )


def differing_identity(there: Dataset, ours: Dataset) -> tuple[str, ...]:
    """Names of what identifies patient and examination and differs between two data sets."""
    return tuple(
        name for name, keyword in _IDENTITY.items() if _text(there, keyword) != _text(ours, keyword)
    )


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()
