"""Whether two files hold the same instance, whatever their encoding; digests that tell it.

Values are compared as decoded, pixels as the stored values they decode to, so that a change of
transfer syntax, character set or file meta information is none of the instance. What a PACS
adds on the way (where to retrieve it, who handled it, private elements, group lengths) is left
out: it says nothing about the patient, the examination or the image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.datadict import (
    add_private_dict_entries,
    dictionary_description,
    dictionary_has_tag,
)
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.utils import iter_pixels
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

from rebrain_node.domain import marks
from rebrain_node.instance import codecs
from rebrain_node.instance.elements import UNREADABLE
from rebrain_node.instance.pixels import settle_bits, without_excess

#: elements that belong to the way and not to the instance (PS3.3 C.12.1, C.12.2, PS3.4 C.6)
_OF_THE_WAY: Final = frozenset(
    {
        0x00080005,  # Specific Character Set: texts are compared as decoded
        0x00080054,  # Retrieve AE Title
        0x00080056,  # Instance Availability
        0x00081190,  # Retrieve URL
        0x0018A001,  # Contributing Equipment Sequence
        0x00201206,  # Number of Study Related Series
        0x00201208,  # Number of Study Related Instances
        0x00201209,  # Number of Series Related Instances
        0x00280006,  # Planar Configuration: of the encoding
        0x00880130,  # Storage Media File-set ID
        0x00880140,  # Storage Media File-set UID
        0x04000561,  # Original Attributes Sequence
        0x4FFE0001,  # MAC Parameters Sequence: of a signature over the encoding
        0xFFFAFFFA,  # Digital Signatures Sequence
        0xFFFCFFFC,  # Data Set Trailing Padding
    }
)
_PIXELS: Final = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009, 0x7FE00010})
_LOSSY_COMPRESSION: Final = 0x00282110
_PHOTOMETRIC_INTERPRETATION: Final = 0x00280004

# without these, our private elements have no VR where the encoding names none
add_private_dict_entries(
    marks.PRIVATE_CREATOR,
    {
        (marks.PRIVATE_GROUP << 16) + each.offset: (each.vr, "1-n", each.name, "")
        for each in (*marks.OBJECT_ELEMENTS, *marks.SLICE_ELEMENTS, marks.SLICE_PROVENANCE)
    },
)


@dataclass(frozen=True)
class InstanceDigests:
    """SHA-256 of what an instance says and shows, whatever its encoding, hexadecimal."""

    content: str  #: of all elements that `same_content` compares, and of our private block
    pixels: str | None  #: of the decoded frames; None of an instance without pixels


def instance_digests(content: bytes) -> InstanceDigests:
    """Digest the elements and the pixels of a DICOM file.

    Elements: a JSON array of (tag, value) in the order of the tags, ASCII without spaces. Pixels:
    of each frame its type and shape as JSON, then its values, little endian, row by row.

    Raises
    ------
    ValueError
        The pixels cannot be decoded.
    """
    data_set = dcmread(BytesIO(content))
    said = list(_elements(data_set, ours=True).items())
    text = json.dumps(said, separators=(",", ":"), default=_text)
    if not any(tag in data_set for tag in _PIXELS):
        return InstanceDigests(hashlib.sha256(text.encode()).hexdigest(), None)
    pixels = hashlib.sha256()
    try:
        for frame in _frames(data_set):
            pixels.update(json.dumps([frame.dtype.kind, *frame.shape]).encode())
            pixels.update(frame.astype(frame.dtype.newbyteorder("<")).tobytes())
    except (*UNREADABLE, RuntimeError) as error:
        raise ValueError(f"the pixels cannot be decoded ({codecs.reason_of(error)})") from error
    return InstanceDigests(hashlib.sha256(text.encode()).hexdigest(), pixels.hexdigest())


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def same_content(first: bytes, second: bytes) -> bool:
    """Whether two DICOM files of the same SOP Instance UID hold the same instance.

    A lossy copy is another instance: its pixels differ. Pixels that cannot be decoded are equal
    only as the bytes they are.
    """
    if different_elements(first, second):
        return False
    one, other = dcmread(BytesIO(first)), dcmread(BytesIO(second))
    pixels, others_pixels = one.get("PixelData"), other.get("PixelData")
    if pixels == others_pixels and (not pixels or _syntax(one) == _syntax(other)):
        return True
    try:
        pairs = zip(_frames(one), _frames(other), strict=True)
        return all(np.array_equal(frame, copy) for frame, copy in pairs)
    except (*UNREADABLE, RuntimeError):
        return False


def different_elements(first: bytes, second: bytes) -> tuple[str, ...]:
    """Name the elements that differ, e.g. ``Patient's Name (0010,0010)``; pixels are not compared.

    No value is told. Empty elements are as absent ones.
    """
    one, other = (_elements(dcmread(BytesIO(each))) for each in (first, second))
    tags = sorted(tag for tag in one.keys() | other.keys() if one.get(tag) != other.get(tag))
    return tuple(_named(tag) for tag in tags)


def _elements(data_set: Dataset, *, ours: bool = False) -> dict[int, Any]:
    samples = data_set.get("SamplesPerPixel")
    return {
        tag: value
        for tag, value in _decoded(data_set, ours=ours)
        if not (tag == _PHOTOMETRIC_INTERPRETATION and samples == 3)  # changes with the encoding
    }


def _decoded(data_set: Dataset, *, ours: bool) -> Iterator[tuple[int, Any]]:
    """Yield (tag, value) of all elements that count, values in a form that can be compared.

    Private elements count where they are ``ours``.
    """
    for tag in sorted(data_set.keys()):
        if tag.is_private and not (ours and _is_ours(data_set, tag)):
            continue
        if tag.element == 0 or tag in _OF_THE_WAY or tag in _PIXELS:
            continue
        value = _value(data_set, tag, ours=ours)
        if value in (None, "", b"", ()) or (tag == _LOSSY_COMPRESSION and value == "00"):
            continue
        yield int(tag), value


def _is_ours(data_set: Dataset, tag: BaseTag) -> bool:
    creator: DataElement | None = data_set.get((tag.group, tag.element >> 8))
    if tag.group != marks.PRIVATE_GROUP or creator is None:
        return False
    return bool(creator.value == marks.PRIVATE_CREATOR)


def _value(data_set: Dataset, tag: BaseTag, *, ours: bool) -> Any:
    try:
        element = data_set[tag]
    except UNREADABLE:
        return getattr(data_set.get_item(tag), "value", None)
    if element.VR == "SQ":
        return tuple(tuple(_decoded(item, ours=ours)) for item in element.value or ())
    return _comparable(element)


def _comparable(element: DataElement) -> Any:
    value = element.value
    if isinstance(value, bytes):
        return value.rstrip(b"\0 ")
    if isinstance(value, list | tuple | MultiValue):
        return tuple(_single(part) for part in value)
    return _single(value)


def _single(value: Any) -> Any:
    """One value; numbers written as text are compared as that text."""
    if value is None:
        return ""
    if isinstance(value, PersonName):
        return str(value).rstrip("^= ")
    if hasattr(value, "original_string"):
        return str(value.original_string).strip()
    return value.strip("\0 ") if isinstance(value, str) else value


def _syntax(data_set: Dataset) -> Any:
    return data_set.file_meta.get("TransferSyntaxUID")


def _frames(data_set: Dataset) -> Iterator[npt.NDArray[Any]]:
    """Decode frame by frame; bits that are no part of the value are dropped (PS3.5 8.1.1)."""
    codecs.register()
    bits = int(data_set.get("BitsStored") or 0)
    for frame in iter_pixels(without_excess(data_set)):
        if np.issubdtype(frame.dtype, np.integer) and frame.ndim == 2 and bits:
            shift = int(data_set.get("HighBit", bits - 1)) - (bits - 1)
            signed = data_set.get("PixelRepresentation") == 1
            yield settle_bits(frame, bits=bits, shift=shift, signed=signed)
        else:
            yield frame


def _named(tag: int) -> str:

    name = dictionary_description(tag) if dictionary_has_tag(tag) else "element"
    return f"{name} ({tag >> 16:04X},{tag & 0xFFFF:04X})"
