"""Valid DICOM files with random elements made wrong, at any depth; the same seed, the same files.

A data set is taken apart into a tree of (tag, value representation, value), the tree is changed
and written again with right lengths, so that what is wrong is the value and not the container.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

_LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
_SHORT = [
    "AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS",
    "ST", "TM", "UI", "UL", "US",
]  # fmt: skip
#: values that somebody writes somewhere, and values that nobody should
VALUES = (
    b"", b" ", b"\0\0", b"\\", b"\\\\", b"2A", b"-1", b"1.5 ", b"1\\1 ", b"1\\2 ", b"1\\2\\3 ",
    b"NaN ", b"inf ", b"1e400 ", b"99999999999999999999", b"1.2.003 ", b"1..2", b"1.2.3 ",
    b"2020.01.02", b"20200230", b"99999999", b"10:11:12", b"256060", b"101112.1234567 ",
    b"050Y", b"50", b"ISO_IR 192", b"ISO 2022 IR 87", b"\\ISO 2022 IR 87 ", b"ISO_IR 6\\ISO_IR 100",
    b"UNKNOWN ", b"\xff\xfe", b"\x1b$B", b"\xe4\xf6", b"A^B^C^D^E^F^G", b"=====", b"^",
    b"x" * 70, b"1" * 66, b"\x01", b"\x01\x02\x03", bytes(8), b"\xff" * 8, b"\x7f\xf8" + bytes(6),
    bytes(6) + b"\xf8\x7f", b"\0\0\xc0\x7f", b"../../etc", b"\r\n", b"\0" * 16,
)  # fmt: skip


@dataclass
class Element:
    """One element of the tree: a value, or the items of a sequence."""

    tag: int
    vr: str
    value: bytes = b""
    items: list[list[Element]] | None = None


def tree(dataset: Dataset) -> list[Element]:
    """Take a data set apart."""
    found = []
    for each in dataset:
        if each.VR == "SQ":
            items = [tree(item) for item in each.value]
            found.append(Element(int(each.tag), "SQ", items=items))
        else:
            alone = Dataset()
            alone.add(each)
            stream = BytesIO()
            alone.save_as(stream, implicit_vr=False, little_endian=True)
            content = stream.getvalue()
            found.append(Element(int(each.tag), each.VR, content[12 if each.VR in _LONG else 8 :]))
    return found


def written(elements: Sequence[Element], *, implicit: bool = False) -> bytes:
    """Write a tree in explicit or implicit VR little endian, in the order given."""
    return b"".join(_element(each, implicit) for each in elements)


def _element(one: Element, implicit: bool) -> bytes:
    value = one.value
    if one.items is not None:
        parts = [written(item, implicit=implicit) for item in one.items]
        value = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(p)) + p for p in parts)
    header = struct.pack("<HH", one.tag >> 16, one.tag & 0xFFFF)
    if implicit:
        return header + struct.pack("<I", len(value)) + value
    vr = one.vr.encode()
    if one.vr in _LONG:
        return header + vr + struct.pack("<HI", 0, len(value)) + value
    return header + vr + struct.pack("<H", len(value) & 0xFFFF) + value[:0xFFFF]


def file_of(meta: bytes, elements: Sequence[Element]) -> bytes:
    """A DICOM file with the preamble and meta information of another one."""
    return meta + written(elements)


def meta_of(content: bytes) -> bytes:
    """Preamble and file meta information of a file."""
    return content[: 144 + int.from_bytes(content[140:144], "little")]


def mutants(
    content: bytes, keywords: Sequence[str], generator: random.Random, count: int
) -> Iterator[tuple[str, bytes]]:
    """Yield ``count`` files made of one: what was changed, and the bytes.

    Parameters
    ----------
    keywords : sequence of str
        Elements that are put in beside those of the file.
    """
    meta = meta_of(content)
    for _ in range(count):
        elements = tree(dcmread(BytesIO(content)))
        told = [_change(elements, keywords, generator) for _ in range(generator.choice((1, 1, 2)))]
        yield "; ".join(told), file_of(meta, elements)


def _change(elements: list[Element], keywords: Sequence[str], generator: random.Random) -> str:
    place = generator.choice(list(_data_sets(elements)))
    if not place or generator.random() < 0.35:
        return _put_in(place, generator.choice(keywords), generator)
    one = generator.choice(place)
    if one.tag == 0x7FE00010:
        one = place[0]
    how = generator.choice(("value", "value", "value", "vr", "both", "length", "sequence", "gone"))
    if how in {"value", "both"}:
        one.value, one.items = generator.choice(VALUES), None
        if one.vr == "SQ":
            one.vr = "UN"
    if how in {"vr", "both"} and one.items is None:
        one.vr = generator.choice(_SHORT)
    if how == "length":
        one.value = one.value[: generator.randrange(len(one.value) + 1)] + generator.choice(
            (b"", b"\0", b" ", b"\\", b"1")
        )
    if how == "sequence":
        one.vr, one.items = "SQ", [[] for _ in range(generator.randrange(3))]
    if how == "gone":
        place.remove(one)
    return f"({one.tag:08X}) {how} {one.vr} {one.value[:20]!r}"


def _put_in(place: list[Element], keyword: str, generator: random.Random) -> str:
    tag = int(tag_for_keyword(keyword) or 0)
    standard = dictionary_VR(tag).split()[0]
    vr = standard if generator.random() < 0.7 else generator.choice([*_SHORT, "UN", "OB", "SQ"])
    new = Element(tag, vr, generator.choice(VALUES))
    if vr == "SQ":
        inner = [Element(0x00080100, "SH", generator.choice(VALUES))]
        new.items = [inner, []][: generator.randrange(3)]
    place[:] = sorted([e for e in place if e.tag != tag] + [new], key=lambda each: each.tag)
    return f"{keyword} put in {vr} {new.value[:20]!r}"


def _data_sets(elements: list[Element]) -> Iterator[list[Element]]:
    yield elements
    for each in elements:
        for item in each.items or ():
            yield from _data_sets(item)
