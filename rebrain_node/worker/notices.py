"""Tells one channel what needs attention, until it has taken each notice.

As with audit messages, the audit log is the spool. What happens within the pause of the channel is
gathered in its next notice, with a count; the pause outlasts a restart, so that a node that starts
again and again does not send as often.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog

from rebrain_node.domain.audit import AuditEvent, Event
from rebrain_node.domain.notice import Notice, needs_person, notice_of
from rebrain_node.errors import StoreUnavailableError
from rebrain_node.ports import JsonValue, NoticeChannel
from rebrain_node.store.audit import AuditLog
from rebrain_node.store.audit_queue import AuditQueue, notice_reader
from rebrain_node.worker.breaker import DestinationBreaker
from rebrain_node.worker.work import reason_of

#: pause between two looks at the log, s
POLL_S: Final = 5.0
_BATCH_ROWS: Final = 2000
#: among so many notices the last is looked for that was no test of an operator
_NEWEST: Final = 20
#: of so many events subjects are kept apart; more are counted
_GATHERED: Final = 10_000
_LOG = structlog.get_logger("notice")


@dataclass(kw_only=True)
class NoticeLoop:
    """Sends the notices of one channel."""

    queue: AuditQueue
    audit: AuditLog
    channel: NoticeChannel
    node: str  #: AE title
    pause_s: float  #: shortest time between two notices
    clock: Callable[[], float] = time.monotonic
    breaker: DestinationBreaker = field(init=False)
    _next_s: float | None = None  #: when the pause ends

    def __post_init__(self) -> None:
        self.breaker = DestinationBreaker(notice_reader(self.channel.name))

    def run(self, stop: threading.Event) -> None:
        """Send until ``stop``."""
        while not stop.wait(POLL_S):
            try:
                self.send_next()
            except StoreUnavailableError as error:
                _LOG.warning("store unavailable", reason=str(error))
            except Exception as error:  # noqa: BLE001 - it is tried again
                _LOG.warning("notices failed", reason=reason_of(error))

    def send_next(self) -> bool:
        """Send one notice of all that has happened, if one is due; whether it was taken.

        Raises
        ------
        StoreUnavailableError
            The database cannot be used now.
        """
        now_s = self.clock()
        if self._next_s is None:
            self._next_s = now_s + self._pause_left_s(datetime.now(UTC))
        if now_s < self._next_s or not self.breaker.allows(now_s):
            return False
        gathered, others, last = self._gather()
        notice = notice_of(self.node, gathered, others)
        if notice is None:
            if last is not None:
                self.queue.taken(self._reader, last)
            return False
        try:
            refused = self.channel.send(notice)
        except Exception as error:  # noqa: BLE001 - whatever fails, the notice was not taken
            self._fail(notice, reason_of(error))
            return False
        assert last is not None  # noqa: S101 - the notice tells of a row; for the type checker
        self.queue.taken(self._reader, last)
        self.audit.record(Event.NOTICE_SENT, self.channel.name, sent_details(notice, refused))
        _LOG.info("notice sent", channel=self.channel.name, events=notice.events)
        self.breaker.succeed()
        self._next_s = self.clock() + self.pause_s
        return True

    @property
    def _reader(self) -> str:
        return notice_reader(self.channel.name)

    def _pause_left_s(self, now: datetime) -> float:
        """Rest of the pause after a notice that was sent before this process began, s.

        A test begins no pause.
        A wall clock that was set back makes no pause longer than it is.
        """
        events = self.audit.events(_NEWEST, subject=self.channel.name, event=Event.NOTICE_SENT)
        for sent in reversed([each for each in events if not each.details.get("operator")]):
            age_s = (now - sent.recorded_at).total_seconds()
            return min(max(0.0, self.pause_s - age_s), self.pause_s)
        return 0.0

    def _gather(self) -> tuple[list[AuditEvent], int, int | None]:
        """Read on to the end of the log: events, number of further ones, last sequence."""
        events: list[AuditEvent] = []
        others, last = 0, None
        while True:
            page = self.queue.read(self._reader, _BATCH_ROWS, after=last)
            found = needs_person(page)
            room = _GATHERED - len(events)
            events += found[:room]
            others += len(found[room:])
            last = page[-1].sequence if page else last
            if len(page) < _BATCH_ROWS:
                return events, others, last

    def _fail(self, notice: Notice, reason: str) -> None:
        _LOG.warning("notice not taken", channel=self.channel.name, reason=reason)
        self.queue.failed(self._reader, reason)
        details = {"events": notice.events, "first": notice.first, "last": notice.last}
        self.audit.record(Event.NOTICE_FAILED, self.channel.name, details | {"reason": reason})
        self.breaker.fail(self.clock())


def sent_details(notice: Notice, refused: int) -> dict[str, JsonValue]:
    """Return what the audit log keeps of a notice that so many recipients did not get."""
    return {
        "events": notice.events,
        "listed": notice.events - notice.held_back,
        "first": notice.first,
        "last": notice.last,
        "recipients_refused": refused,
    }
