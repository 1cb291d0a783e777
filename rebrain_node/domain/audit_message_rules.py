"""Which DICOM audit message tells of an event of the audit log (PS3.15 A.5.3).

No message names a patient. A Patient ID stands in one only where the caller gives it
(`AuditFacts.patients`). Rows of instances that were received are gathered: one message for those of
a study that one sender sent, among the events that are given together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from rebrain_node.domain.audit import AuditEvent, Event
from rebrain_node.domain.audit_message import (
    ACCESSED,
    ACTIVITY,
    ALERT,
    APPLICATION,
    BEGIN_TRANSFER,
    DESTINATION,
    INTEGRITY,
    LOG_USED,
    NO_PATIENT_ID,
    NODE_AUTHENTICATION,
    NODE_ID,
    PATIENT_NUMBER,
    PROCEDURE,
    RESTRICTED_FUNCTION,
    SECURITY_CONFIGURATION,
    SOFTWARE_CONFIGURATION,
    SOURCE,
    START,
    STOP,
    STUDY_DELETED,
    STUDY_UID,
    TRANSFERRED,
    URI,
    Action,
    AuditFacts,
    AuditMessage,
    AuditSource,
    MessageCode,
    Outcome,
    Participant,
    ParticipantObject,
    SetFacts,
)
from rebrain_node.domain.text import ranges

_OK: Final[Outcome] = "0"
_AGAIN: Final[Outcome] = "4"  #: failed, and is tried again
_FAILED: Final[Outcome] = "8"
#: more characters are too many for a message
_LONGEST_RANGES: Final = 256


def messages_of(
    events: Sequence[AuditEvent], facts: AuditFacts, source: AuditSource
) -> tuple[AuditMessage, ...]:
    """Make the messages of some events, in the order of their last rows."""
    received: dict[tuple[str, str], list[AuditEvent]] = {}
    made: list[tuple[int, AuditMessage]] = []
    reporter = _Reporter(facts, source)
    for event in events:
        if event.event == Event.INSTANCE_RECEIVED:
            key = (_text(event, "study"), _text(event, "calling_ae_title"))
            received.setdefault(key, []).append(event)
        elif (rule := RULES.get(event.event)) is not None:
            made += [(event.sequence, each) for each in _made(rule, reporter, event)]
    for (study, sender), rows in received.items():
        made.append((rows[-1].sequence, reporter.received(study, sender, rows)))
    return tuple(message for _, message in sorted(made, key=lambda each: each[0]))


def _made(rule: MessageRule, reporter: _Reporter, event: AuditEvent) -> list[AuditMessage]:
    try:
        return list(rule.make(reporter, event))
    except (TypeError, ValueError, AttributeError):  # details that this software never writes
        return [reporter.alert(replace(event, details={}), INTEGRITY, _FAILED)]


def _text(event: AuditEvent, key: str) -> str:
    return str(event.details.get(key) or "")


class _Reporter:
    """Makes messages in the name of one node."""

    def __init__(self, facts: AuditFacts, source: AuditSource) -> None:
        self._facts = facts
        self._source = source

    # participants

    def _node(
        self, process: str = "", role: MessageCode | None = None, *, requestor: bool = False
    ) -> Participant:
        return Participant(
            user_id=f"{process or 'rebrain-node'}@{self._source.host}",
            is_requestor=requestor,
            ae_title=self._source.ae_title,
            name="rebrain-node",
            role=role,
            address=self._source.host,
        )

    def _remote(
        self, name: str, role: MessageCode, *, requestor: bool = False, address: str | None = None
    ) -> Participant:
        known = self._source.remotes.get(name)
        return Participant(
            user_id=name or "unknown",
            is_requestor=requestor,
            ae_title=name if known is None else known.ae_title,
            role=role,
            address=address if known is None else known.address,
        )

    def _operator(self, event: AuditEvent) -> tuple[Participant, ...]:
        operator = _text(event, "operator")
        if not operator:
            return ()
        return (Participant(user_id=f"{operator}@{self._source.host}", is_requestor=True),)

    # objects

    def _study(
        self,
        uid: str,
        instances: Mapping[str, int] | None = None,
        details: Mapping[str, str] | None = None,
    ) -> tuple[ParticipantObject, ...]:
        """A study and its patient, who is named by nothing but the Patient ID that was given."""
        return (
            ParticipantObject(
                id=uid or "unknown", id_type=STUDY_UID, name="Study", type_code="2", role="3",
                instances=instances or {}, details=details or {},
            ),
            ParticipantObject(
                id=self._facts.patients.get(uid) or NO_PATIENT_ID, id_type=PATIENT_NUMBER,
                name="Patient", type_code="1", role="1",
            ),
        )  # fmt: skip

    def _of_series(self, event: AuditEvent) -> tuple[ParticipantObject, ...]:
        study = self._facts.studies.get(event.subject, "")
        return self._study(study, self._set(event).instances, _rows(event))

    def _set(self, event: AuditEvent) -> SetFacts:
        number = event.details.get("set")
        return self._facts.sets.get(number, SetFacts("", {})) if number else SetFacts("", {})

    def _message(
        self,
        event: AuditEvent,
        id_: MessageCode,
        action: Action,
        participants: tuple[Participant, ...],
        **fields: Any,
    ) -> AuditMessage:
        return AuditMessage(
            id=id_,
            action=action,
            at=event.recorded_at,
            participants=participants,
            source=self._source.ae_title,
            site=self._source.site,
            **{"outcome": _OK} | fields,
        )

    # messages

    def received(self, study: str, sender: str, rows: Sequence[AuditEvent]) -> AuditMessage:
        """Tell of instances that one sender has sent of a study."""
        counts = Counter(_text(row, "sop_class") for row in rows)
        sequences = [row.sequence for row in rows]
        numbers = ranges(sequences)
        if len(numbers) > _LONGEST_RANGES:
            numbers = f"{len(rows)} of {sequences[0]}-{sequences[-1]}"
        participants = (
            self._remote(sender, SOURCE, requestor=True),
            self._node("receiver", DESTINATION),
        )
        objects = self._study(study, counts, {"audit rows": numbers})
        return self._message(rows[-1], TRANSFERRED, "C", participants, objects=objects)

    def activity(self, event: AuditEvent, kind: MessageCode) -> AuditMessage:
        """Tell that the node started or stopped."""
        participant = self._node("receiver", APPLICATION)
        return self._message(event, ACTIVITY, "E", (participant,), types=(kind,))

    def log_used(self, event: AuditEvent) -> AuditMessage:
        """Tell that the log was read."""
        log = ParticipantObject(
            id=f"rebrain-node://{self._source.host}/audit", id_type=URI, name="Security Audit Log",
            type_code="2", role="13", details=_rows(event),
        )  # fmt: skip
        who = self._operator(event) or (self._node(requestor=True),)
        return self._message(event, LOG_USED, "R", who, objects=(log,))

    def alert(self, event: AuditEvent, kind: MessageCode, outcome: Outcome) -> AuditMessage:
        """Tell of what concerns the security of the node."""
        peer = _text(event, "calling_ae_title")
        if event.event in (Event.ASSOCIATION_REFUSED, Event.ASSOCIATION_ABORTED):
            peer = event.subject
        participants: tuple[Participant, ...] = (self._node(requestor=True),)
        if peer:
            address = _text(event, "address") or None
            participants += (self._remote(peer, SOURCE, address=address),)
        subject = ParticipantObject(
            id=event.subject or "unknown", id_type=NODE_ID if peer else URI, name=event.event,
            type_code="2", role="13",
            details={"Alert Description": _description(event)} | _rows(event),
        )  # fmt: skip
        objects: tuple[ParticipantObject, ...] = (subject,)
        if study := _text(event, "study"):
            objects += self._study(study)
        fields = {"types": (kind,), "outcome": outcome, "objects": objects}
        return self._message(event, ALERT, "E", participants, **fields)

    def accessed(self, event: AuditEvent, action: Action) -> AuditMessage:
        """Tell that instances of a series were made, seen, changed or taken back."""
        who = self._operator(event) or (self._node(requestor=True),)
        return self._message(event, ACCESSED, action, who, objects=self._of_series(event))

    def deleted(self, event: AuditEvent) -> AuditMessage:
        """Tell that a study was erased."""
        objects = self._study(event.subject, None, _rows(event))
        who = self._operator(event) or (self._node(requestor=True),)
        return self._message(event, STUDY_DELETED, "D", who, objects=objects)

    def procedure(self, event: AuditEvent) -> AuditMessage:
        """Tell that a workitem or the processing of a series was changed."""
        study = _text(event, "study") or self._facts.studies.get(event.subject, "")
        who = self._operator(event) or (self._node(requestor=True),)
        return self._message(
            event, PROCEDURE, "U", who, objects=self._study(study, None, _rows(event))
        )

    def begins(self, event: AuditEvent, destinations: Sequence[str]) -> Iterator[AuditMessage]:
        """Tell that a set is due at each destination."""
        derived = self._set(event)
        study = derived.study or self._facts.studies.get(event.subject, "")
        operator = self._operator(event)
        for destination in destinations:
            participants = (
                self._node("", SOURCE, requestor=not operator),
                self._remote(destination, DESTINATION),
                *operator,
            )
            objects = self._study(study, derived.instances, _rows(event))
            yield self._message(event, BEGIN_TRANSFER, "E", participants, objects=objects)

    def delivered(self, event: AuditEvent, outcome: Outcome) -> AuditMessage:
        """Tell what became of an attempt to deliver a set."""
        derived = self._set(event)
        instances, taken = derived.instances, event.details.get("taken")
        if taken is not None and taken != sum(instances.values()):
            instances = {"": int(taken)}  # which of the set they are stands in its deliveries
        participants = (
            self._node("", SOURCE, requestor=True),
            self._remote(event.subject, DESTINATION),
        )
        return self._message(
            event, TRANSFERRED, "C", participants, outcome=outcome,
            objects=self._study(derived.study, instances, _rows(event)),
            why=_text(event, "reason") or None,
        )  # fmt: skip


def _rows(event: AuditEvent) -> dict[str, str]:
    """Name the row of the audit log, by which a message that came twice is known."""
    return {"audit rows": str(event.sequence)}


def _description(event: AuditEvent) -> str:
    words = [f"{event.event} {event.subject}"]
    words.extend(
        f"{key.replace('_', ' ')}: {value}"
        for key in ("reason", "sentence", "address", "status", "not_told", "name", "version")
        if (value := event.details.get(key)) not in (None, "", 0)
    )
    return "; ".join(words)


#: an association that ended so is no violation
_PLAIN_ENDS: Final = frozenset({"PEER-ABORTED", "PEER-GONE", "SILENT", "STOPPED"})
#: an instance that was refused so may come again
_NO_ROOM: Final = 0xA700


def _refused_association(reporter: _Reporter, event: AuditEvent) -> Iterator[AuditMessage]:
    unknown = "would_admit" in event.details or _text(event, "reason") == "CALLED-AE"
    kind = NODE_AUTHENTICATION if unknown else RESTRICTED_FUNCTION
    yield reporter.alert(event, kind, _AGAIN)


def _aborted(reporter: _Reporter, event: AuditEvent) -> Iterator[AuditMessage]:
    if _text(event, "reason") not in _PLAIN_ENDS:
        yield reporter.alert(event, RESTRICTED_FUNCTION, _AGAIN)


def _refused_instance(reporter: _Reporter, event: AuditEvent) -> Iterator[AuditMessage]:
    if event.details.get("status") != _NO_ROOM:
        yield reporter.alert(event, INTEGRITY, _AGAIN)


def _synthesised(reporter: _Reporter, event: AuditEvent) -> Iterator[AuditMessage]:
    yield reporter.accessed(event, "C")
    yield from reporter.begins(event, event.details.get("destinations") or ())


class MessageRule(NamedTuple):
    """Which messages tell of an event."""

    message: str  #: in words, for the table of the documents
    make: Callable[[_Reporter, AuditEvent], Iterator[AuditMessage]]


def _one(message: str, method: Callable[..., AuditMessage], *arguments: Any) -> MessageRule:
    def make(reporter: _Reporter, event: AuditEvent) -> Iterator[AuditMessage]:
        yield method(reporter, event, *arguments)

    return MessageRule(message, make)


def _alert(kind: MessageCode, outcome: Outcome, condition: str = "") -> MessageRule:
    return _one(f"Security Alert ({kind.meaning}){condition}", _Reporter.alert, kind, outcome)


def _accessed(action: Action, what: str) -> MessageRule:
    return _one(f"DICOM Instances Accessed ({what})", _Reporter.accessed, action)


#: messages by event, save `instance.received`, whose rows are gathered
RULES: Final[Mapping[str, MessageRule]] = {
    Event.NODE_STARTED: _one("Application Activity (Start)", _Reporter.activity, START),
    Event.NODE_STOPPED: _one("Application Activity (Stop)", _Reporter.activity, STOP),
    Event.SETTINGS_RELOADED: _alert(SECURITY_CONFIGURATION, _OK),
    Event.BUNDLE_VERIFIED: _alert(SOFTWARE_CONFIGURATION, _OK),
    Event.BUNDLE_REFUSED: _alert(SOFTWARE_CONFIGURATION, _FAILED),
    Event.ASSOCIATION_REFUSED: MessageRule(
        "Security Alert (Node Authentication; Use of Restricted Function where a limit is reached)",
        _refused_association,
    ),
    Event.HANDSHAKE_REFUSED: _alert(NODE_AUTHENTICATION, _AGAIN),
    Event.ASSOCIATION_ABORTED: MessageRule(
        "Security Alert (Use of Restricted Function), where the peer broke a rule or was too slow",
        _aborted,
    ),
    Event.INSTANCE_REFUSED: MessageRule(
        "Security Alert (Integrity Violation), unless there was no room", _refused_instance
    ),
    Event.INSTANCE_CONFLICT: _alert(INTEGRITY, _AGAIN),
    Event.DISPUTE_DECIDED: _accessed("U", "Update, by the operator"),
    Event.SERIES_RETRIED: _one("Procedure Record", _Reporter.procedure),
    Event.SERIES_CANCELLED: _one("Procedure Record", _Reporter.procedure),
    Event.SERIES_SYNTHESISED: MessageRule(
        "DICOM Instances Accessed (Create); Begin Transferring DICOM Instances to each destination",
        _synthesised,
    ),
    Event.DELIVERY_TAKEN: _one("DICOM Instances Transferred", _Reporter.delivered, _OK),
    Event.DELIVERY_FAILED: _one(
        "DICOM Instances Transferred (outcome 4)", _Reporter.delivered, _AGAIN
    ),
    Event.DELIVERY_REFUSED: _one(
        "DICOM Instances Transferred (outcome 8)", _Reporter.delivered, _FAILED
    ),
    Event.DELIVERY_HELD: _one(
        "DICOM Instances Transferred (outcome 8)", _Reporter.delivered, _FAILED
    ),
    Event.DELIVERY_RETRIED: MessageRule(
        "Begin Transferring DICOM Instances",
        lambda reporter, event: reporter.begins(event, (event.subject,)),
    ),
    Event.SERIES_RECALLED: _accessed("D", "Delete: taken back by a rejection note"),
    Event.WORKITEM_CLAIMED: _one("Procedure Record", _Reporter.procedure),
    Event.WORKITEM_ENDED: _one("Procedure Record", _Reporter.procedure),
    Event.STORAGE_PURGED: _accessed("D", "Delete, by retention"),
    Event.STORAGE_LOST: _alert(INTEGRITY, _FAILED),
    Event.CERTIFICATE_READ: _alert(SECURITY_CONFIGURATION, _OK),
    Event.CERTIFICATE_NOT_READ: _alert(SECURITY_CONFIGURATION, _FAILED),
    Event.BACKUP_MADE: _alert(RESTRICTED_FUNCTION, _OK),
    Event.BACKUP_RESTORED: _alert(RESTRICTED_FUNCTION, _OK),
    Event.AUDIT_KEY_MADE: _alert(SECURITY_CONFIGURATION, _OK),
    Event.AUDIT_SEALED: _one("Audit Log Used", _Reporter.log_used),
    Event.AUDIT_READ: _one("Audit Log Used", _Reporter.log_used),
    Event.AUDIT_BROKEN: _alert(INTEGRITY, _FAILED),
    Event.REPORT_MADE: _accessed("R", "Read, by the operator"),
    Event.PATIENT_ERASED: _one("DICOM Study Deleted", _Reporter.deleted),
}
#: events of which no message tells, and why
SILENT: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            Event.WORKER_STARTED, Event.PROCESS_RESTARTED, Event.PROCESS_TAKEN_OVER,
            Event.SELF_TEST_FAILED, Event.ENGINE_FALLBACK,
        ),
        "a process within the application",
    ),
    **dict.fromkeys(
        (
            Event.SERIES_DISPUTED, Event.SERIES_HELD, Event.SERIES_REOPENED, Event.STUDY_COMPLETE,
            Event.SERIES_VERIFIED, Event.SERIES_ACCEPTED, Event.SERIES_REFUSED,
            Event.STEP_COMPLETED, Event.STEP_FAILED, Event.TISSUE_LEVEL, Event.SERIES_RECOGNISED,
            Event.SERIES_GUIDED, Event.SERIES_UNCERTAINTY, Event.SERIES_FAILED,
            Event.GATE_REFUSED, Event.RESULT_MEASURED, Event.SERIES_VERDICT,
        ),
        "processing within the node: nobody gets or changes an instance",
    ),
    **dict.fromkeys(
        (Event.DESTINATION_UNREACHABLE, Event.DESTINATION_REACHABLE),
        "each failed attempt before it is told by `delivery.failed`",
    ),
    **dict.fromkeys(
        (
            Event.DELIVERY_VERIFIED, Event.COMMITMENT_REQUESTED, Event.COMMITMENT_ANSWERED,
            Event.COMMITMENT_UNKNOWN, Event.SERIES_PUBLISHED, Event.SERIES_CONFIRMED,
        ),
        "what was transferred is told by `delivery.taken`",
    ),
    **dict.fromkeys(
        (
            Event.NOTIFICATION_SENT, Event.NOTIFICATION_FAILED, Event.NOTIFICATION_REFUSED,
            Event.NOTIFICATION_RETRIED, Event.NOTIFICATION_CANCELLED, Event.NOTICE_SENT,
            Event.NOTICE_FAILED,
        ),
        "no instance and no identity of a patient is transferred",
    ),
    **dict.fromkeys(
        (
            Event.DELIVERY_WITHDRAWN, Event.DELIVERY_CANCELLED, Event.DELIVERY_PAUSED,
            Event.DELIVERY_RESUMED, Event.DELIVERY_STOPPED, Event.DELIVERY_RELEASED,
        ),
        "nothing is transferred",
    ),
    **dict.fromkeys(
        (Event.WORKITEM_CHOSEN, Event.WORKITEM_FAILED, Event.WORKITEM_LOST,
         Event.WORKITEM_REFUSED),
        "the workitem is not changed",
    ),
    Event.REJECTION_RECEIVED: "the note is told by `instance.received`; nothing is deleted",
    **dict.fromkeys(
        (Event.STORAGE_REPAIRED, Event.STORAGE_LOW, Event.STORAGE_FREE, Event.SHADOW_CHANGED),
        "operation of the node",
    ),
    Event.CERTIFICATE_EXPIRING: "operation of the node; told by a notice",
}  # fmt: skip
