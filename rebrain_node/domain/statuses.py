"""Every reason for which an instance is not acknowledged: its DIMSE status and what helps.

The one list of the reasons: an `InstanceError` takes no other, and the table of docs/receiving.md
is made of it. Statuses are those of PS3.4 B.2.3 and PS3.7 annex C; Cxxx is "cannot understand".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class InstanceStatus:
    """What a sender sees for one reason, and what it should do."""

    status: int  #: DIMSE status of the C-STORE response
    meaning: str
    remedy: str


_NEVER = "not send this again"
_LATER = "try again later"

STATUSES: Final[Mapping[str, InstanceStatus]] = {
    "SAME-UID-OTHER-BYTES": InstanceStatus(
        0x0117,
        (
            "the SOP Instance UID is known with other content; the new bytes are quarantined and "
            "the series is in dispute, see below"
        ),
        "give changed instances new UIDs",
    ),
    "SERIES-OF-OTHER-STUDY": InstanceStatus(
        0x0117,
        "the series is known in another study; quarantined, and the series is in dispute",
        "look for a merge or split of studies that went wrong",
    ),
    "CONFLICT": InstanceStatus(
        0x0117, "only for folders: two files of one SOP Instance UID with different content", ""
    ),
    "DISK-HARD-MARK": InstanceStatus(
        0xA700,
        "the reserve of the disk (`storage.hard_mark_bytes`) would be touched",
        _LATER,
    ),
    "DISK": InstanceStatus(0xA700, "the disk gave an error", _LATER),
    "PENDING-BYTES": InstanceStatus(
        0xA700,
        "unfinished instances of all associations together would take more than 1 GiB",
        _LATER,
    ),
    "DATABASE": InstanceStatus(0xA700, "the database cannot take it now", _LATER),
    "SOP-CLASS": InstanceStatus(
        0xA900, "presentation context, command and data set name different SOP classes", _NEVER
    ),
    "DUP-TAG": InstanceStatus(0xC101, "an element stands twice in one data set or item", _NEVER),
    "TAG-ORDER": InstanceStatus(0xC102, "elements are not in increasing order", _NEVER),
    "NESTING": InstanceStatus(0xC103, "sequences nested more than 16 deep", _NEVER),
    "LENGTH": InstanceStatus(
        0xC104,
        (
            "a length runs beyond its container, the data set is cut, or a binary number of a "
            "standard element has not the bytes of its value representation (US 2, FD 8, ...)"
        ),
        "send again if it was cut on the way",
    ),
    "VR": InstanceStatus(
        0xC105,
        (
            "an unknown value representation, or one in which a text, a UID, a sequence or the "
            "description of the pixels cannot be read, e.g. US for Patient's Name"
        ),
        _NEVER,
    ),
    "TAG": InstanceStatus(0xC106, "an element that has no place in a data set or sequence", _NEVER),
    "UID": InstanceStatus(
        0xC107,
        (
            "SOP class, SOP instance, study or series UID is missing, or one of them or the frame "
            "of reference is no UID (PS3.5 9.1); the sentence says why, e.g. a component that "
            "begins with 0"
        ),
        _NEVER,
    ),
    "PIXEL-LENGTH": InstanceStatus(
        0xC108,
        (
            "pixel data are shorter than rows, columns, samples, bits and frames say, or longer by "
            "a frame; less may follow as padding (PS3.5 8.1.1)"
        ),
        _NEVER,
    ),
    "PIXEL-FRAMES": InstanceStatus(
        0xC109, "encapsulated pixel data are broken or have too few fragments", _NEVER
    ),
    "PIXEL-MISSING": InstanceStatus(0xC10A, "an image without pixel data", _NEVER),
    "PIXEL-DESCRIPTION": InstanceStatus(
        0xC10B, "rows, columns, bits or frames are missing or impossible", _NEVER
    ),
    "SIZE": InstanceStatus(
        0xC10C,
        "more than 300 000 elements, or pixels of more than 1 GiB when decoded",
        "split the instance",
    ),
    "NOT-DICOM": InstanceStatus(0xC10D, "only for files: no preamble or file meta information", ""),
    "TRANSFER-SYNTAX": InstanceStatus(
        0xC10E, "only for files: the transfer syntax is not read", ""
    ),
    "SOP-INSTANCE": InstanceStatus(
        0xC10F, "command and data set name different SOP instances", _NEVER
    ),
    "INCOMPLETE-COMMAND": InstanceStatus(
        0xC110, "the command set lacks something, e.g. the SOP Instance UID", _NEVER
    ),
    "DEFECT": InstanceStatus(0xC1FF, "a defect of the node; its log says more", _LATER),
}
