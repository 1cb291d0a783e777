"""Performs the workitems of one workflow manager whose study has ended, until each has ended.

As deliveries, all facts are in the database and pauses are counted on the monotonic clock of this
process. A workitem that cannot be ended does not hold up the next one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from rebrain_node.domain.workitem import FINAL_STATES, StudyOutcome, Workitem, workitem_outcome
from rebrain_node.errors import DeliveryError, StoreUnavailableError
from rebrain_node.ports import WorkitemManager
from rebrain_node.store.deliveries import Deliveries
from rebrain_node.store.workitems import Workitems
from rebrain_node.worker.breaker import AttemptPause, DestinationBreaker
from rebrain_node.worker.work import reason_of
from rebrain_node.worker.workflow import LONGEST_PAUSE_S

#: pause between two looks for what is due, s
POLL_S: Final = 1.0
#: pause between two searches at the manager, s
SEARCH_S: Final = 30.0
_LOG = structlog.get_logger("workitem")
_ANOTHER: Final = "another system performs it, so the node leaves it alone"


@dataclass(kw_only=True)
class WorkitemLoop:
    """Performs the workitems of one manager, one after the other."""

    workitems: Workitems
    deliveries: Deliveries  #: of which a manager is paused as a destination is
    manager: WorkitemManager
    clock: Callable[[], float] = time.monotonic
    breaker: DestinationBreaker = field(init=False)
    _pauses: dict[int, AttemptPause] = field(default_factory=dict)  #: by workitem
    _unclaimed: set[int] = field(default_factory=set)  #: chosen by this process, not yet claimed
    _search_due_s: float = 0.0
    _has_reopened: bool = False

    def __post_init__(self) -> None:
        self.breaker = DestinationBreaker(f"{self.manager.name}:workitem")

    def run(self, stop: threading.Event) -> None:
        """Perform what is due until ``stop``."""
        while not stop.wait(POLL_S):
            try:
                while self.perform_next() and not stop.is_set():
                    pass
            except StoreUnavailableError as error:
                _LOG.warning("store unavailable", reason=str(error))
                stop.wait(LONGEST_PAUSE_S / 30)
            except Exception as error:  # noqa: BLE001 - other workitems must go on
                _LOG.warning("workitem loop failed", reason=reason_of(error))
                stop.wait(LONGEST_PAUSE_S / 30)

    def perform_next(self) -> bool:
        """Try the first workitem that is due, or search for more; False where nothing was done.

        Raises
        ------
        StoreUnavailableError
            The database cannot be read or written now.
        """
        now_s, name = self.clock(), self.manager.name
        if not self._has_reopened:
            self.workitems.reopen(name)
            self._has_reopened = True
        if not self.breaker.allows(now_s):
            return False
        if any(each.destination == name for each in self.deliveries.paused()):
            return False
        known = self.workitems.open(name)
        self._pauses = {one.id: self._pauses.get(one.id, AttemptPause()) for one in known}
        due = next((one for one in known if self._pauses[one.id].due_s <= now_s), None)
        if due is not None:
            self._perform(due)
            return True
        if now_s < self._search_due_s:
            return False
        self._search_due_s = now_s + SEARCH_S
        return self._search()

    def _search(self) -> bool:
        """Choose each scheduled workitem whose study has ended; whether there is one."""
        try:
            listed = self.manager.scheduled()
        except DeliveryError as error:
            self._count_failure(str(error))
            return False
        except Exception as error:  # noqa: BLE001 - a manager may fail in any way: try again
            self._count_failure(reason_of(error))
            return False
        self._count_success()
        chosen = [
            self.workitems.choose(self.manager.name, one)
            for one in listed
            if not self.workitems.is_known(self.manager.name, one.workitem_uid)
            and self.workitems.end_of(one.study_instance_uid) is not None
        ]
        self._unclaimed.update(chosen)
        return bool(chosen)

    def _perform(self, due: Workitem) -> None:
        end = self.workitems.end_of(due.study_instance_uid)
        if end is None:  # instances came late: a new revision has its own end
            self._pauses[due.id].due_s = self.clock() + SEARCH_S
            return
        try:
            self._advance(due, end)
        except DeliveryError as error:
            self.workitems.failed(due, str(error), is_trial=self.breaker.is_open)
            self._pauses[due.id].fail(self.clock(), f"{due.id}:{due.manager}")
            self._count_failure(str(error))
            return
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - a manager may fail in any way: try again
            self._fail(due, reason_of(error))
            return
        self._count_success()

    def _advance(self, due: Workitem, end: StudyOutcome) -> None:
        """Claim, update and finish; the state at the manager says what was done before."""
        status, held = self.manager.retrieve(due)
        match workitem_outcome(status), str(held.get("ProcedureStepState") or ""):
            case "done", "SCHEDULED":
                claimed = self._claim(due)
                if claimed is None:
                    return
                due = claimed
            case "done", "IN PROGRESS" if due.id not in self._unclaimed:
                pass  # whether it is this node's, the Transaction UID decides
            case "done", "IN PROGRESS":
                self._lose(due, _ANOTHER, status)
                return
            case "done", state if due.claimed_at and state == FINAL_STATES[end.state]:
                self._ended(due, end, status)  # the answer was lost
                return
            case "done", state:
                self._lose(due, f"the manager holds it as {state or 'without a state'}", status)
                return
            case "gone", _:
                self._lose(due, f"the manager does not hold it any more (HTTP {status})", status)
                return
            case _:
                self._answer(due, status, "a request to retrieve it")
                return
        self._finish(due, end, self.manager.update(due, end, held))

    def _claim(self, due: Workitem) -> Workitem | None:
        """Claim a workitem; None where the manager has not taken the claim."""
        self._unclaimed.discard(due.id)
        status = self.manager.claim(due)
        match workitem_outcome(status):
            case "done":
                _LOG.info("workitem claimed", workitem=due.workitem_uid)
                return self.workitems.claimed(due)
            case "conflict":
                self._lose(due, _ANOTHER, status)
            case _:
                self._answer(due, status, "the claim")
        return None

    def _finish(self, due: Workitem, end: StudyOutcome, updated: int) -> None:
        outcome = workitem_outcome(updated)
        if outcome != "done":
            if outcome == "conflict" and due.claimed_at is None:
                self._lose(due, _ANOTHER, updated)
            else:
                self._answer(due, updated, "the update")
            return
        if due.claimed_at is None:
            due = self.workitems.claimed(due)  # the answer to the claim was lost
        status = self.manager.finish(due, end)
        if workitem_outcome(status) == "done":
            self._ended(due, end, status)
        else:
            self._answer(due, status, f"the change to {FINAL_STATES[end.state]}")

    def _answer(self, due: Workitem, status: int, request: str) -> None:
        """Record that a request was not taken: for now, or for good."""
        text = f"{due.manager} answered HTTP {status} to {request} of workitem {due.workitem_uid}"
        if workitem_outcome(status) == "retry":
            self._fail(due, f"{text}: not taken this time; it is sent again", status)
            return
        _LOG.warning("workitem refused", workitem=due.workitem_uid, status=status)
        reason = (
            f"{text}: it will not take it later either; check that workflow_managers.transaction "
            "is the form that it knows and start the node again, or end the workitem there by hand"
        )
        self.workitems.refused(due, reason, status)

    def _ended(self, due: Workitem, end: StudyOutcome, status: int) -> None:
        _LOG.info("workitem ended", workitem=due.workitem_uid, state=end.state)
        self.workitems.ended(due, end, status)

    def _lose(self, due: Workitem, why: str, status: int) -> None:
        _LOG.info("workitem lost", workitem=due.workitem_uid, reason=why)
        self._unclaimed.discard(due.id)
        self.workitems.lost(due, f"workitem {due.workitem_uid} of {due.manager}: {why}", status)

    def _fail(self, due: Workitem, reason: str, status: int | None = None) -> None:
        _LOG.warning("workitem not taken", workitem=due.workitem_uid, reason=reason)
        self.workitems.failed(due, reason, status)
        self._pauses[due.id].fail(self.clock(), f"{due.id}:{due.manager}")

    def _count_failure(self, reason: str) -> None:
        _LOG.warning("workflow manager not reached", reason=reason)
        if self.breaker.fail(self.clock()):
            self.deliveries.unreachable(self.manager.name, self.breaker.failures, reason)

    def _count_success(self) -> None:
        if self.breaker.is_open:
            seconds = self.clock() - self.breaker.failed_since_s
            self.deliveries.reachable(self.manager.name, self.breaker.failures, seconds)
        self.breaker.succeed()
