"""DICOM files with one element made wrong, byte by byte."""

from __future__ import annotations

import struct
from io import BytesIO

from pydicom.dataset import Dataset


def encoded(instance: Dataset) -> bytes:
    stream = BytesIO()
    instance.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def header(group: int, number: int) -> bytes:
    return struct.pack("<HH", group, number)


def patched(content: bytes, tag: int, *, vr: bytes | None = None, value: bytes | None = None,
            length: int | None = None) -> bytes:  # fmt: skip
    """The file with another representation, value or length of one element of short form."""
    at = content.index(header(tag >> 16, tag & 0xFFFF), 132)
    old = int.from_bytes(content[at + 6 : at + 8], "little")
    new = content[at + 8 : at + 8 + old] if value is None else value
    size = len(new) if length is None else length
    element = content[at : at + 4] + (vr or content[at + 4 : at + 6]) + struct.pack("<H", size)
    return content[:at] + element + new + content[at + 8 + old :]
