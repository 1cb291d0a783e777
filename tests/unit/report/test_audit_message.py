"""DICOM audit messages: valid by the schema of PS3.15, complete, and without a patient."""

from __future__ import annotations

import re
from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from rebrain_node.domain.audit import AuditEvent, Event
from rebrain_node.domain.audit_message import (
    NO_PATIENT_ID,
    AuditFacts,
    AuditMessage,
    AuditSource,
    RemotePeer,
    SetFacts,
)
from rebrain_node.domain.audit_message_rules import RULES, SILENT, messages_of
from rebrain_node.report.audit_message import message_xml
from tests.support.injections import INJECTIONS

SCHEMA = Path(__file__).parents[2] / "support/audit_message.rng"
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
SOURCE = AuditSource(
    ae_title="REBRAIN",
    host="node.example.org",
    site="North",
    remotes={"pacs": RemotePeer("PACS", "192.0.2.7"), "web": RemotePeer(None, "pacs.example.org")},
)
FACTS = AuditFacts(studies={"1.2.1.1": "1.2.1"}, sets={5: SetFacts("1.2.1", {MR: 3, CT: 1})})
#: details that decide which message is made
DETAILS: dict[str, dict[str, Any]] = {
    Event.ASSOCIATION_REFUSED: {
        "address": "192.0.2.9", "reason": "UNKNOWN-AE", "not_told": 3, "would_admit": "..."
    },
    Event.ASSOCIATION_ABORTED: {"address": "192.0.2.9", "reason": "PDU-LENGTH", "not_told": 0},
    Event.INSTANCE_REFUSED: {
        "status": 0xC001, "reason": "ODD", "sentence": "no UID", "calling_ae_title": "CT1",
        "address": "192.0.2.9",
    },
    Event.SERIES_SYNTHESISED: {"set": 5, "destinations": ["pacs", "web"]},
    Event.DELIVERY_TAKEN: {"set": 5, "taken": 4},
    Event.PATIENT_ERASED: {"operator": "ada", "reason": "asked for"},
}  # fmt: skip


def event(name: str, /, number: int = 7, subject: str = "", **details: Any) -> AuditEvent:
    subjects = {"instance": "1.2.1.1.1", "series": "1.2.1.1", "delivery": "pacs"}
    return AuditEvent(
        sequence=number,
        recorded_at=datetime(2026, 11, 30, 12, 0, 0, 250000, UTC),
        monotonic_ns=1,
        event=str(name),
        subject=subject or subjects.get(name.partition(".")[0], "1.2.1"),
        details=DETAILS.get(name, {}) | details,
        hash="0" * 64,
    )


def received(number: int, study: str = "1.2.1", sender: str = "CT1", sop: str = CT) -> AuditEvent:
    details = {"study": study, "calling_ae_title": sender, "sop_class": sop}
    return event(Event.INSTANCE_RECEIVED, number, **details)


def made(*events: AuditEvent, facts: AuditFacts = FACTS) -> tuple[AuditMessage, ...]:
    return messages_of(events, facts, SOURCE)


def parsed(message: AuditMessage) -> ET.Element:
    return ET.fromstring(message_xml(message))


@pytest.fixture(scope="module")
def schema():
    etree = pytest.importorskip("lxml.etree")
    return etree.RelaxNG(etree.parse(SCHEMA))


def validate(schema: Any, content: bytes) -> None:
    etree = pytest.importorskip("lxml.etree")
    schema.assertValid(etree.fromstring(content))


def test_every_event_makes_messages_or_says_why_not():
    assert set(RULES) | set(SILENT) | {Event.INSTANCE_RECEIVED} == set(Event)
    assert not set(RULES) & set(SILENT)


@pytest.mark.parametrize("name", [*sorted(RULES), Event.INSTANCE_RECEIVED])
def test_every_message_is_valid_by_the_schema(schema, name):
    messages = made(received(7) if name == Event.INSTANCE_RECEIVED else event(name))
    assert messages
    for message in messages:
        validate(schema, message_xml(message))


@pytest.mark.parametrize(
    ("of", "to"),
    [
        (b'EventOutcomeIndicator="4"', b'EventOutcomeIndicator="3"'),
        (b'csd-code="110113"', b'code="110113"'),
        (b"<ParticipantObjectName>", b"<Name>"),
        (b' UserIsRequestor="true"', b""),
        (b'EventDateTime="2026', b'EventDateTime="26'),
        (b"AuditSourceID=", b"Source="),
    ],
)
def test_a_broken_message_is_refused_by_the_schema(schema, of, to):
    etree = pytest.importorskip("lxml.etree")
    content = message_xml(made(event(Event.ASSOCIATION_REFUSED))[0])
    assert of in content
    altered = content.replace(of, to).replace(b"</ParticipantObjectName>", b"</Name>")
    altered = altered if b"<Name>" in altered else content.replace(of, to)
    assert not schema.validate(etree.fromstring(altered))


