"""Strict structural scan of a received instance, before anything in it is trusted.

What pydicom would read otherwise than it stands there is refused: duplicated or unordered
elements, lengths beyond their container, deep nesting, pixel data that do not fit the
description. Pixels are not decoded. docs/receiving.md lists every reason with its status.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import mmap
from typing import Final

from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)

from rebrain_node.domain.statuses import STATUSES
from rebrain_node.errors import MalformedInstanceError
from rebrain_node.instance.elements import (
    PIXEL_DATA,
    PIXEL_DESCRIPTION,
    UNDEFINED,
    Elements,
    MalformedError,
    broken,
    end_of_group,
    name_of,
    walk,
)
from rebrain_node.instance.jpeg_xl import JPEG_XL_LOSSLESS

#: what is processed; everything else is at most kept
CT_CLASSES: Final = frozenset(
    {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
)

#: decoded size that one instance may claim, bytes; 2 000 slices of 512 x 512 x 16 bit
MAXIMUM_PIXEL_BYTES: Final = 1 << 30

_READABLE = frozenset({*AllTransferSyntaxes, JPEG_XL_LOSSLESS}) - {DeflatedExplicitVRLittleEndian}
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_NUMBER = re.compile(rb" *\+?([0-9]{1,9}) *")
_FLOAT_PIXEL_DATA = {0x7FE00008: 32, 0x7FE00009: 64}  # bits of each
_META = frozenset({0x00020002, 0x00020010})
FRAME_OF_REFERENCE_UID: Final = 0x00200052
_WANTED = frozenset(
    {
        0x00080016,  # SOP Class UID
        0x00080018,  # SOP Instance UID
        0x00080060,  # Modality
        0x0020000D,  # Study Instance UID
        0x0020000E,  # Series Instance UID
        FRAME_OF_REFERENCE_UID,
        *PIXEL_DESCRIPTION,
        0x00280004,  # Photometric Interpretation
        0x00280008,  # Number of Frames
        PIXEL_DATA,
        *_FLOAT_PIXEL_DATA,
    }
)
_REPAIR = "the scanner or PACS that wrote it must be repaired"


@dataclass(frozen=True, kw_only=True)
class ScannedInstance:
    """An instance whose structure is sound."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    modality: str  #: empty where the sender gives none
    number_of_frames: int  #: 0 where the instance has no pixel data


def scan(content: bytes) -> ScannedInstance:
    """Scan a DICOM file: preamble, file meta information, data set.

    The SOP instance is the one of the data set; what the file meta information says about it is
    not compared, because tools that give files new UIDs often leave the old one there.

    Raises
    ------
    MalformedInstanceError
        It is no DICOM file, or its structure is unsound, or the two SOP classes differ.

    References
    ----------
    PS3.10 7.1.
    """
    with _refusing():
        meta, data_set = _file_meta(content)
        transfer_syntax_uid = _uid(meta, 0x00020010)
        if transfer_syntax_uid not in _READABLE:
            broken("TRANSFER-SYNTAX", f"data sets in {transfer_syntax_uid} are not read")
        stated = _text(meta, 0x00020002)
    scanned = scan_data_set(data_set, transfer_syntax_uid)
    if stated:
        require_class(scanned, stated, by="file meta information")
    return scanned


def scan_data_set(
    content: bytes | mmap, transfer_syntax_uid: str, *, start: int = 0
) -> ScannedInstance:
    """Scan a data set, which begins at offset ``start``; file meta information is not read.

    Raises
    ------
    MalformedInstanceError
        Its structure is unsound; ``reason`` says in which way.
    """
    with _refusing():
        elements = walk(content, transfer_syntax_uid, wanted=_WANTED, start=start)
        scanned = ScannedInstance(
            sop_class_uid=_uid(elements, 0x00080016),
            sop_instance_uid=_uid(elements, 0x00080018),
            study_instance_uid=_uid(elements, 0x0020000D),
            series_instance_uid=_uid(elements, 0x0020000E),
            transfer_syntax_uid=transfer_syntax_uid,
            modality=_text(elements, 0x00080060),
            number_of_frames=_Pixels(elements, transfer_syntax_uid).check(),
        )
        if _text(elements, FRAME_OF_REFERENCE_UID):
            _uid(elements, FRAME_OF_REFERENCE_UID)
        if scanned.sop_class_uid in CT_CLASSES and not scanned.number_of_frames:
            broken("PIXEL-MISSING", "a CT instance without pixel data")
    return scanned


