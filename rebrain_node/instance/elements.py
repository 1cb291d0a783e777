"""Walk over the elements of an encoded data set without trusting any of its lengths.

pydicom keeps the last of two equal tags, takes a truncated value silently and recurses as deep
as the sender wants; here each of these is an error. Values are not decoded.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import lru_cache
from mmap import mmap
from typing import Final, NoReturn

from pydicom.datadict import dictionary_description, dictionary_has_tag, dictionary_VR
from pydicom.errors import BytesLengthException
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

#: items within items; the deepest real reports stay below 10
MAXIMUM_NESTING: Final = 16
#: bounds the time of a scan to about a second; an Enhanced CT of 2 000 frames has 120 000
MAXIMUM_ELEMENTS: Final = 300_000

UNDEFINED: Final = 0xFFFFFFFF
PIXEL_DATA: Final = 0x7FE00010
#: Samples per Pixel to Pixel Representation, which say how the pixels are to be read
PIXEL_DESCRIPTION: Final = frozenset(
    {0x00280002, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103}
)
_CHARACTER_SET = 0x00080005
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_TRAILING_PADDING = 0xFFFCFFFC
_LONGEST_KEPT = 1024  # bytes; no value that a scan wants is longer
#: answers of the dictionary that are remembered; a series has a few hundred kinds of elements
_REMEMBERED = 4096
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
#: values are characters: these may be written for each other and are still read alike
TEXT_VRS: Final = frozenset(
    map(bytes.decode, b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())
)
_TEXTS = TEXT_VRS - {"DS", "IS"}
#: bytes of one value of each binary representation (PS3.5 6.2)
VALUE_BYTES: Final = {
    "US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "UV": 8, "SV": 8, "AT": 4,
    "US or SS": 2,
}  # fmt: skip
#: what pydicom raises where a value breaks its representation
UNREADABLE: Final = (
    BytesLengthException, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
    NotImplementedError,
)  # fmt: skip
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())


class MalformedError(Exception):
    """The data set breaks a rule; ``reason`` is one of docs/receiving.md."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def broken(reason: str, sentence: str) -> NoReturn:
    """Stop the scan.

    Raises
    ------
    MalformedError
        Always.
    """
    raise MalformedError(reason, sentence)


@dataclass(frozen=True, kw_only=True)
class Fragments:
    """Encapsulated pixel data (PS3.5 A.4): where its items lie."""

    offset_table: tuple[int, ...]  #: Basic Offset Table, empty if the sender left it out
    starts: tuple[int, ...]  #: of each fragment's item, counted from the first one's, bytes
    lengths: tuple[int, ...]  #: bytes


@dataclass(kw_only=True)
class Elements:
    """What is wanted of the top level of a data set."""

    values: dict[int, bytes] = field(default_factory=dict)  #: short values by tag, undecoded
    lengths: dict[int, int] = field(default_factory=dict)  #: by tag
    fragments: Fragments | None = None  #: of Pixel Data, where it is encapsulated


#: groups a data set may hold; below are command and file meta, above only delimiters (PS3.5 7.1)
DATA_SET_GROUPS: Final = range(0x0004, 0xFFFC)


def walk(
    content: bytes | mmap,
    transfer_syntax_uid: str,
    *,
    wanted: AbstractSet[int],
    start: int = 0,
    groups: range = DATA_SET_GROUPS,
) -> Elements:
    """Walk over a data set from ``start`` on, or over file meta information if ``groups`` say so.

    Of all elements the tags are held against each other; only those ``wanted`` take memory.

    Raises
    ------
    MalformedError
        A rule of the encoding is broken, or there are too many elements.

    References
    ----------
    PS3.5 chapter 7.
    """
    elements = Elements()
    walker = _Walker(
        content,
        big_endian=transfer_syntax_uid == ExplicitVRBigEndian,
        elements=elements,
        groups=groups,
        wanted=wanted,
    )
    walker.data_set(start, len(content), transfer_syntax_uid == ImplicitVRLittleEndian, 0)
    return elements


def end_of_group(content: bytes, at: int, group: int) -> int:
    """Offset of the first element of another group, in Explicit VR Little Endian.

    Raises
    ------
    MalformedError
        A header is cut or has an unknown value representation.
    """
    walker = _Walker(
        content,
        big_endian=False,
        elements=Elements(),
        groups=range(group, group + 1),
        wanted=frozenset(),
    )
    return walker.end_of_group(at, group)


