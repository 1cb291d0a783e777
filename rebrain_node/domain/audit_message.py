"""DICOM audit messages as values, with the codes that they hold (PS3.15 A.5, PS3.16 CID 400)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, NamedTuple

from rebrain_node.domain.marks import CODING_SCHEME

Action = Literal["C", "R", "U", "D", "E"]
#: success, minor, serious or major failure (PS3.15 A.5.2)
Outcome = Literal["0", "4", "8", "12"]
#: what stands for a Patient ID that is withheld or no longer stored
NO_PATIENT_ID: Final = "withheld"


class MessageCode(NamedTuple):
    """A coded value."""

    value: str
    scheme: str
    meaning: str


def _dcm(value: str, meaning: str) -> MessageCode:
    return MessageCode(value, "DCM", meaning)


# event identifiers (CID 400)
ACTIVITY: Final = _dcm("110100", "Application Activity")
LOG_USED: Final = _dcm("110101", "Audit Log Used")
BEGIN_TRANSFER: Final = _dcm("110102", "Begin Transferring DICOM Instances")
ACCESSED: Final = _dcm("110103", "DICOM Instances Accessed")
TRANSFERRED: Final = _dcm("110104", "DICOM Instances Transferred")
STUDY_DELETED: Final = _dcm("110105", "DICOM Study Deleted")
PROCEDURE: Final = _dcm("110111", "Procedure Record")
ALERT: Final = _dcm("110113", "Security Alert")
# event types (CID 401 to 403), and one of our own
START: Final = _dcm("110120", "Application Start")
STOP: Final = _dcm("110121", "Application Stop")
NODE_AUTHENTICATION: Final = _dcm("110126", "Node Authentication")
SECURITY_CONFIGURATION: Final = _dcm("110129", "Security Configuration")
SOFTWARE_CONFIGURATION: Final = _dcm("110131", "Software Configuration")
RESTRICTED_FUNCTION: Final = _dcm("110132", "Use of Restricted Function")
INTEGRITY: Final = MessageCode("INTEGRITY", CODING_SCHEME, "Integrity Violation")
# roles of participants (CID 402), and kinds of identifiers (CID 404 and RFC 3881)
APPLICATION: Final = _dcm("110150", "Application")
DESTINATION: Final = _dcm("110152", "Destination Role ID")
SOURCE: Final = _dcm("110153", "Source Role ID")
STUDY_UID: Final = _dcm("110180", "Study Instance UID")
NODE_ID: Final = _dcm("110182", "Node ID")
PATIENT_NUMBER: Final = MessageCode("2", "RFC-3881", "Patient Number")
URI: Final = MessageCode("12", "RFC-3881", "URI")


@dataclass(frozen=True, kw_only=True)
class Participant:
    """A person, process or system that takes part (PS3.15 A.5.2, Active Participant)."""

    user_id: str
    is_requestor: bool = False
    ae_title: str | None = None
    name: str | None = None
    role: MessageCode | None = None
    address: str | None = None  #: host name or IP address


@dataclass(frozen=True, kw_only=True)
class ParticipantObject:
    """What an event is about (PS3.15 A.5.2, Participant Object)."""

    id: str
    id_type: MessageCode
    name: str
    type_code: Literal["1", "2"]  #: a person, a system object
    role: Literal["1", "3", "13"]  #: patient, report, security resource
    details: Mapping[str, str] = field(default_factory=dict)
    #: instances by SOP Class UID; "" where the classes are not known
    instances: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AuditMessage:
    """One DICOM audit message."""

    id: MessageCode
    action: Action
    at: datetime  #: aware, UTC
    outcome: Outcome
    participants: tuple[Participant, ...]
    types: tuple[MessageCode, ...] = ()
    objects: tuple[ParticipantObject, ...] = ()
    why: str | None = None  #: EventOutcomeDescription
    source: str = ""  #: AE title of the node
    site: str | None = None

    @property
    def names_patient(self) -> bool:
        """Whether it is about a study, which is then its first object."""
        return bool(self.objects) and self.objects[0].id_type == STUDY_UID


class SetFacts(NamedTuple):
    """What the outbox knows of a derived set."""

    study: str
    instances: Mapping[str, int]  #: by SOP Class UID


@dataclass(frozen=True, kw_only=True)
class AuditFacts:
    """What the rows of the log do not tell of themselves."""

    studies: Mapping[str, str] = field(default_factory=dict)  #: by Series Instance UID
    sets: Mapping[int, SetFacts] = field(default_factory=dict)
    patients: Mapping[str, str] = field(default_factory=dict)  #: Patient ID by Study Instance UID


class RemotePeer(NamedTuple):
    """How a destination is called in messages."""

    ae_title: str | None  #: None where it is reached by HTTP
    address: str


@dataclass(frozen=True, kw_only=True)
class AuditSource:
    """The node that reports (PS3.15 A.5.2, Audit Source)."""

    ae_title: str
    host: str
    site: str | None = None
    remotes: Mapping[str, RemotePeer] = field(default_factory=dict)  #: by name in the settings
