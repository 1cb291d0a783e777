"""The header in front of a received data set (PS3.10 7.1): the bytes behind it stay as they came.

The header depends on nothing but the instance and its transfer syntax, so that the same data set
always makes the same file, whoever sends it and whatever version of this software receives it.
"""

from __future__ import annotations

import struct
from typing import Final

from rebrain_node.domain.marks import IMPLEMENTATION_CLASS_UID
from rebrain_node.instance.scan import ScannedInstance

_PREAMBLE: Final = bytes(128) + b"DICM"
_VERSION: Final = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01"


def file_of(data_set: bytes, scanned: ScannedInstance) -> bytes:
    """Return the DICOM file of a data set."""
    meta = _VERSION + b"".join(
        _uid(element, value)
        for element, value in (
            (0x0002, scanned.sop_class_uid),
            (0x0003, scanned.sop_instance_uid),
            (0x0010, scanned.transfer_syntax_uid),
            (0x0012, IMPLEMENTATION_CLASS_UID),
        )
    )
    length = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(meta))
    return b"".join((_PREAMBLE, length, meta, data_set))


def _uid(element: int, value: str) -> bytes:
    padded = value.encode("ascii") + b"\x00" * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, b"UI", len(padded)) + padded