class _Walker:
    """One walk; ``at`` and ``end`` are offsets into the content."""

    def __init__(
        self,
        content: bytes | mmap,
        *,
        big_endian: bool,
        elements: Elements,
        groups: range,
        wanted: AbstractSet[int],
    ) -> None:
        self._content = content
        self._wanted = wanted
        self._groups = groups
        self._elements = elements
        self._count = 0
        order = ">" if big_endian else "<"
        self._implicit = struct.Struct(order + "HHI").unpack_from
        self._explicit = struct.Struct(order + "HH2sH").unpack_from
        self._long = struct.Struct(order + "I").unpack_from

    def data_set(
        self, at: int, end: int, implicit: bool, depth: int, *, delimited: bool = False
    ) -> int:
        """Walk over elements to ``end``, or to the item's delimiter; return where it stopped."""
        previous, seen = -1, array("I")
        while at < end:
            tag, vr, length, value = self._header(at, end, implicit)
            fits, size, is_sequence = _expected(tag, vr)
            if not fits:
                broken("VR", _wrong_vr(tag, vr.decode()))
            if tag == _ITEM_END and delimited and length == 0:
                return value
            if tag <= previous:
                reason = "DUP-TAG" if tag in seen else "TAG-ORDER"
                broken(reason, f"{_name(tag)} comes after {_name(previous)}")
            if tag >> 16 not in self._groups and tag != _TRAILING_PADDING:
                broken("TAG", f"{_name(tag)} does not belong into a data set")
            previous = tag
            seen.append(tag)
            if is_sequence or length == UNDEFINED:
                at = self._container(tag, vr, value, (length, end), (implicit, depth))
            else:
                at = value + length
                if at > end or (size and length % size):
                    _wrong_length(tag, length, end - value, size)
            if depth == 0 and tag in self._wanted:
                self._keep(tag, value, at, length)
        if delimited:
            broken("LENGTH", "an item of undefined length has no end")
        return at

    def end_of_group(self, at: int, group: int) -> int:
        """Step over the elements of one group; return where the next group begins."""
        end = len(self._content)
        while at < end and self._content[at : at + 2] == group.to_bytes(2, "little"):
            tag, _, length, value = self._header(at, end, False)
            if value + length > end:
                broken("LENGTH", f"{_name(tag)} claims {length} bytes, {end - value} are left")
            at = value + length
        return at

    def _header(self, at: int, end: int, implicit: bool) -> tuple[int, bytes, int, int]:
        """Read (tag, VR, length, offset of the value); the VR is empty where it is implicit."""
        self._count += 1
        if self._count > MAXIMUM_ELEMENTS:
            broken("SIZE", f"more than {MAXIMUM_ELEMENTS} elements")
        if at + 8 > end:
            broken("LENGTH", f"{end - at} bytes where an element begins")
        if implicit:
            group, element, length = self._implicit(self._content, at)
            return group << 16 | element, b"", length, at + 8
        group, element, vr, length = self._explicit(self._content, at)
        tag = group << 16 | element
        if group == 0xFFFE:
            return tag, b"", self._long(self._content, at + 4)[0], at + 8
        if vr in _SHORT_VRS:
            return tag, vr, length, at + 8
        if vr not in _LONG_VRS:
            broken("VR", f"{_name(tag)} has the value representation {vr!r}")
        if at + 12 > end:
            broken("LENGTH", f"{_name(tag)} is cut in its header")
        return tag, vr, self._long(self._content, at + 8)[0], at + 12

    def _container(
        self, tag: int, vr: bytes, at: int, bounds: tuple[int, int], where: tuple[bool, int]
    ) -> int:
        """Step into a sequence or encapsulated pixel data; return where it ends."""
        (length, end), (implicit, depth) = bounds, where
        undefined = length == UNDEFINED
        if not undefined and at + length > end:
            _wrong_length(tag, length, end - at)
        if tag == PIXEL_DATA and undefined and vr in {b"OB", b"OW"}:
            return self._encapsulated(at, end, keep=depth == 0)
        if vr not in {b"SQ", b"UN", b""}:
            broken("LENGTH", f"{_name(tag)} has no length")
        stop = end if undefined else at + length
        inner = implicit or vr == b"UN"  # PS3.5 6.2.2 note 2: UN holds implicit elements
        return self._sequence(at, stop, (inner, depth + 1), delimited=undefined)

    def _sequence(self, at: int, end: int, where: tuple[bool, int], *, delimited: bool) -> int:
        """Walk over the items of a sequence; return where it ends."""
        implicit, depth = where
        if depth > MAXIMUM_NESTING:
            broken("NESTING", f"sequences nested more than {MAXIMUM_NESTING} deep")
        while at < end:
            tag, _, length, at = self._header(at, end, True)
            if tag == _SEQUENCE_END and delimited and length == 0:
                return at
            if tag != _ITEM:
                broken("TAG", f"{_name(tag)} where an item of a sequence begins")
            if length == UNDEFINED:
                at = self.data_set(at, end, implicit, depth, delimited=True)
            elif at + length > end:
                broken("LENGTH", f"an item claims {length} bytes of {end - at}")
            else:
                at = self.data_set(at, at + length, implicit, depth)
        if delimited:
            broken("LENGTH", "a sequence of undefined length has no end")
        return at

    def _encapsulated(self, at: int, end: int, *, keep: bool) -> int:
        """Walk over the items of encapsulated pixel data; return where it ends."""
        items: list[tuple[int, int]] = []
        while True:
            tag, _, length, value = self._header(at, end, True)
            if tag == _SEQUENCE_END and length == 0:
                break
            if tag != _ITEM or value + length > end:
                broken("PIXEL-FRAMES", "the fragments of the pixel data are broken")
            items.append((value, length))
            at = value + length
        if not items or items[0][1] % 4:
            broken("PIXEL-FRAMES", "the pixel data have no proper offset table")
        if keep:
            table_at, table_length = items[0]
            table = struct.unpack_from(f"<{table_length // 4}I", self._content, table_at)
            first = table_at + table_length
            self._elements.fragments = Fragments(
                offset_table=table,
                starts=tuple(item - 8 - first for item, _ in items[1:]),
                lengths=tuple(size for _, size in items[1:]),
            )
        return value

    def _keep(self, tag: int, at: int, end: int, length: int) -> None:
        self._elements.lengths[tag] = length
        if length <= _LONGEST_KEPT:
            self._elements.values[tag] = self._content[at:end]


