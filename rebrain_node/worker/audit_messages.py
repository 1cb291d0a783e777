"""Sends DICOM audit messages to one collector, until it has taken each.

The audit log is the spool: what the collector has not taken is read again from it
(`store.audit_queue`). The batch before an outage is sent again, too. Pauses are counted on the
monotonic clock of this process. Nothing waits for this loop, neither reception nor delivery.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from rebrain_node.domain.audit import AuditEvent
from rebrain_node.domain.audit_message import AuditFacts, AuditMessage, AuditSource
from rebrain_node.domain.audit_message_rules import messages_of
from rebrain_node.errors import StoreUnavailableError, UnreachableError
from rebrain_node.network.syslog import syslog_message
from rebrain_node.ports import AuditCollector
from rebrain_node.report.audit_message import message_xml
from rebrain_node.store.audit_queue import AuditQueue, message_reader
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.worker.breaker import DestinationBreaker
from rebrain_node.worker.work import reason_of

#: pause between two looks at the log: receptions meanwhile are one message for each study, s
POLL_S: Final = 5.0
#: most rows of one batch
BATCH_ROWS: Final = 500
_LOG = structlog.get_logger("audit-messages")


@dataclass(kw_only=True)
class AuditMessageLoop:
    """Sends the messages of one collector, batch after batch."""

    queue: AuditQueue
    deliveries: Deliveries  #: which record an outage
    collector: AuditCollector
    source: AuditSource
    #: Patient ID of a study, None where it is not stored; without it none is sent
    patient_of: Callable[[str], str | None] | None = None
    clock: Callable[[], float] = time.monotonic
    breaker: DestinationBreaker = field(init=False)
    #: last row before the newest batch that was taken
    _before: int | None = None
    _furthest: int = 0  #: last row that was ever taken
    #: rows of the next batch: fewer after a broken one, so that a slow collector gets on
    _rows: int = BATCH_ROWS

    def __post_init__(self) -> None:
        self.breaker = DestinationBreaker(self.reader)

    @property
    def reader(self) -> str:
        """Name of its position."""
        return message_reader(self.collector.name)

    def run(self, stop: threading.Event) -> None:
        """Send until ``stop``."""
        while not stop.wait(POLL_S):
            try:
                self._send_due(stop)
            except StoreUnavailableError as error:
                _LOG.warning("store unavailable", reason=str(error))
            except Exception as error:  # noqa: BLE001 - it is tried again
                _LOG.warning("audit messages failed", reason=reason_of(error))

    def _send_due(self, stop: threading.Event) -> None:
        try:
            while self.send_next() and not stop.is_set():
                pass
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - `status` says that the collector is not told
            self._fail(reason_of(error))

    def send_next(self) -> bool:
        """Send the messages of the next rows; whether there may be more at once.

        Raises
        ------
        StoreUnavailableError
            The database cannot be used now.
        """
        if not self.breaker.allows(self.clock()):
            return False
        events = self.queue.read(self.reader, self._rows)
        if not events:
            return False
        messages = self.messages(events)
        if messages and not self._send(messages):
            return False
        if messages:
            self._before = events[0].sequence - 1
        self.queue.taken(self.reader, events[-1].sequence)
        was_full = len(events) == self._rows
        if events[-1].sequence > self._furthest:  # what is sent again after an outage ends none
            self._furthest = events[-1].sequence
            self._rows = min(BATCH_ROWS, 2 * self._rows)
            self._succeed()
        return was_full

    def messages(self, events: tuple[AuditEvent, ...]) -> tuple[AuditMessage, ...]:
        """Make the messages of some rows."""
        facts = self.queue.facts(events)
        messages = messages_of(events, facts, self.source)
        if self.patient_of is None:
            return messages
        return messages_of(events, self._with_patients(facts, messages), self.source)

    def _with_patients(self, facts: AuditFacts, messages: tuple[AuditMessage, ...]) -> AuditFacts:
        """Look up the patients of the studies that messages name."""
        assert self.patient_of is not None  # noqa: S101 - for the type checker
        studies = {each.objects[0].id for each in messages if each.names_patient}
        found = {study: self.patient_of(study) for study in sorted(studies)}
        return replace(facts, patients={study: one for study, one in found.items() if one})

    def _send(self, messages: tuple[AuditMessage, ...]) -> bool:
        host = self.source.host
        try:
            self.collector.send(
                [syslog_message(message_xml(each), each.at, host) for each in messages]
            )
        except Exception as error:  # noqa: BLE001 - whatever fails, the batch was not taken
            if not isinstance(error, UnreachableError):
                self._rows = max(1, self._rows // 2)
            self._fail(reason_of(error))
            return False
        return True

    def _succeed(self) -> None:
        if self.breaker.is_open:
            seconds = self.clock() - self.breaker.failed_since_s
            self.deliveries.reachable(self.collector.name, self.breaker.failures, seconds)
        self.breaker.succeed()

    def _fail(self, reason: str) -> None:
        _LOG.warning("audit messages not taken", collector=self.collector.name, reason=reason)
        if self._before is not None:  # a collector that was killed may have lost what it read last
            self.queue.taken(self.reader, self._before)
            self._before = None
        self.queue.failed(self.reader, reason)
        if self.breaker.fail(self.clock()):
            self.deliveries.unreachable(self.collector.name, self.breaker.failures, reason)
