"""Objects of a set parsed from their bytes; elements of equal bytes are decoded once for all.

The slices of a series agree in most of their elements, and a report repeats the names of its
numbers in every group, so that a set holds about a tenth as many different elements as elements.
"""

from __future__ import annotations

import io
from typing import Final

from pydicom import dcmread
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

#: pydicom looks for the VR of these in the data set that holds them
_VR_UNKNOWN: Final = ("UN", None)
#: what the value of an element depends on: character set, tag, VR, bytes
_Key = tuple[str, BaseTag, str | None, bytes]


class ElementCache:
    """The elements of one set by their bytes; data sets share them, so they are only to be read."""

    def __init__(self) -> None:
        self._decoded: dict[_Key, DataElement] = {}

    def parse(self, content: bytes) -> Dataset:
        """Parse a DICOM file and decode every value.

        pydicom decodes a value when it is first read; here all are, so that an object with a value
        that cannot be decoded counts as unreadable and does not violate whichever rule reads it.

        Raises
        ------
        Exception
            Whatever pydicom raises of bytes that are no data set (`context.PARSE_ERRORS`).
        """
        dataset: Dataset = dcmread(io.BytesIO(content), force=False)
        self._decode(dataset, "")
        return dataset

    def _decode(self, dataset: Dataset, characters: str) -> None:
        characters = str(dataset.get("SpecificCharacterSet", characters))
        for tag in list(dataset.keys()):
            raw = dataset.get_item(tag)
            if not isinstance(raw, RawDataElement) or raw.VR in _VR_UNKNOWN:
                self._descend(dataset[tag], characters)
                continue
            key = characters, tag, raw.VR, raw.value or b""
            known = self._decoded.get(key)
            if known is not None:
                dataset[tag] = known
                continue
            element = dataset[tag]
            self._descend(element, characters)
            self._decoded[key] = element

    def _descend(self, element: DataElement, characters: str) -> None:
        if element.VR == "SQ":
            for item in element.value:
                self._decode(item, characters)