@lru_cache(_REMEMBERED)
def _expected(tag: int, vr: bytes) -> tuple[bool, int | None, bool]:
    """Say of an element whether its VR fits, bytes of one number, and whether it is a sequence."""
    is_sequence = vr == b"SQ" or (vr in {b"", b"UN"} and _is_sequence(tag))
    return not vr or _fits(tag, vr.decode()), _value_bytes(tag, vr.decode()), is_sequence


def _is_sequence(tag: int) -> bool:
    """Say whether the dictionary of PS3.6 knows the tag as a sequence."""
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def _value_bytes(tag: int, vr: str) -> int | None:
    """Bytes of one number of a standard element, as it is written; None for all others."""
    if tag >> 16 & 1:
        return None
    if vr:
        return VALUE_BYTES.get(vr)
    return VALUE_BYTES.get(dictionary_VR(tag)) if dictionary_has_tag(tag) else None


def _fits(tag: int, vr: str) -> bool:
    """Say whether a value of this representation can be read as that of PS3.6.

    Numbers are left to whoever reads them; names, texts, UIDs, sequences, pixels and their
    description must be what they are called. UN may hold anything (PS3.5 6.2.2).
    """
    known = dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
    if "UN" in (known, vr):
        return True
    if tag == _CHARACTER_SET:
        return vr == "CS"
    if known in _TEXTS or known in {"SQ", "OB or OW"}:
        return vr in (TEXT_VRS if known in _TEXTS else {"SQ"} if known == "SQ" else {"OB", "OW"})
    return vr in {"US", "SS"} if tag in PIXEL_DESCRIPTION else vr != "SQ"


def _wrong_length(tag: int, length: int, left: int, size: int | None = None) -> NoReturn:
    if length > left:
        broken("LENGTH", f"{_name(tag)} claims {length} bytes, its container has {left}")
    broken("LENGTH", f"{name_of(tag)} has {length} bytes, a number of it has {size}")


def _wrong_vr(tag: int, vr: str) -> str:
    return (
        f"{name_of(tag)} has the value representation {vr}, the standard says {dictionary_VR(tag)} "
        "(PS3.6); the device that wrote it must be repaired"
    )


def name_of(tag: int) -> str:
    """Name and number of an element, e.g. ``Rescale Slope (0028,1053)``."""
    name = dictionary_description(tag) if dictionary_has_tag(tag) else "element"
    return f"{name} {_name(tag)}"


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
