"""Delivers what the outbox holds for one destination, until it is taken or an operator ends it.

All facts are in the outbox, so that starting again is the recovery: the pauses between attempts
are counted on the monotonic clock of this process and are not kept. A destination that cannot be
reached gets one attempt after each pause, whatever waits for it (circuit breaker); a set that the
destination does not take holds up the later sets of its own study only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from rebrain_node.domain.delivery import Answer, Confirmation, Delivery
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.errors import (
    AlteredBytesError,
    DeliveryError,
    QueryNotOfferedError,
    StoreUnavailableError,
)
from rebrain_node.logs import reference
from rebrain_node.ports import Destination
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.outbox import Outbox
from rebrain_node.worker.work import reason_of
from rebrain_node.worker.workflow import LONGEST_PAUSE_S, pause_s

if TYPE_CHECKING:
    from rebrain_node.worker.revisions import RevisionRule

#: pause between two looks into the outbox, s
POLL_S: Final = 0.25
#: number of objects of a set that are read back and compared
SAMPLE: Final = 4
#: wait for the answer to a request for storage commitment, s
COMMITMENT_WAIT_S: Final = 3600.0
#: requests without an answer after which the destination is asked what it holds instead
COMMITMENT_TRIES: Final = 3
_ACCEPTED: Final = frozenset({"taken", "warning", "duplicate"})
_LOG = structlog.get_logger("delivery")


@dataclass
class _Backoff:
    """Attempts that failed in a row, and when the next one is due."""

    failures: int = 0
    due_s: float = 0.0  #: monotonic

    def fail(self, now_s: float, key: str) -> None:
        self.failures += 1
        self.due_s = now_s + pause_s(self.failures, key)


@dataclass(kw_only=True)
class DeliveryLoop:
    """Delivers the sets of one destination, one after the other."""

    outbox: Outbox
    deliveries: Deliveries
    destination: Destination
    deadline_h: float | None = None  #: after which a delivery is given up
    confirmation: Confirmation = "none"  #: how the destination confirms that it holds an object
    earlier: RevisionRule | None = None  #: rejects what a later revision has replaced
    clock: Callable[[], float] = time.monotonic
    _unreachable: _Backoff = field(default_factory=_Backoff)
    _sets: dict[int, _Backoff] = field(default_factory=dict)
    _earlier_due_s: float = 0.0  #: monotonic
    _commitments: dict[int, _Backoff] = field(default_factory=dict)

    def run(self, stop: threading.Event) -> None:
        """Deliver what is due until ``stop``."""
        while not stop.wait(POLL_S):
            try:
                if self.clock() >= self._earlier_due_s:
                    self._reject_earlier()
                while (self.deliver_next() or self.commit_next()) and not stop.is_set():
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
        if now_s < self._unreachable.due_s:
            return False
        if any(paused.destination == name for paused in self.deliveries.paused()):
            return False
        due = self._first_due(self.deliveries.pending(name), now_s)
        if due is None:
            return False
        self._deliver(due)
        if due.revision > 1:
            self._reject_earlier()
        return True

    def _reject_earlier(self) -> None:
        """Have replaced sets rejected; also those of which an operator's command ended the rest."""
        self._earlier_due_s = self.clock() + LONGEST_PAUSE_S
        if self.earlier is not None:
            self.earlier.reject()

    def _first_due(self, pending: tuple[Delivery, ...], now_s: float) -> Delivery | None:
        """Find the oldest set that is not in its pause, nor after one of its study that is."""
        waiting: set[str] = set()
        self._sets = {d.set_id: self._sets.get(d.set_id, _Backoff()) for d in pending}
        for delivery in pending:
            if delivery.study_instance_uid in waiting:
                continue
            if self._sets[delivery.set_id].due_s <= now_s:
                return delivery
            waiting.add(delivery.study_instance_uid)
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
            self.deliveries.failed(set_id, name, str(error))
            self._unreachable.fail(self.clock(), name)
            return
        except Exception as error:  # noqa: BLE001 - a destination may fail in any way: try again
            log.warning("delivery failed", reason=reason_of(error))
            self.deliveries.failed(set_id, name, reason_of(error))
            self._sets[set_id].fail(self.clock(), f"{set_id}:{name}")
            return
        self._unreachable = _Backoff()
        self.deliveries.record(set_id, name, answers)
        outcomes = [answer.outcome for answer in answers]
        log.info("answered", **{each: outcomes.count(each) for each in dict.fromkeys(outcomes)})
        self._verify(set_id, instances, answers)
        self._sets[set_id].fail(self.clock(), f"{set_id}:{name}")

    def commit_next(self) -> bool:
        """Ask for storage commitment of the first set that is due; False where none is.

        A request without an answer is repeated, with a new Transaction UID, after
        ``COMMITMENT_WAIT_S``; after ``COMMITMENT_TRIES``, or where the destination does not offer
        storage commitment, it is asked what it holds instead.

        Raises
        ------
        StoreUnavailableError
            The outbox cannot be read or written now.
        """
        if self.confirmation != "commitment":
            return False
        name, now_s = self.destination.name, self.clock()
        for delivery in self.deliveries.unconfirmed(name):
            backoff = self._commitments.setdefault(delivery.set_id, _Backoff())
            if now_s >= backoff.due_s:
                self._commit(delivery.set_id, backoff)
                return True
        return False

    def _commit(self, set_id: int, backoff: _Backoff) -> None:
        from pydicom.uid import generate_uid

        accepted = self.deliveries.accepted(set_id, self.destination.name)
        instances = [
            one for one in self.outbox.instances_of(set_id) if one.sop_instance_uid in accepted
        ]
        sample = instances[:: max(1, len(instances) // SAMPLE)]
        backoff.failures += 1
        backoff.due_s = self.clock() + COMMITMENT_WAIT_S
        if backoff.failures > COMMITMENT_TRIES:
            _LOG.warning("storage commitment not answered", set=set_id, requests=COMMITMENT_TRIES)
            self._ask_what_is_held(set_id, instances, sample)
            return
        transaction_uid = generate_uid(prefix=None)
        self.deliveries.request_commitment(set_id, self.destination.name, transaction_uid)
        try:
            self.destination.request_commitment(instances, transaction_uid, self.deliveries.commit)
        except QueryNotOfferedError as error:
            _LOG.warning("no storage commitment", set=set_id, reason=str(error))
            self._ask_what_is_held(set_id, instances, sample)
        except DeliveryError as error:
            _LOG.warning("storage commitment not requested", set=set_id, reason=str(error))
            backoff.due_s = self.clock() + pause_s(backoff.failures, f"{set_id}:commitment")

    def _identity_conflict(self, instances: Sequence[DerivedInstance]) -> str | None:
        try:
            return self.destination.identity_conflict(instances[0]) if instances else None
        except QueryNotOfferedError:
            return None

    def _verify(
        self, set_id: int, instances: Sequence[DerivedInstance], answers: Sequence[Answer]
    ) -> None:
        """Ask the destination what it holds, where an answer is in doubt or always.

        Where it cannot be asked, nothing changes: what is in doubt stays `unverified`.
        """
        accepted = {a.sop_instance_uid: a.outcome for a in answers if a.outcome in _ACCEPTED}
        doubtful = [uid for uid, outcome in accepted.items() if outcome != "taken"]
        always = self.confirmation == "query"
        asked = [o for o in instances if o.sop_instance_uid in (accepted if always else doubtful)]
        sample = asked[:: max(1, len(asked) // SAMPLE)] if always else asked
        if asked:
            self._ask_what_is_held(set_id, asked, sample)

    def _ask_what_is_held(
        self, set_id: int, asked: Sequence[DerivedInstance], read_back: Sequence[DerivedInstance]
    ) -> None:
        try:
            found = self.destination.held(asked, [one.sop_instance_uid for one in read_back])
        except DeliveryError as error:
            _LOG.warning("not verified", set=set_id, reason=str(error))
            return
        self.deliveries.verify(set_id, self.destination.name, found)

    def _is_too_old(self, delivery: Delivery) -> bool:
        if self.deadline_h is None:
            return False
        return datetime.now(UTC) - delivery.since > timedelta(hours=self.deadline_h)