def require_class(scanned: ScannedInstance, sop_class_uid: str, *, by: str) -> None:
    """Hold the SOP class of the data set against the one that ``by`` says (PS3.4 B.2.3: A900).

    Raises
    ------
    MalformedInstanceError
        They differ.
    """
    with _refusing():
        if scanned.sop_class_uid != sop_class_uid:
            broken("SOP-CLASS", f"SOP class {scanned.sop_class_uid}, the {by} says {sop_class_uid}")


def require_instance(scanned: ScannedInstance, sop_instance_uid: str, *, by: str) -> None:
    """Hold the SOP instance of the data set against the one that ``by`` says.

    Raises
    ------
    MalformedInstanceError
        They differ.
    """
    with _refusing():
        if scanned.sop_instance_uid != sop_instance_uid:
            broken("SOP-INSTANCE", f"the {by} names another SOP instance than the data set")


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except MalformedError as error:
        raise MalformedInstanceError(
            str(error), status=STATUSES[error.reason].status, reason=error.reason
        ) from error


def _file_meta(content: bytes) -> tuple[Elements, bytes]:
    """Split a file into the elements of its file meta information and the data set.

    Where its group length (0002,0000) is left out, the first element of another group ends it.
    """
    begins, ends = 132, 144
    if content[128:132] != b"DICM" or content[132:134] != b"\x02\x00":
        broken("NOT-DICOM", "no DICOM file: preamble or file meta information missing")
    if content[132:140] == b"\x02\x00\x00\x00UL\x04\x00":
        begins, end = ends, ends + int.from_bytes(content[140:144], "little")
    else:
        end = end_of_group(content, begins, 0x0002)
    if end > len(content):
        broken("NOT-DICOM", "the file meta information is cut")
    meta = walk(content[begins:end], ExplicitVRLittleEndian, wanted=_META, groups=range(2, 3))
    return meta, content[end:]


