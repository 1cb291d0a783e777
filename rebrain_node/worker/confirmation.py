"""Asks a destination to confirm what it has accepted, until it has or can be asked no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from rebrain_node.domain.delivery import Answer, Confirmation, DeliveryState
from rebrain_node.domain.job import DerivedInstance
from rebrain_node.errors import AlteredBytesError, QueryNotOfferedError, UnreachableError
from rebrain_node.ports import Destination
from rebrain_node.store.confirmations import Confirmations
from rebrain_node.store.outbox import Outbox
from rebrain_node.worker.breaker import DestinationBreaker
from rebrain_node.worker.work import reason_of
from rebrain_node.worker.workflow import pause_s

#: number of objects of a set that are read back and compared
SAMPLE: Final = 4
#: wait for the answer to a request for storage commitment, and between two queries, s
WAIT_S: Final = 3600.0
#: requests without an answer after which the destination is asked what it holds instead, and
#: queries without a confirmation after which a set is left as it is until the node starts again
TRIES: Final = 3
#: pause between two looks for sets that are not confirmed, s
_LOOK_S: Final = 5.0
_ACCEPTED: Final = frozenset({"taken", "warning", "duplicate"})
_LOG = structlog.get_logger("confirmation")


@dataclass
class _Round:
    """What a destination was asked about one set since the node started."""

    requests: int = 0  #: for storage commitment
    queries: int = 0
    due_s: float = 0.0  #: monotonic


@dataclass(kw_only=True)
class ConfirmationSchedule:
    """When one destination is asked about which set.

    Has a circuit breaker of its own, so that a destination that takes objects and refuses every
    question is still delivered to at once.
    """

    outbox: Outbox
    confirmations: Confirmations
    destination: Destination
    mode: Confirmation
    clock: Callable[[], float]
    breaker: DestinationBreaker = field(init=False)
    _rounds: dict[int, _Round] = field(default_factory=dict)
    _look_due_s: float = 0.0
    _query_due_s: float = 0.0  #: not before, because it offers none

    def __post_init__(self) -> None:
        self.breaker = DestinationBreaker(f"{self.destination.name}:confirmation")

    def after_sending(
        self, set_id: int, instances: Sequence[DerivedInstance], answers: Sequence[Answer]
    ) -> None:
        """Ask what it holds of what it has just accepted: what is in doubt, or (`query`) all.

        Raises
        ------
        StoreUnavailableError
            The outbox cannot be written now.
        """
        self._look_due_s = 0.0
        accepted = {a.sop_instance_uid: a.outcome for a in answers if a.outcome in _ACCEPTED}
        doubtful = [uid for uid, outcome in accepted.items() if outcome != "taken"]
        certain = [uid for uid in accepted if uid not in doubtful] if self.mode == "query" else []
        self._query_parts(set_id, instances, doubtful, certain)

    def confirm_next(self) -> bool:
        """Ask about the first set that is due; False where none is.

        Raises
        ------
        StoreUnavailableError
            The outbox cannot be read or written now.
        """
        now_s = self.clock()
        if now_s < self._look_due_s or not self.breaker.allows(now_s):
            return False
        found = self.confirmations.unconfirmed(self.destination.name, in_doubt=self.mode == "none")
        self._rounds = {set_id: self._rounds.get(set_id, _Round()) for set_id in found}
        for set_id, each in self._rounds.items():
            by_query = self.mode != "commitment" or each.requests >= TRIES
            if now_s >= max(each.due_s, self._query_due_s if by_query else 0.0):
                try:
                    self._confirm(set_id, by_query=by_query)
                except AlteredBytesError as error:
                    _LOG.critical("cannot be confirmed", set=set_id, reason=str(error))
                    each.due_s = math.inf
                return True
        self._look_due_s = now_s + _LOOK_S
        return False

    def _confirm(self, set_id: int, *, by_query: bool) -> None:
        accepted = self.confirmations.accepted(set_id, self.destination.name)
        instances = self.outbox.instances_of(set_id)
        if not by_query:
            asked = [one for one in instances if one.sop_instance_uid in accepted]
            self._request_commitment(set_id, asked)
            return
        if self.mode == "commitment":
            _LOG.warning("storage commitment not answered", set=set_id, requests=TRIES)
        self._query_all(set_id, instances, accepted)

    def _query_all(
        self,
        set_id: int,
        instances: Sequence[DerivedInstance],
        accepted: Mapping[str, DeliveryState],
    ) -> None:
        """Ask about everything that is not confirmed."""
        doubtful = [uid for uid, state in accepted.items() if state == "unverified"]
        certain = [uid for uid, state in accepted.items() if state == "taken"]
        self._query_parts(set_id, instances, doubtful, certain)

    def _query_parts(
        self,
        set_id: int,
        instances: Sequence[DerivedInstance],
        doubtful: Sequence[str],
        certain: Sequence[str],
    ) -> None:
        """Read back all that is in doubt, and a sample of what was answered with success."""
        of = {one.sop_instance_uid: one for one in instances}
        read_back = [*doubtful, *certain[:: _step(certain)]]
        if asked := [of[uid] for uid in (*doubtful, *certain)]:
            self._query(set_id, asked, read_back)

    def _request_commitment(self, set_id: int, instances: Sequence[DerivedInstance]) -> None:
        from pydicom.uid import generate_uid  # not before the first request: it is large

        current, name = self._rounds[set_id], self.destination.name
        if not current.requests:
            self._read_back(set_id, instances[:: _step(instances)])
        current.requests += 1
        current.due_s = self.clock() + WAIT_S
        transaction_uid = generate_uid(prefix=None)
        self.confirmations.request_commitment(set_id, name, transaction_uid)
        try:
            self.destination.request_commitment(
                instances, transaction_uid, self.confirmations.commit
            )
        except QueryNotOfferedError as error:
            _LOG.warning("no storage commitment", set=set_id, reason=str(error))
            self._query_all(set_id, instances, self.confirmations.accepted(set_id, name))
            return
        except UnreachableError as error:
            _LOG.warning("storage commitment not requested", set=set_id, reason=str(error))
            current.requests, current.due_s = current.requests - 1, 0.0
            self.breaker.fail(self.clock())
            return
        except Exception as error:  # noqa: BLE001 - a destination may fail in any way: go on
            _LOG.warning("storage commitment refused", set=set_id, reason=reason_of(error))
            current.due_s = self.clock() + pause_s(current.requests, f"{set_id}:{name}")
        self.breaker.succeed()

    def _read_back(self, set_id: int, sample: Sequence[DerivedInstance]) -> None:
        """Compare a sample, as a destination may commit itself to another object of our UID."""
        try:
            found = self.destination.held(sample, [one.sop_instance_uid for one in sample])
        except Exception:  # noqa: BLE001 - a destination may fail in any way: go on
            return  # the request for storage commitment goes on, and meets the same error
        altered = [one for one in found if one.changed]
        if altered:
            self.confirmations.verify(set_id, self.destination.name, altered)

    def _query(
        self, set_id: int, asked: Sequence[DerivedInstance], read_back: Sequence[str]
    ) -> None:
        """Ask what it holds; where it cannot be asked, nothing changes."""
        current = self._rounds.setdefault(set_id, _Round())
        now_s = self.clock()
        try:
            found = self.destination.held(asked, read_back)
        except QueryNotOfferedError as error:
            _LOG.warning("not verified", set=set_id, reason=str(error))
            self._query_due_s = now_s + WAIT_S
            return
        except Exception as error:  # noqa: BLE001 - a destination may fail in any way: ask later
            _LOG.warning("not verified", set=set_id, reason=reason_of(error))
            self.breaker.fail(now_s)
            return
        self.breaker.succeed()
        current.queries += 1
        current.due_s = now_s + WAIT_S if current.queries < TRIES else math.inf
        self.confirmations.verify(set_id, self.destination.name, found)


def _step(values: Sequence[object]) -> int:
    """Distance of those that are taken as a sample of at most ``SAMPLE``."""
    return max(1, math.ceil(len(values) / SAMPLE))
