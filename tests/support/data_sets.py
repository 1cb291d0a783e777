"""Small data sets built element by element, so that they can be broken in any place."""

from __future__ import annotations

import struct

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
RLE = "1.2.840.10008.1.2.5"
END_OF_ITEM = b"\xfe\xff\x0d\xe0\0\0\0\0"
END_OF_SEQUENCE = b"\xfe\xff\xdd\xe0\0\0\0\0"
_LONG = {"OB", "OW", "SQ", "UN", "UT"}

Element = tuple[int, str, bytes]


def us(number: int) -> bytes:
    return struct.pack("<H", number)


def text(value: str) -> bytes:
    return value.encode() + b"\0" * (len(value) % 2)


def element(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """One element in Explicit VR Little Endian; ``length`` may lie."""
    size = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    packed = struct.pack("<HI", 0, size) if vr in _LONG else struct.pack("<H", size)
    return head + packed + value


def implicit(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def item(content: bytes, length: int | None = None) -> bytes:
    size = len(content) if length is None else length
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", size) + content


def fragments(*encoded: bytes, table: bytes = b"") -> bytes:
    return item(table) + b"".join(map(item, encoded)) + END_OF_SEQUENCE


def ct(**changes: object) -> dict[int, tuple[str, bytes]]:
    """The elements of a 4 x 6 CT instance, 16 bit, by tag."""
    return {
        0x00080016: ("UI", text(str(changes.get("sop_class", CT)))),
        0x00080018: ("UI", text(str(changes.get("instance", "1.2.3.4.1")))),
        0x00080060: ("CS", b"CT"),
        0x00100010: ("PN", b"A^B "),
        0x0020000D: ("UI", text(str(changes.get("study", "1.2.3")))),
        0x0020000E: ("UI", text(str(changes.get("series", "1.2.3.4")))),
        0x00280002: ("US", us(1)),
        0x00280004: ("CS", b"MONOCHROME2 "),
        0x00280010: ("US", us(4)),
        0x00280011: ("US", us(6)),
        0x00280100: ("US", us(16)),
        0x00280101: ("US", us(12)),
        0x00280102: ("US", us(11)),
        0x00280103: ("US", us(0)),
        0x7FE00010: ("OW", bytes(range(48))),
    }


def encode(elements: dict[int, tuple[str, bytes]]) -> bytes:
    return b"".join(element(tag, *elements[tag]) for tag in sorted(elements))


def encode_implicit(elements: dict[int, tuple[str, bytes]]) -> bytes:
    return b"".join(implicit(tag, elements[tag][1]) for tag in sorted(elements))
