"""Delivers what the outbox holds for one destination, until it is taken or an operator ends it.

All facts are in the outbox, so that starting again is the recovery: the pauses between attempts
are counted on the monotonic clock of this process and are not kept. A destination that cannot be
reached gets one attempt after each pause, whatever waits for it (`worker.breaker`); a set that the
destination does not take holds up the later sets of its own study only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

import structlog

from rebrain_node.domain.delivery import Confirmation, Delivery, WaitingSet
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.domain.text import reference
from rebrain_node.errors import (
    AlteredBytesError,
    DeliveryError,
    QueryNotOfferedError,
    StoreUnavailableError,
)
from rebrain_node.ports import Destination
from rebrain_node.store.confirmations import Confirmations
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.outbox import Outbox
from rebrain_node.worker.breaker import AttemptPause, DestinationBreaker
from rebrain_node.worker.confirmation import ConfirmationSchedule
from rebrain_node.worker.work import reason_of
from rebrain_node.worker.workflow import LONGEST_PAUSE_S

if TYPE_CHECKING:
    from rebrain_node.worker.revisions import RevisionRule

#: pause between two looks into the outbox, s
POLL_S: Final = 0.25
_LOG = structlog.get_logger("delivery")


@dataclass
class _Attempts(AttemptPause):
    """The attempts for one set since this process has seen it."""

    seen_s: float = 0.0  #: monotonic
    age_s: float = 0.0  #: how old the set was then, by the wall clock

    @classmethod
    def of(cls, waiting: WaitingSet, now_s: float) -> Self:
        return cls(seen_s=now_s, age_s=(datetime.now(UTC) - waiting.since).total_seconds())


@dataclass(kw_only=True)
class DeliveryLoop:
    """Delivers the sets of one destination, one after the other."""

    outbox: Outbox
    deliveries: Deliveries
    confirmations: Confirmations
    destination: Destination
    deadline_h: float | None = None  #: after which a delivery is given up
    confirmation: Confirmation = "none"  #: how the destination confirms that it holds an object
    earlier: RevisionRule | None = None  #: rejects what a later revision has replaced
    clock: Callable[[], float] = time.monotonic
    breaker: DestinationBreaker = field(init=False)
    schedule: ConfirmationSchedule = field(init=False)  #: asks for confirmations
    _sets: dict[int, _Attempts] = field(default_factory=dict)
    _earlier_due_s: float = 0.0  #: monotonic

    def __post_init__(self) -> None:
        self.breaker = DestinationBreaker(self.destination.name)
        self.schedule = ConfirmationSchedule(
            outbox=self.outbox,
            confirmations=self.confirmations,
            destination=self.destination,
            mode=self.confirmation,
            clock=self.clock,
        )

    def run(self, stop: threading.Event) -> None:
        """Deliver what is due until ``stop``."""
        while not stop.wait(POLL_S):
            try:
                if self.clock() >= self._earlier_due_s:
                    self._reject_earlier()
                while (self.deliver_next() or self.confirm_next()) and not stop.is_set():
                    pass
            except StoreUnavailableError as error:
                _LOG.warning("store unavailable", reason=str(error))
                stop.wait(LONGEST_PAUSE_S / 30)
            except Exception as error:  # noqa: BLE001 - other deliveries must go on
                _LOG.warning("delivery loop failed", reason=reason_of(error))
                stop.wait(LONGEST_PAUSE_S / 30)

    def deliver_next(self) -> bool:
        """Try the first set that is due; False where none is.

        Raises
        ------
        StoreUnavailableError
            The outbox cannot be read or written now.
        """
        name, now_s = self.destination.name, self.clock()
        if not self._may_call(now_s):
            return False
        first = self._first_due(self.deliveries.waiting(name), now_s)
        if first is None:
            return False
        (due,) = self.deliveries.of(name, first.set_id)
        self._deliver(due)
        if due.revision > 1:
            self._reject_earlier()
        return True

    def confirm_next(self) -> bool:
        """Ask the destination to confirm the first set that is due; False where none is.

        Raises
        ------
        StoreUnavailableError
            The outbox cannot be read or written now.
        """
        return self._may_call(self.clock()) and self.schedule.confirm_next()

    def _may_call(self, now_s: float) -> bool:
        name = self.destination.name
        return self.breaker.allows(now_s) and all(
            paused.destination != name for paused in self.deliveries.paused()
        )

    def _reject_earlier(self) -> None:
        """Have replaced sets rejected; also those of which an operator's command ended the rest."""
        self._earlier_due_s = self.clock() + LONGEST_PAUSE_S
        if self.earlier is not None:
            self.earlier.reject()

    def _first_due(self, waiting: Sequence[WaitingSet], now_s: float) -> WaitingSet | None:
        """Find the oldest set that is not in its pause, nor after one of its study that is."""
        studies: set[str] = set()
        self._sets = {
            each.set_id: self._sets.get(each.set_id) or _Attempts.of(each, now_s)
            for each in waiting
        }
        for each in waiting:
            if each.study_instance_uid in studies:
                continue
            if self._sets[each.set_id].due_s <= now_s:
                return each
            studies.add(each.study_instance_uid)
        return None

    def _deliver(self, delivery: Delivery) -> None:
        name, set_id = self.destination.name, delivery.set_id
        log = _LOG.bind(set=set_id, destination=name, series=reference(delivery.source_series_uid))
        if self._is_too_old(delivery):
            log.warning("delivery given up", deadline_h=self.deadline_h)
            self.deliveries.refused(
                set_id,
                name,
                f"not delivered within {self.deadline_h:g} h (deadline_h of destination {name}); "
                f"last reason: {delivery.reason or 'none'}",
            )
            return
        try:
            instances = self.outbox.outstanding(set_id, name)
            conflict = self._identity_conflict(instances)
            if conflict is not None:
                log.warning("delivery held", reason=conflict)
                self.deliveries.hold(set_id, name, conflict)
                return
            answers = self.destination.send(instances)
        except AlteredBytesError as error:
            log.critical("delivery refused", reason=str(error))
            self.deliveries.refused(set_id, name, str(error))
            return
        except StoreUnavailableError:
            raise
        except DeliveryError as error:
            log.warning("destination not reached", reason=str(error))
            self._count_failure(set_id, str(error))
            return
        except Exception as error:  # noqa: BLE001 - a destination may fail in any way: try again
            log.warning("delivery failed", reason=reason_of(error))
            self.deliveries.failed(set_id, name, reason_of(error))
            self._sets[set_id].fail(self.clock(), f"{set_id}:{name}")
            return
        self._count_success()
        self.deliveries.record(set_id, name, answers)
        outcomes = [answer.outcome for answer in answers]
        log.info("answered", **{each: outcomes.count(each) for each in dict.fromkeys(outcomes)})
        self.schedule.after_sending(set_id, instances, answers)
        self._sets[set_id].fail(self.clock(), f"{set_id}:{name}")

    def _count_failure(self, set_id: int, reason: str) -> None:
        name = self.destination.name
        self.deliveries.failed(set_id, name, reason, is_trial=self.breaker.is_open)
        if self.breaker.fail(self.clock()):
            self.deliveries.unreachable(name, self.breaker.failures, reason)

    def _count_success(self) -> None:
        if self.breaker.is_open:
            seconds = self.clock() - self.breaker.failed_since_s
            self.deliveries.reachable(self.destination.name, self.breaker.failures, seconds)
        self.breaker.succeed()

    def _identity_conflict(self, instances: Sequence[DerivedInstance]) -> str | None:
        try:
            return self.destination.identity_conflict(instances[0]) if instances else None
        except QueryNotOfferedError:
            return None

    def _is_too_old(self, delivery: Delivery) -> bool:
        """Whether the deadline is over; setting the wall clock while the node runs is no age."""
        if self.deadline_h is None:
            return False
        attempts = self._sets[delivery.set_id]
        return attempts.age_s + self.clock() - attempts.seen_s > 3600 * self.deadline_h
