"""Command sets of the messages that the receiver knows (PS3.7 annex E): read, and answered.

A command set is a flat run of elements in Implicit VR Little Endian, a few hundred bytes long.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

C_STORE, C_ECHO, N_EVENT_REPORT = 0x0001, 0x0030, 0x0100
_KNOWN: Final = frozenset({C_STORE, C_ECHO, N_EVENT_REPORT})
_NO_DATA_SET = 0x0101
_ELEMENT = struct.Struct("<HHI")
_SHORT = struct.Struct("<H")
_CLASS, _FIELD, _MESSAGE_ID, _RESPONDED_TO = 0x0002, 0x0100, 0x0110, 0x0120
_DATA_SET_TYPE, _STATUS, _COMMENT, _INSTANCE, _EVENT = 0x0800, 0x0900, 0x0902, 0x1000, 0x1002
#: longest Error Comment (0000,0902), VR LO, characters
_COMMENT_LENGTH = 64
_LONGEST_UID = 64
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+", re.ASCII)
#: control header of a command fragment, and the bit of the last one (PS3.8 annex E)
COMMAND, LAST = 0x01, 0x02


class CommandError(Exception):
    """The bytes are no command set of a message that the receiver knows."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A request; UIDs are as the peer wrote them, perhaps none."""

    field: int  #: C_STORE, C_ECHO or N_EVENT_REPORT
    message_id: int
    has_data_set: bool
    sop_class_uid: str
    sop_instance_uid: str
    event_type_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a request is answered."""

    status: int
    comment: str = ""


def is_uid(text: str) -> bool:
    """Whether the text is a UID (PS3.5 9.1)."""
    return len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None


def read_command(content: bytes) -> Command:
    """Read a command set.

    Raises
    ------
    CommandError
        Its elements are broken, it is no request, or one of another service.
    """
    values = _elements(content)
    kind, message_id = _number(values, _FIELD), _number(values, _MESSAGE_ID)
    data_set = _number(values, _DATA_SET_TYPE)
    if kind not in _KNOWN:
        raise CommandError(
            f"command field {kind:04X} is of no service that is offered"
            if kind is not None
            else "no command field"
        )
    if message_id is None or data_set is None:
        raise CommandError("no message ID or no command data set type")
    return Command(
        field=kind,
        message_id=message_id,
        has_data_set=data_set != _NO_DATA_SET,
        sop_class_uid=_text(values, _CLASS),
        sop_instance_uid=_text(values, _INSTANCE),
        event_type_id=_number(values, _EVENT),
    )


def answer_pdus(command: Command, context_id: int, answer: Answer, maximum_pdu_bytes: int) -> bytes:
    """Encode the answer to a request, as P-DATA PDUs.

    Parameters
    ----------
    maximum_pdu_bytes
        Largest P-DATA content the peer takes, bytes; 0 for any.
    """
    elements = [
        *_uid(_CLASS, command.sop_class_uid),
        (_FIELD, _SHORT.pack(command.field | 0x8000)),
        (_RESPONDED_TO, _SHORT.pack(command.message_id)),
        (_DATA_SET_TYPE, _SHORT.pack(_NO_DATA_SET)),
        (_STATUS, _SHORT.pack(answer.status)),
    ]
    if answer.comment:
        text = answer.comment.replace("\\", "/").encode("ascii", "replace")[:_COMMENT_LENGTH]
        elements.append((_COMMENT, text + b" " * (len(text) % 2)))
    elements += _uid(_INSTANCE, command.sop_instance_uid)
    if command.event_type_id is not None:
        elements.append((_EVENT, _SHORT.pack(command.event_type_id)))
    body = b"".join(_ELEMENT.pack(0, tag, len(value)) + value for tag, value in elements)
    body = _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(body)) + body
    room = max(maximum_pdu_bytes - 6, 1) if maximum_pdu_bytes else len(body)
    pdus = b""
    for at in range(0, len(body), room):
        fragment = body[at : at + room]
        control = COMMAND | (LAST if at + room >= len(body) else 0)
        value = struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment
        pdus += struct.pack(">BxI", 4, len(value)) + value
    return pdus


def _elements(content: bytes) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    at, end = 0, len(content)
    while at < end:
        if at + _ELEMENT.size > end:
            raise CommandError("an element of the command set is cut")
        group, element, length = _ELEMENT.unpack_from(content, at)
        at += _ELEMENT.size
        if group != 0 or at + length > end:
            raise CommandError(f"element ({group:04X},{element:04X}) has no place in a command set")
        values[element] = content[at : at + length]
        at += length
    return values


def _number(values: dict[int, bytes], tag: int) -> int | None:
    value = values.get(tag)
    return _SHORT.unpack(value)[0] if value is not None and len(value) == _SHORT.size else None


def _text(values: dict[int, bytes], tag: int) -> str:
    return values.get(tag, b"").rstrip(b"\x00 ").decode("ascii", "replace")


def _uid(tag: int, text: str) -> list[tuple[int, bytes]]:
    """Encode a UID of the request for its answer; what is no UID is not repeated."""
    if not is_uid(text):
        return []
    value = text.encode("ascii")
    return [(tag, value + b"\x00" * (len(value) % 2))]