#: events that hold what others chose, one for each kind of message
CHOSEN_BY_OTHERS = (
    Event.ASSOCIATION_REFUSED, Event.INSTANCE_REFUSED, Event.INSTANCE_RECEIVED,
    Event.SERIES_SYNTHESISED, Event.DELIVERY_REFUSED, Event.WORKITEM_CLAIMED, Event.AUDIT_READ,
)  # fmt: skip
#: fields of an event that somebody else may choose
FIELDS = (
    "subject", "reason", "sentence", "address", "calling_ae_title", "operator", "study",
    "sop_class", "status", "not_told", "name", "version", "would_admit", "taken", "set",
)  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_hostile_text_leaves_each_message_valid_and_one_line(schema, field):
    for text in INJECTIONS:
        for name in CHOSEN_BY_OTHERS:
            for message in made(event(name, **{field: text})):
                content = message_xml(message)
                validate(schema, content)
                assert len(content.decode("utf-8").splitlines()) == 1
                assert not re.search("[\x00-\x1f\x7f-\x9f\u202e\u2066]", content.decode("utf-8"))


def test_instances_of_one_study_and_sender_are_one_message_with_counts():
    rows = [received(n) for n in (1, 2, 4)] + [received(3, sender="CT2"), received(5, sop=MR)]
    messages = made(*rows, received(6, study="1.2.2"))
    assert [m.participants[0].user_id for m in messages] == ["CT2", "CT1", "CT1"]
    objects = [m.objects[0] for m in messages]
    assert [(o.id, dict(o.instances)) for o in objects] == [
        ("1.2.1", {CT: 1}), ("1.2.1", {CT: 3, MR: 1}), ("1.2.2", {CT: 1}),
    ]  # fmt: skip
    assert objects[1].details == {"audit rows": "1-2, 4-5"}


def test_a_message_of_many_rows_and_long_text_is_short_enough_for_every_collector():
    rows = [received(n, sender="CT1" if n % 2 else "CT2") for n in range(1_000_000, 1_000_500)]
    messages = made(*rows, event(Event.DELIVERY_REFUSED, reason="x" * 20_000))
    messages += made(event(Event.INSTANCE_REFUSED, sentence="ü" * 9000, reason="ü" * 9000))
    assert messages[1].objects[0].details == {"audit rows": "250 of 1000000-1000498"}
    assert max(len(message_xml(message)) for message in messages) < 7500


def test_a_delivery_names_both_ends_and_the_classes_of_the_set():
    (message,) = made(event(Event.DELIVERY_TAKEN))
    root = parsed(message)
    ends = [
        (p.get("AlternativeUserID"), p.get("NetworkAccessPointID"), p[0].get("csd-code"))
        for p in root.iter("ActiveParticipant")
    ]
    assert ends == [
        ("AETITLES=REBRAIN", "node.example.org", "110153"),
        ("AETITLES=PACS", "192.0.2.7", "110152"),
    ]
    classes = {s.get("UID"): s.get("NumberOfInstances") for s in root.iter("SOPClass")}
    assert classes == {MR: "3", CT: "1"}


def test_of_a_part_of_a_set_only_the_number_is_told():
    (message,) = made(event(Event.DELIVERY_TAKEN, taken=2))
    assert dict(message.objects[0].instances) == {"": 2}


def test_a_set_is_created_and_begins_to_be_sent_to_each_destination():
    messages = made(event(Event.SERIES_SYNTHESISED))
    assert [m.id.value for m in messages] == ["110103", "110102", "110102"]
    assert [m.participants[1].address for m in messages[1:]] == ["192.0.2.7", "pacs.example.org"]


@pytest.mark.parametrize(
    ("details", "kind"),
    [
        ({"reason": "UNKNOWN-AE", "would_admit": "x"}, "110126"),
        ({"reason": "CALLED-AE"}, "110126"),
        ({"reason": "ASSOCIATIONS"}, "110132"),
    ],
)
def test_an_unknown_sender_and_a_limit_are_alerts_of_their_kind(details, kind):
    row = AuditEvent(**vars(event(Event.ASSOCIATION_REFUSED)) | {"details": details})
    (message,) = made(row)
    assert (message.id.value, message.types[0].value) == ("110113", kind)


def test_an_alert_says_what_happened():
    (message,) = made(event(Event.ASSOCIATION_REFUSED, subject="ROGUE"))
    details = {
        d.get("type"): b64decode(d.get("value", "")).decode()
        for d in parsed(message).iter("ParticipantObjectDetail")
    }
    assert details["Alert Description"] == (
        "association.refused ROGUE; reason: UNKNOWN-AE; address: 192.0.2.9; not told: 3"
    )


@pytest.mark.parametrize("reason", ["PEER-ABORTED", "PEER-GONE", "SILENT", "STOPPED"])
def test_an_association_that_ended_without_a_broken_rule_is_no_alert(reason):
    assert made(event(Event.ASSOCIATION_ABORTED, reason=reason)) == ()


def test_no_patient_is_named_unless_the_site_says_so():
    (withheld,) = made(event(Event.DELIVERY_TAKEN))
    assert [o.id for o in withheld.objects] == ["1.2.1", NO_PATIENT_ID]
    facts = AuditFacts(sets=FACTS.sets, patients={"1.2.1": "4711"})
    (told,) = made(event(Event.DELIVERY_TAKEN), facts=facts)
    assert [o.id for o in told.objects] == ["1.2.1", "4711"]


def test_an_erasure_names_the_operator_and_the_study():
    (message,) = made(event(Event.PATIENT_ERASED))
    assert message.id.value == "110105"
    assert message.participants[0].user_id == "ada@node.example.org"
    assert message.objects[0].id == "1.2.1"
