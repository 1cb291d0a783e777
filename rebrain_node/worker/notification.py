"""Tells one receiver which sets its destinations hold, until it has taken each notification.

As deliveries, all facts are in the outbox and pauses are counted on the monotonic clock of this
process. A notification that is not taken does not hold up the next one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from rebrain_node.domain.notification import (
    AvailabilityReport,
    Notification,
    notification_outcome,
)
from rebrain_node.errors import DeliveryError, StoreUnavailableError
from rebrain_node.ports import NotificationReceiver
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.notifications import Notifications
from rebrain_node.worker.breaker import AttemptPause, DestinationBreaker
from rebrain_node.worker.work import reason_of
from rebrain_node.worker.workflow import LONGEST_PAUSE_S

#: pause between two looks for what is due, s
POLL_S: Final = 1.0
_LOG = structlog.get_logger("notification")


@dataclass(kw_only=True)
class NotificationLoop:
    """Sends the notifications of one receiver, one after the other."""

    notifications: Notifications
    deliveries: Deliveries  #: of which a receiver is paused as a destination is
    receiver: NotificationReceiver
    retrieve_ae_titles: Mapping[str, str]  #: AE title by name of a destination
    clock: Callable[[], float] = time.monotonic
    breaker: DestinationBreaker = field(init=False)
    _pauses: dict[int, AttemptPause] = field(default_factory=dict)  #: by notification

    def __post_init__(self) -> None:
        self.breaker = DestinationBreaker(f"{self.receiver.name}:notification")

    def run(self, stop: threading.Event) -> None:
        """Send what is due until ``stop``."""
        while not stop.wait(POLL_S):
            try:
                while self.notify_next() and not stop.is_set():
                    pass
            except StoreUnavailableError as error:
                _LOG.warning("store unavailable", reason=str(error))
                stop.wait(LONGEST_PAUSE_S / 30)
            except Exception as error:  # noqa: BLE001 - other notifications must go on
                _LOG.warning("notification loop failed", reason=reason_of(error))
                stop.wait(LONGEST_PAUSE_S / 30)

    def notify_next(self) -> bool:
        """Try the first notification that is due; False where none is.

        Raises
        ------
        StoreUnavailableError
            The outbox cannot be read or written now.
        """
        now_s = self.clock()
        if not self.breaker.allows(now_s):
            return False
        if any(each.destination == self.receiver.name for each in self.deliveries.paused()):
            return False
        pending = self.notifications.pending(self.receiver.name)
        self._pauses = {one.id: self._pauses.get(one.id, AttemptPause()) for one in pending}
        due = next((one for one in pending if self._pauses[one.id].due_s <= now_s), None)
        if due is None:
            return False
        self._notify(due)
        return True

    def _notify(self, due: Notification) -> None:
        title = self.retrieve_ae_titles.get(due.destination)
        if title is None:
            self._refuse(
                due,
                f"destination {due.destination} is not in the settings, so its AE title is not "
                "known; add it again and run `rebrain-node outbox retry "
                f"{due.set_id} --to {due.receiver}`, or cancel it with `outbox cancel`",
            )
            return
        study, objects = self.notifications.content(due)
        report = AvailabilityReport(
            sop_instance_uid=due.sop_instance_uid,
            study_instance_uid=study,
            retrieve_ae_title=title,
            objects=objects,
        )
        try:
            status = self.receiver.notify(report)
        except DeliveryError as error:
            self._count_failure(due, str(error))
            return
        except Exception as error:  # noqa: BLE001 - a receiver may fail in any way: try again
            self._fail(due, reason_of(error))
            return
        self._count_success()
        self._record(due, status, len(objects))

    def _record(self, due: Notification, status: int, objects: int) -> None:
        outcome = notification_outcome(status)
        text = f"{due.receiver} answered 0x{status:04X} to the notification"
        if outcome == "sent":
            _LOG.info("notified", set=due.set_id, receiver=due.receiver, objects=objects)
            self.notifications.sent(due, status, objects)
        elif outcome == "retry":
            self._fail(due, f"{text}: not taken this time; it is sent again", status)
        else:
            self._refuse(
                due,
                f"{text}: it will not take it later either; ask its administrator why, then run "
                f"`rebrain-node outbox retry {due.set_id} --to {due.receiver}`",
                status,
            )

    def _refuse(self, due: Notification, reason: str, status: int | None = None) -> None:
        _LOG.warning("notification refused", set=due.set_id, reason=reason)
        self.notifications.refused(due, reason, status)

    def _fail(self, due: Notification, reason: str, status: int | None = None) -> None:
        _LOG.warning("not notified", set=due.set_id, reason=reason)
        self.notifications.failed(due, reason, status)
        self._pauses[due.id].fail(self.clock(), f"{due.id}:{due.receiver}")

    def _count_failure(self, due: Notification, reason: str) -> None:
        _LOG.warning("receiver not reached", set=due.set_id, reason=reason)
        self.notifications.failed(due, reason, is_trial=self.breaker.is_open)
        if self.breaker.fail(self.clock()):
            self.deliveries.unreachable(due.receiver, self.breaker.failures, reason)

    def _count_success(self) -> None:
        if self.breaker.is_open:
            seconds = self.clock() - self.breaker.failed_since_s
            self.deliveries.reachable(self.receiver.name, self.breaker.failures, seconds)
        self.breaker.succeed()
