"""Bytes of a scanned instance to a data set whose numbers can be trusted to be numbers.

This is the one place where values that break their representation are read leniently (PS3.5 6.2,
6.4): a number that is none, too many or too few of them, or one that does not fit its bytes, is
left out, so that every later step finds a number or nothing. One number written several times is
taken once. Text is left as it was received; what it means is judged where it is used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from typing import Final

from pydicom import config, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from rebrain_node.instance.elements import TEXT_VRS, VALUE_BYTES

#: groups of attributes that Enhanced CT moves out of the top level (PS3.3 C.7.6.16)
_FUNCTIONAL_GROUPS: Final = (0x52009229, 0x52009230)
_NUMBER: Final = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LARGEST_INTEGER: Final = 2**31 - 1  # VR IS


def read_instance(content: bytes) -> Dataset:
    """Read a DICOM file that passed the scan."""
    config.settings.reading_validation_mode = config.IGNORE  # its warnings would tell values
    instance = dcmread(BytesIO(content))
    _repair(instance)
    for tag in _FUNCTIONAL_GROUPS:
        if tag in instance:
            for item in _items(instance, BaseTag(tag)):
                _repair(item)
    return instance


def _items(data_set: Dataset, tag: BaseTag) -> Iterator[Dataset]:
    """Yield every item of a sequence and of the sequences in it."""
    for item in data_set[tag].value or ():
        yield item
        for inner in list(item.keys()):
            if _vr(inner) == "SQ":
                yield from _items(item, inner)


def _repair(data_set: Dataset) -> None:
    for tag in list(data_set.keys()):
        element, vr = data_set.get_item(tag), _vr(tag)
        if vr is None or not isinstance(element, RawDataElement):
            continue
        if vr in VALUE_BYTES or vr in {"DS", "IS"}:
            kept = _number(element, vr, _count(tag))
            if kept is None:
                del data_set[tag]
                continue
        else:
            kept = element
        if vr in TEXT_VRS and kept.VR in TEXT_VRS:
            kept = kept._replace(VR=vr)
        if kept != element:
            data_set[tag] = kept


def _number(element: RawDataElement, vr: str, count: int | None) -> RawDataElement | None:
    """The element with as many numbers as it may have, or None where it has no such ones."""
    value = element.value
    if not value:
        return element
    parts = _text_parts(value, vr) if vr in {"DS", "IS"} else _binary_parts(value, vr)
    if parts is None or element.VR not in {None, vr, "UN", *_alike(vr)}:
        return None
    if count is None or len(parts) == count:
        return element
    if count == 1 and len(set(parts)) == 1:
        return element._replace(value=parts[0], length=len(parts[0]))
    return None


def _alike(vr: str) -> tuple[str, ...]:
    """Representations in which a value has the same bytes."""
    if vr in {"DS", "IS"}:
        return tuple(TEXT_VRS)
    return ("US", "SS") if vr in {"US", "SS", "US or SS"} else ()


def _text_parts(value: bytes, vr: str) -> list[bytes] | None:
    parts = [part.strip(b" \0") for part in value.split(b"\\")]
    if not all(_NUMBER.fullmatch(part) for part in parts if part):
        return None
    numbers = [float(part) for part in parts if part]
    fits = _is_integer if vr == "IS" else math.isfinite
    return parts if all(fits(number) for number in numbers) else None


def _is_integer(number: float) -> bool:
    return number.is_integer() and abs(number) <= _LARGEST_INTEGER


def _binary_parts(value: bytes, vr: str) -> list[bytes] | None:
    size = VALUE_BYTES[vr]
    if len(value) % size:
        return None
    return [value[at : at + size] for at in range(0, len(value), size)]


@cache
def _vr(tag: BaseTag) -> str | None:
    """Value representation of a standard element; None for private and unknown ones."""
    return dictionary_VR(tag) if not tag.is_private and dictionary_has_tag(tag) else None


@cache
def _count(tag: BaseTag) -> int | None:
    """How many values a standard element has, where that is fixed."""
    multiplicity = dictionary_VM(tag)
    return int(multiplicity) if multiplicity.isdigit() else None
