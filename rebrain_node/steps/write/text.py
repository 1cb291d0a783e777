"""Text of the source, copied as bytes; text of ours, in the default repertoire (PS3.5 6.1)."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Sequence
from typing import Final

from pydicom.charset import convert_encodings, encode_string
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, PersonName

from rebrain_node.domain.findings import Finding
from rebrain_node.errors import SeriesRejectedError

LONG_STRING: Final = 64  #: characters of VR LO (PS3.5 6.2)


def plain(text: str, limit: int) -> str:
    """Our own words in ASCII, which every SpecificCharacterSet encodes alike, cut to ``limit``."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "replace").decode()
    return ascii_only.replace("\\", "/")[:limit]


def copy_text(source: Dataset, keyword: str) -> RawDataElement | None:
    """Copy a text element byte by byte, ready to be put into another data set.

    Bytes not yet decoded are taken as received; a value that an earlier step has decoded is
    encoded again in the source's SpecificCharacterSet and compared. Trailing padding, which has
    no meaning in these VRs (PS3.5 6.2), is put back to an even length either way.

    Returns
    -------
    RawDataElement or None
        None where the source has no such element.

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
    if isinstance(element, RawDataElement):
        content = element.value or b""
    else:
        content = _encoded(element, source, keyword)
    content = content.rstrip(b" \0")
    if len(content) % 2:
        content += b"\0" if vr == "UI" else b" "
    return RawDataElement(tag, vr, len(content), content, 0, False, True)


def _encoded(element: DataElement, source: Dataset, keyword: str) -> bytes:
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    values = ["" if value is None else value for value in values]
    if element.VR not in CUSTOMIZABLE_CHARSET_VR:
        return "\\".join(str(value) for value in values).encode("ascii")
    encodings = convert_encodings(source.get("SpecificCharacterSet", None) or "ISO_IR 6")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return b"\\".join(_encode(value, encodings) for value in values)
    except (UnicodeError, UserWarning) as error:
        raise SeriesRejectedError(
            (
                Finding(
                    code="CHARSET",
                    sentence=f"{keyword} holds characters outside the declared character set, so "
                    "it cannot be copied exactly; correct (0008,0005) at the sender",
                    value=keyword,
                ),
            )
        ) from error


def _encode(value: str | PersonName, encodings: Sequence[str]) -> bytes:
    if isinstance(value, PersonName):
        return bytes(value.encode(encodings))
    return encode_string(value, list(encodings))
