"""What needs attention, as the audit log tells it, and the notice that says so.

A notice names events, destinations, codes, counts and short ids; never a patient, a UID, a reason
in free text or a path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rebrain_node.domain.audit import AuditEvent, Event
from rebrain_node.domain.text import reference, utc

#: a notice lists so many kinds of events; the number of the others stands in it
LISTED: Final = 20
_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_UNFIT: Final = re.compile(r"[^\x20-\x7e]")
#: a name that somebody else chose is cut to this
_LONGEST_NAME: Final = 64


@dataclass(frozen=True, kw_only=True)
class NoticeItem:
    """Equal events about one subject."""

    event: str
    subject: str  #: name of a destination or process, or the short id of a series
    count: int
    last: datetime  #: aware, UTC
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What one channel is told at one time."""

    node: str  #: AE title
    events: int  #: all events that it stands for
    items: tuple[NoticeItem, ...]  #: at most `LISTED`
    first: int  #: audit log, sequence of the first of them; 0 in a test
    last: int

    @property
    def held_back(self) -> int:
        """Number of events that no item tells of."""
        return self.events - sum(item.count for item in self.items)

    @property
    def subject(self) -> str:
        """One line."""
        if not self.first:
            return f"rebrain-node {self.node}: test of notices"
        what = "event needs" if self.events == 1 else "events need"
        return f"rebrain-node {self.node}: {self.events} {what} you"

    @property
    def text(self) -> str:
        """The notice in plain words, one line for each item."""
        lines = [
            f"{item.count} x {item.event}, {item.subject}: {item.sentence} (last {utc(item.last)})"
            for item in self.items
        ]
        if self.held_back:
            lines.append(f"{self.held_back} further events are not listed here.")
        if self.first:
            lines.append(
                f"Events {self.first} to {self.last} of the audit log; "
                "see `rebrain-node audit list` and `rebrain-node status`."
            )
        else:
            lines.append("This is a test. Nothing needs you.")
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "node": self.node,
            "test": not self.first,
            "subject": self.subject,
            "events": self.events,
            "held_back": self.held_back,
            "first": self.first,
            "last": self.last,
            "items": [
                {
                    "event": item.event,
                    "subject": item.subject,
                    "count": item.count,
                    "last": utc(item.last),
                    "sentence": item.sentence,
                }
                for item in self.items
            ],
        }


def _said(sentence: str) -> Callable[[AuditEvent], str | None]:
    return lambda _: sentence


def _unknown(event: AuditEvent) -> str | None:
    if "would_admit" not in event.details:
        return None
    return "a sender that is not in the settings was refused; see `rebrain-node peers unknown`"


def _certificate(event: AuditEvent) -> str:
    days = event.details.get("days")
    if isinstance(days, int) and days < 0:
        return f"the certificate ended {-days} days ago; renew it"
    return f"the certificate ends in {days} days; renew it"


def _stopped(event: AuditEvent) -> str | None:
    if event.details.get("operator"):
        return None
    return "a rule stopped delivery: nothing is sent before a release; see `rebrain-node stop list`"


_OUTBOX: Final = "see `rebrain-node outbox list`"
#: what a notice says of an event; None where it needs nobody
SENTENCES: Final[Mapping[str, Callable[[AuditEvent], str | None]]] = {
    Event.DELIVERY_REFUSED: _said(f"a result was refused and is not tried again; {_OUTBOX}"),
    Event.DELIVERY_HELD: _said(f"a result is held back, the study there differs; {_OUTBOX}"),
    Event.DELIVERY_STOPPED: _stopped,
    Event.DESTINATION_UNREACHABLE: _said(
        "it does not answer; the node goes on trying and loses nothing; check it and the network"
    ),
    Event.NOTIFICATION_REFUSED: _said(f"a notification of a result was refused; {_OUTBOX}"),
    Event.WORKITEM_REFUSED: _said("a request about a workitem was refused; see the audit log"),
    Event.SERIES_FAILED: _said("a series ended without a result; see `rebrain-node queue show`"),
    Event.SERIES_HELD: _said("a series waits for your decision; see `rebrain-node queue dispute`"),
    Event.GATE_REFUSED: _said("a result broke a rule of the gate and was kept; report this defect"),
    Event.BUNDLE_REFUSED: _said("the bundle was refused: nothing is synthesised; see the log"),
    Event.SELF_TEST_FAILED: _said("the engine cannot start: nothing is synthesised; see the log"),
    Event.PROCESS_RESTARTED: _said("a process gave no answer and was started again; see the log"),
    Event.PROCESS_TAKEN_OVER: _said(
        "it gave no sign of life, others do its work; see `rebrain-node status` and its machine"
    ),
    Event.STORAGE_LOW: _said("the disk is almost full: no new study is judged; make room"),
    Event.STORAGE_LOST: _said("stored bytes were missing or altered; see the audit log"),
    Event.AUDIT_BROKEN: _said(
        "the audit log is not as it was written; run `rebrain-node audit verify`"
    ),
    Event.ASSOCIATION_REFUSED: _unknown,
    Event.CERTIFICATE_NOT_READ: _said(
        "changed certificate files cannot be used, those before stay in force; correct them"
    ),
    Event.CERTIFICATE_EXPIRING: _certificate,
}


def notice_of(node: str, events: Sequence[AuditEvent], others: int = 0) -> Notice | None:
    """Gather events that need attention; None where there is none.

    Parameters
    ----------
    others : int
        Number of such events that are counted only.
    """
    groups: dict[tuple[str, str, str], list[AuditEvent]] = {}
    for event in events:
        sentence = _sentence(event)
        if sentence is not None:
            key = (event.event, _shown(event.subject), sentence)
            groups.setdefault(key, []).append(event)
    if not groups:
        return None
    needing = [each for group in groups.values() for each in group]
    items = tuple(
        NoticeItem(
            event=name, subject=subject, count=len(group), last=group[-1].recorded_at,
            sentence=sentence,
        )
        for (name, subject, sentence), group in groups.items()
    )  # fmt: skip
    return Notice(
        node=node,
        events=len(needing) + others,
        items=items[:LISTED],
        first=min(each.sequence for each in needing),
        last=max(each.sequence for each in needing),
    )


def needs_person(events: Iterable[AuditEvent]) -> list[AuditEvent]:
    """Return the events that a notice tells of."""
    return [event for event in events if _sentence(event) is not None]


def _sentence(event: AuditEvent) -> str | None:
    rule = SENTENCES.get(event.event)
    return None if rule is None else rule(event)


def _shown(subject: str) -> str:
    """A UID as its short id; a name that a peer chose in printable characters and cut."""
    if _UID.fullmatch(subject):
        return reference(subject)
    return _UNFIT.sub("?", subject)[:_LONGEST_NAME]
