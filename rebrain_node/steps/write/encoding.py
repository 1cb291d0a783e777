"""Encoding of data sets, text and numbers: Explicit VR Little Endian, copied text untouched.

pydicom decodes and encodes raw elements again unless a data set says that it was read in the very
encoding it is written in (``Dataset.set_original_encoding``); ours says so. It then no longer
resolves ambiguous VRs either: whoever sets such an element calls ``correct_ambiguous_vr``.
"""

from __future__ import annotations

import struct
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from io import SEEK_END, BytesIO
from typing import Final

from pydicom.charset import convert_encodings, default_encoding, encode_string
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_data_element, write_dataset, write_file_meta_info
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import (
    CUSTOMIZABLE_CHARSET_VR,
    EXPLICIT_VR_LENGTH_32,
    PersonName,
    format_number_as_ds,
)

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import DerivedInstance, ObjectKind
from rebrain_node.errors import SeriesRejectedError

_ITEM: Final = struct.Struct("<LL")  #: tag and length of an item (PS3.5 7.5)
_ITEM_TAG: Final = 0xE000FFFE  #: (FFFE,E000), group first
_SHORT, _LONG = struct.Struct("<HH2sH"), struct.Struct("<HH2sHL")  #: headers (PS3.5 7.1.2)
LONG_STRING: Final = 64  #: characters of VR LO (PS3.5 6.2)


def encoded_once(dataset: Dataset) -> Dataset:
    """Return the same elements as raw bytes, sequences too: cheap to write many times over."""
    _keep_raw(dataset)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, dataset)
    return read_dataset(BytesIO(buffer.getvalue()), is_implicit_VR=False, is_little_endian=True)


def encode(dataset: Dataset, kind: ObjectKind) -> DerivedInstance:
    """Write a data set as the bytes of a DICOM file (PS3.10)."""
    buffer = DicomBytesIO(bytes(128) + b"DICM")
    buffer.seek(0, SEEK_END)
    write_file_meta_info(buffer, dataset.file_meta, enforce_standard=True)
    buffer.write(_Encoder(dataset).data_set(dataset))
    return DerivedInstance(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        content=buffer.getvalue(),
    )


class _Encoder:
    """Encodes a data set, each item and text that repeats once: a report has them in every group.

    pydicom encodes every element anew, into a buffer of its own.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._encodings = _encodings(dataset)
        self._items: dict[int, bytes] = {}  #: by identity; the data set keeps them alive
        self._texts: dict[tuple[BaseTag, str, str], bytes] = {}

    def data_set(self, dataset: Dataset) -> bytes:
        """Encode the elements in the order of their tags."""
        return b"".join(self._element(dataset.get_item(tag)) for tag in sorted(dataset.keys()))

    def _element(self, element: DataElement | RawDataElement) -> bytes:
        tag, vr, value = element.tag, str(element.VR), element.value
        if isinstance(element, RawDataElement):
            return _header(tag, vr, len(value or b"")) + (value or b"")
        if vr == "SQ":
            content = b"".join(map(self._item, element.value))
            return _header(tag, vr, len(content)) + content
        if not isinstance(value, str):
            return self._written(element)
        key = tag, vr, value
        if key not in self._texts:
            self._texts[key] = self._written(element)
        return self._texts[key]

    def _item(self, item: Dataset) -> bytes:
        content = self._items.get(id(item))
        if content is None:
            content = self.data_set(item)
            content = self._items[id(item)] = _ITEM.pack(_ITEM_TAG, len(content)) + content
        return content

    def _written(self, element: DataElement | RawDataElement) -> bytes:
        buffer = DicomBytesIO()
        buffer.is_implicit_VR, buffer.is_little_endian = False, True
        write_data_element(buffer, element, self._encodings)
        return buffer.getvalue()


def _header(tag: BaseTag, vr: str, length: int) -> bytes:
    """Encode tag, VR and length (PS3.5 7.1.2)."""
    if vr in EXPLICIT_VR_LENGTH_32:
        return _LONG.pack(tag.group, tag.element, vr.encode(), 0, length)
    return _SHORT.pack(tag.group, tag.element, vr.encode(), length)


def keep_raw_item(item: Dataset) -> Dataset:
    """Let the raw elements of a sequence's item be written as they are."""
    item.set_original_encoding(False, True, default_encoding)
    return item


def _keep_raw(dataset: Dataset) -> None:
    dataset.set_original_encoding(False, True, _encodings(dataset))


def _encodings(dataset: Dataset) -> str | list[str]:
    declared = dataset.get("SpecificCharacterSet", None)
    return convert_encodings(declared) if declared else default_encoding


def decimal(value: float) -> str:
    """Write a number as VR DS: at most 16 characters, the form nearest to the value (PS3.5 6.2)."""
    return format_number_as_ds(float(value) + 0.0)  # + 0.0 turns -0.0 into 0.0


def decimals(values: Iterable[float]) -> list[str]:
    """Write several numbers as VR DS."""
    return [decimal(value) for value in values]


def plain(text: str, limit: int = LONG_STRING) -> str:
    """Our own words in ASCII, which every SpecificCharacterSet encodes alike, cut to ``limit``."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "replace").decode()
    return ascii_only.replace("\\", "/")[:limit]


def copy_text(source: Dataset, keyword: str) -> RawDataElement | None:
    """Copy a text element byte by byte; None where the source has no such element.

    Bytes not yet decoded are taken as received; a value that an earlier step has decoded is
    encoded again in the source's SpecificCharacterSet. Trailing padding, which has no meaning in
    these VRs (PS3.5 6.2), is put back to an even length either way.

    Raises
    ------
    SeriesRejectedError
        Code ``CHARSET``: the decoded text does not fit the declared character set.
    """
    tag = Tag(keyword)
    element = source.get_item(tag)
    if element is None:
        return None
    vr = dictionary_VR(tag)
    raw = isinstance(element, RawDataElement)
    content = (element.value or b"") if raw else _encoded(element, source, keyword)
    content = content.rstrip(b" \0")
    if len(content) % 2:
        content += b"\0" if vr == "UI" else b" "
    return RawDataElement(tag, vr, len(content), content, 0, False, True)


def _encoded(element: DataElement, source: Dataset, keyword: str) -> bytes:
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    values = ["" if value is None else value for value in values]
    try:
        if element.VR not in CUSTOMIZABLE_CHARSET_VR:
            return "\\".join(str(value) for value in values).encode("ascii")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encodings = convert_encodings(source.get("SpecificCharacterSet", None) or "ISO_IR 6")
            return b"\\".join(_encode(value, encodings) for value in values)
    except (UnicodeError, UserWarning, LookupError) as error:
        finding = Finding(
            code="CHARSET",
            sentence=f"{keyword} holds characters outside the declared character set, so "
            "it cannot be copied exactly; correct (0008,0005) at the sender",
            value=keyword,
        )
        raise SeriesRejectedError((finding,)) from error


def _encode(value: str | PersonName, encodings: Sequence[str]) -> bytes:
    if isinstance(value, PersonName):
        return bytes(value.encode(encodings))
    return encode_string(value, list(encodings))
