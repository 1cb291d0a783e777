"""Encoding of data sets, text and numbers: Explicit VR Little Endian, copied text untouched.

pydicom decodes and encodes raw elements again unless a data set says that it was read in the very
encoding it is written in (``Dataset.set_original_encoding``); ours says so. It then no longer
resolves ambiguous VRs either: whoever sets such an element calls ``correct_ambiguous_vr``.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Final

from pydicom import dcmwrite
from pydicom.charset import convert_encodings, default_encoding, encode_string
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, PersonName, format_number_as_ds

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import DerivedInstance, ObjectKind
from rebrain_node.errors import SeriesRejectedError

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
    _keep_raw(dataset)
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return DerivedInstance(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        content=buffer.getvalue(),
    )


def keep_raw_item(item: Dataset) -> Dataset:
    """Let the raw elements of a sequence's item be written as they are."""
    item.set_original_encoding(False, True, default_encoding)
    return item


def _keep_raw(dataset: Dataset) -> None:
    declared = dataset.get("SpecificCharacterSet", None)
    encodings = convert_encodings(declared) if declared else default_encoding
    dataset.set_original_encoding(False, True, encodings)


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
