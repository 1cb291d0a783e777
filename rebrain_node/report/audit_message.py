"""A DICOM audit message as XML, by the schema of PS3.15 A.5.1.1."""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from rebrain_node.domain.audit_message import (
    AuditMessage,
    MessageCode,
    Participant,
    ParticipantObject,
)

#: "application server process" (PS3.15 A.5.1.2.1)
_APPLICATION_SERVER: Final = "4"
#: longer text is cut, so that a message has less than the 8192 bytes that every collector takes
#: (RFC 5425 section 4.3.1)
_LONGEST: Final = 512
#: characters that no XML 1.0 document may hold, that end a line, control a terminal or turn text
_UNFIT: Final = re.compile(
    "[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]"
)


def message_xml(message: AuditMessage) -> bytes:
    """Write one message as an XML document of one line in UTF-8, without a byte order mark."""
    root = Element("AuditMessage")
    event = SubElement(
        root,
        "EventIdentification",
        EventActionCode=message.action,
        EventDateTime=message.at.isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=message.outcome,
    )
    _code(event, "EventID", message.id)
    for kind in message.types:
        _code(event, "EventTypeCode", kind)
    if message.why is not None:
        SubElement(event, "EventOutcomeDescription").text = _fit(message.why)
    for participant in message.participants:
        _participant(root, participant)
    source = SubElement(root, "AuditSourceIdentification", AuditSourceID=_fit(message.source))
    if message.site is not None:
        source.set("AuditEnterpriseSiteID", _fit(message.site))
    SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    for each in message.objects:
        _object(root, each)
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True)).replace(b"\n", b"")


def _fit(text: str) -> str:
    return _UNFIT.sub(" ", text[:_LONGEST])


def _code(parent: Element, tag: str, code: MessageCode) -> None:
    SubElement(
        parent,
        tag,
        {
            "csd-code": code.value,
            "codeSystemName": code.scheme,
            "displayName": code.meaning,
            "originalText": code.meaning,
        },
    )


def _participant(root: Element, participant: Participant) -> None:
    element = SubElement(
        root,
        "ActiveParticipant",
        UserID=_fit(participant.user_id),
        UserIsRequestor="true" if participant.is_requestor else "false",
    )
    if participant.ae_title:
        element.set("AlternativeUserID", f"AETITLES={_fit(participant.ae_title)}")
    if participant.name:
        element.set("UserName", _fit(participant.name))
    if participant.address:
        element.set("NetworkAccessPointID", _fit(participant.address))
        element.set("NetworkAccessPointTypeCode", _kind_of(participant.address))
    if participant.role is not None:
        _code(element, "RoleIDCode", participant.role)


def _kind_of(address: str) -> str:
    """Code of a network access point: 1 machine name, 2 IP address."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return "1"
    return "2"


def _object(root: Element, each: ParticipantObject) -> None:
    element = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_fit(each.id),
        ParticipantObjectTypeCode=each.type_code,
        ParticipantObjectTypeCodeRole=each.role,
    )
    _code(element, "ParticipantObjectIDTypeCode", each.id_type)
    SubElement(element, "ParticipantObjectName").text = _fit(each.name)
    for key, value in each.details.items():
        encoded = b64encode(value[:_LONGEST].encode("utf-8", "replace")).decode("ascii")
        SubElement(element, "ParticipantObjectDetail", type=key, value=encoded)
    if each.instances:
        description = SubElement(element, "ParticipantObjectDescription")
        for uid, count in sorted(each.instances.items()):
            sop_class = SubElement(description, "SOPClass", NumberOfInstances=str(count))
            if uid:
                sop_class.set("UID", _fit(uid))
