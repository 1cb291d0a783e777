"""Workitems of a workflow manager as values: what the node does for one, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from rebrain_node.domain.notification import AvailableObject

#: where one workitem stands: the node works on it, or it has ended
WorkitemState = Literal["open", "completed", "cancelled", "lost", "refused"]
#: what an HTTP status asks of the performer
WorkitemOutcome = Literal["done", "retry", "conflict", "gone", "refused"]
#: how the Transaction UID travels in Update Workitem (PS3.18 section 11.6)
TransactionForm = Literal["Transaction-uid", "transaction-uid", "body"]
#: what the node asks for, and the state that the workitem has then (PS3.4 CC.1.1)
FINAL_STATES: Final[Mapping[WorkitemState, str]] = {
    "completed": "COMPLETED",
    "cancelled": "CANCELED",
}
_LATER: Final = frozenset({401, 403, 408, 425, 429})


def workitem_outcome(status: int) -> WorkitemOutcome:
    """Classify the HTTP status of an answer about one workitem (PS3.18 sections 11.5 to 11.7).

    =======================  ====================================================================
    2xx                      done
    401, 403                 retry: the token may be replaced while the node runs
    408, 425, 429, 5xx       retry: the manager cannot now
    404, 410                 gone: the workitem is not there
    409                      conflict: another state, or another Transaction UID
    400 and anything else    refused: the same request will not be taken later either
    =======================  ====================================================================
    """
    if 200 <= status < 300:
        return "done"
    if status in _LATER or status >= 500:
        return "retry"
    if status in {404, 410}:
        return "gone"
    return "conflict" if status == 409 else "refused"


@dataclass(frozen=True, kw_only=True)
class ScheduledWorkitem:
    """A workitem that waits for a performer, as a search lists it."""

    workitem_uid: str
    study_instance_uid: str  #: the one study that its input names, or else its request


@dataclass(frozen=True, kw_only=True)
class Workitem:
    """A workitem that this node has chosen to perform."""

    id: int
    manager: str  #: name in the settings
    workitem_uid: str
    study_instance_uid: str
    transaction_uid: str  #: proves that the node holds the workitem; kept over all attempts
    state: WorkitemState
    claimed_at: datetime | None  #: aware, UTC; None until the manager has taken the claim
    status: int | None  #: HTTP status of the last answer
    attempts: int  #: failed ones
    reason: str | None  #: a sentence, unless all is well
    since: datetime  #: aware, UTC: its last change of state


@dataclass(frozen=True, kw_only=True)
class StudyOutcome:
    """What became of a study of which every series has ended: a result, or why there is none."""

    objects: tuple[tuple[str, AvailableObject], ...]  #: each with the destination that took it
    reasons: tuple[str, ...]  #: sentences; no patient data

    @property
    def state(self) -> WorkitemState:
        """What the workitem becomes."""
        return "completed" if self.objects else "cancelled"
