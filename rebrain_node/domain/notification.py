"""Notifications of availability as values: what another system is told about a confirmed set."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

#: where one notification stands: it waits for the confirmation, is due, or has ended
NotificationState = Literal["waiting", "pending", "sent", "refused", "cancelled"]
#: what an answer asks of the sender
NotificationOutcome = Literal["sent", "retry", "refused"]

_SENT: Final = frozenset({0x0000, 0x0107, 0x0111, 0x0116})
_REFUSED: Final = frozenset(
    {0x0105, 0x0106, *range(0x0112, 0x0116), *range(0x0117, 0x0125), 0x0211, 0x0212}
)


def notification_outcome(status: int) -> NotificationOutcome:
    """Classify the status of an N-CREATE response (PS3.7 section 10.1.5.1.6, PS3.4 R.3.2.1.4).

    ======================  ===================================================================
    0000                    sent
    0107, 0116              sent: taken with a warning about attributes
    0111                    sent: the receiver has the instance from an earlier try
    0105, 0106, 0112-0115,  refused: the same notification will not be taken later either
    0117-0124, 0211, 0212
    anything else           retry: processing failure, out of resources, not in the table
    ======================  ===================================================================
    """
    if status in _SENT:
        return "sent"
    return "refused" if status in _REFUSED else "retry"


@dataclass(frozen=True, kw_only=True)
class Notification:
    """What one receiver is told about one set at one destination."""

    id: int
    set_id: int
    destination: str  #: name in the settings of the one that holds the set
    receiver: str  #: name in the settings of the one that is notified
    sop_instance_uid: str  #: of the notification; kept over all attempts
    state: NotificationState
    status: int | None  #: of the last N-CREATE response
    attempts: int  #: failed ones
    reason: str | None  #: a sentence, unless it was sent
    since: datetime  #: aware, UTC: its last change of state

    @property
    def needs_operator(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.state == "refused"

    @property
    def text(self) -> str | None:
        """Why it stands where it stands, in a sentence; None where it was sent or is due."""
        if self.state == "waiting":
            return f"waits until {self.destination} has confirmed every object of the set"
        return self.reason


@dataclass(frozen=True, kw_only=True)
class AvailableObject:
    """One object that a destination has confirmed."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class AvailabilityReport:
    """The content of a notification."""

    sop_instance_uid: str  #: of the notification
    study_instance_uid: str
    retrieve_ae_title: str  #: of the destination
    objects: tuple[AvailableObject, ...]  #: in the order of sending