class _Pixels:
    """The description of the pixel data, held against what is there."""

    def __init__(self, elements: Elements, transfer_syntax_uid: str) -> None:
        self._elements = elements
        self._syntax = UID(transfer_syntax_uid)

    def check(self) -> int:
        """Return the number of frames, 0 without pixel data."""
        present = [tag for tag in (PIXEL_DATA, *_FLOAT_PIXEL_DATA) if tag in self._elements.lengths]
        if len(present) > 1:
            broken("PIXEL-DESCRIPTION", "more than one kind of pixel data")
        if not present:
            if 0x00280010 in self._elements.lengths:
                broken("PIXEL-MISSING", "an image without pixel data")
            return 0
        tag = present[0]
        frames, bits = self._frames(), self._bits_per_frame(tag)
        if frames * bits > 8 * MAXIMUM_PIXEL_BYTES:
            broken("SIZE", f"{frames * bits // 8} bytes of pixels claimed")
        if self._elements.lengths[tag] == UNDEFINED:
            self._check_fragments(frames)
        else:
            self._check_length(self._elements.lengths[tag], frames, bits)
        return frames

    def _number(self, tag: int) -> int:
        value = self._elements.values.get(tag, b"")
        if len(value) != 2:
            broken("PIXEL-DESCRIPTION", f"{name_of(tag)} is missing or is not one number")
        return int.from_bytes(value, "big" if self._syntax == ExplicitVRBigEndian else "little")

    def _frames(self) -> int:
        value = self._elements.values.get(0x00280008, b"").rstrip(b"\x00")
        if not value.strip():
            return 1
        match = _NUMBER.fullmatch(value)
        if match is None or int(match[1]) == 0:
            broken("PIXEL-DESCRIPTION", "Number of Frames is no positive number")
        return int(match[1])

    def _bits_per_frame(self, tag: int) -> int:
        rows, columns, samples = map(self._number, (0x00280010, 0x00280011, 0x00280002))
        bits = _FLOAT_PIXEL_DATA.get(tag) or self._integer_bits()
        if not rows * columns or samples not in {1, 3, 4}:
            broken("PIXEL-DESCRIPTION", f"{rows} x {columns} x {samples} pixels")
        if _text(self._elements, 0x00280004) == "YBR_FULL_422" and not self._syntax.is_compressed:
            samples = 2  # PS3.3 C.7.6.3.1.2: two chrominance samples for two pixels
        return rows * columns * samples * bits

    def _integer_bits(self) -> int:
        allocated, stored, high = map(self._number, (0x00280100, 0x00280101, 0x00280102))
        signed = self._number(0x00280103)
        if (
            allocated not in {1, 8, 16, 32, 64}
            or not 1 <= stored <= allocated
            or not stored - 1 <= high < allocated
            or signed > 1
        ):
            broken(
                "PIXEL-DESCRIPTION",
                f"bits allocated {allocated}, stored {stored}, high bit {high}, signed {signed}",
            )
        return allocated

    def _check_length(self, length: int, frames: int, bits: int) -> None:
        """Hold the length against the description; less than a frame may follow as padding.

        PS3.5 8.1.1 lets an element be longer than its pixels; a whole frame more is an image that
        nobody described.
        """
        if self._syntax.is_compressed:
            broken("PIXEL-FRAMES", "the pixel data are not encapsulated")
        expected = (frames * bits + 7) // 8
        if not expected <= length < expected + max((bits + 7) // 8, 2):
            broken("PIXEL-LENGTH", f"{length} bytes of pixels, described are {expected}")

    def _check_fragments(self, frames: int) -> None:
        """Hold the fragments against the number of frames (PS3.5 A.4)."""
        found = self._elements.fragments
        if found is None or not self._syntax.is_compressed:
            broken("PIXEL-FRAMES", "uncompressed pixel data are encapsulated")
        count = len(found.lengths)
        if count < frames or 0 in found.lengths:
            broken("PIXEL-FRAMES", f"{count} fragments for {frames} frames")
        if self._syntax == RLELossless and count != frames:
            broken("PIXEL-FRAMES", f"{count} RLE fragments for {frames} frames")
        table = found.offset_table
        if table and (
            len(table) != frames
            or table[0] != 0
            or sorted(set(table)) != list(table)
            or not set(table) <= set(found.starts)
        ):
            broken("PIXEL-FRAMES", "the offset table does not point at the frames")


def _uid(elements: Elements, tag: int) -> str:
    """Read a UID (PS3.5 9.1)."""
    text = _text(elements, tag)
    if not text:
        broken("UID", f"{name_of(tag)} is missing")
    if len(text) > 64 or _UID.fullmatch(text) is None:
        broken("UID", f"{name_of(tag)} is no UID: {_uid_fault(text)} (PS3.5 9.1); {_REPAIR}")
    return text


def _uid_fault(text: str) -> str:
    if len(text) > 64:
        return f"it has {len(text)} characters, at most 64 are allowed"
    if any(len(part) > 1 and part[0] == "0" for part in text.split(".")):
        return "a component begins with 0"
    return "it is not made of numbers and single dots"


def _text(elements: Elements, tag: int) -> str:
    return elements.values.get(tag, b"").rstrip(b"\x00 ").decode("ascii", "replace")
