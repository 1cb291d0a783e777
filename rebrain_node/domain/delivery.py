"""Delivery as values: what an answer of a destination means, and what a recall concerns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

#: what an answer asks of the sender
Outcome = Literal["taken", "warning", "duplicate", "retry", "refused", "unsupported"]
#: how a destination confirms that it holds what it has accepted
Confirmation = Literal["none", "query", "commitment"]
#: where one object stands at one destination
DeliveryState = Literal[
    "pending", "held", "kept",
    "taken", "unverified", "confirmed", "altered",
    "refused", "left-out", "cancelled", "withdrawn",
]  # fmt: skip

#: the state of an object after an answer
STATE_AFTER: Final[Mapping[Outcome, DeliveryState]] = {
    "taken": "taken",
    "warning": "unverified",
    "duplicate": "unverified",
    "retry": "pending",
    "refused": "refused",
    "unsupported": "left-out",
}
#: states in which a destination holds an object
ACCEPTED_STATES: Final = frozenset({"taken", "unverified", "confirmed", "altered"})
#: states of an object that is neither accepted nor cancelled, or of which something is in doubt
OPEN_STATES: Final[frozenset[DeliveryState]] = frozenset(
    {"pending", "held", "kept", "unverified", "altered", "refused", "left-out", "withdrawn"}
)
#: states of an object that a destination has accepted and not confirmed
UNCONFIRMED_STATES: Final[frozenset[DeliveryState]] = frozenset({"taken", "unverified", "altered"})
#: states in which nothing more is expected of a destination: its copy is not needed, or is certain
RELEASED_STATES: Final = frozenset({"confirmed", "left-out", "cancelled", "withdrawn"})
#: states of an object that a destination may still get: due, held back, or kept in shadow mode
WAITING_STATES: Final = frozenset({"pending", "held", "kept"})
#: titles of a rejection note (PS3.16 CID 7011): code of DCM and its meaning
REJECTION_TITLES: Final[Mapping[str, str]] = {
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}
_WARNINGS = frozenset({0x0001, 0x0107, 0x0116})
_REFUSALS = frozenset(
    {0x0105, 0x0106, 0x0112, 0x0115, 0x0117, 0x0118, 0x0122, 0x0124, 0x0211, 0x0212}
)


def outcome_of(status: int) -> Outcome:
    """Classify the status of a C-STORE response (PS3.4 table B.2-1, PS3.7 annex C).

    ======================  ===================================================================
    0000                    taken
    Bxxx, 0001, 0107, 0116  warning: taken, but the destination may hold something else
    0111                    duplicate: it holds the instance, from an earlier try or from another
    A7xx                    retry: out of resources
    0110, 0210              retry: processing failure, duplicate invocation
    A9xx, Cxxx              refused: the same bytes will not be accepted later either
    0117, 0122, 0124,       refused: invalid instance, SOP class not supported, not authorised,
    0105, 0106, 0115,       ...
    0112, 0118, 0211, 0212
    anything else           retry: not in the standard's table
    ======================  ===================================================================
    """
    if status == 0x0000:
        return "taken"
    if status == 0x0111:
        return "duplicate"
    if status in _WARNINGS or status & 0xF000 == 0xB000:
        return "warning"
    if status in _REFUSALS or status & 0xFF00 == 0xA900 or status & 0xF000 == 0xC000:
        return "refused"
    return "retry"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a destination answered for one instance."""

    sop_instance_uid: str
    outcome: Outcome
    status: int | None = None  #: DIMSE status of the C-STORE response; None without one
    reason: str | None = None  #: a sentence, unless it was taken


@dataclass(frozen=True, kw_only=True)
class HeldObject:
    """Whether a destination holds an object, and whether as it was sent."""

    sop_instance_uid: str
    held: bool
    changed: tuple[str, ...] | None  #: keywords of changed elements; None: it was not read back


@dataclass(frozen=True, kw_only=True)
class CommitmentReport:
    """The answer of a destination to a request for storage commitment (PS3.4 annex J).

    Attributes
    ----------
    committed : tuple of str
        SOP Instance UIDs that the destination promises to keep.
    failed : mapping of str to int
        Failure Reason (0008,1197) by SOP Instance UID.
    """

    transaction_uid: str
    committed: tuple[str, ...]
    failed: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A derived set at one destination."""

    set_id: int
    destination: str  #: name in the settings
    study_instance_uid: str
    source_series_uid: str
    revision: int
    states: Mapping[DeliveryState, int]  #: number of instances in each state that occurs
    attempts: int  #: failed attempts so far
    reason: str | None  #: of the last attempt that failed, or of what is not taken
    since: datetime  #: aware, UTC: when the set entered the outbox

    @property
    def outstanding(self) -> int:
        """Number of instances still to be sent."""
        return self.states.get("pending", 0)

    @property
    def unconfirmed(self) -> int:
        """Number of instances that the destination has accepted and not confirmed."""
        return sum(self.states.get(state, 0) for state in UNCONFIRMED_STATES)

    @property
    def summary(self) -> str:
        """Number of instances in each state, in words."""
        return ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))

    @property
    def needs_operator(self) -> bool:
        """Whether something is refused, held back or altered: nothing more happens by itself."""
        return not self.states.keys().isdisjoint({"refused", "held", "altered"})


class WaitingSet(NamedTuple):
    """A set of which something is still to be sent to one destination."""

    set_id: int
    study_instance_uid: str
    since: datetime  #: aware, UTC: when the set entered the outbox


@dataclass(frozen=True, kw_only=True)
class DeliveredObject:
    """One object at one destination."""

    destination: str  #: name in the settings
    kind: str  #: MR, PM, SEG, SC, PR, SR or KOS
    sop_instance_uid: str
    state: DeliveryState
    status: int | None  #: DIMSE status of the last answer
    attempts: int  #: failed ones
    reason: str | None  #: a sentence, unless it was taken


@dataclass(frozen=True, kw_only=True)
class PausedDestination:
    """A destination to which an operator has stopped deliveries."""

    destination: str
    reason: str
    since: datetime  #: aware, UTC


@dataclass(frozen=True, kw_only=True)
class RecalledObject:
    """One affected derived instance."""

    kind: str  #: MR, PM, SEG, SC, PR, SR or KOS
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    destinations: Mapping[str, str]  #: delivery state by destination
    is_note: bool = False  #: whether it is a rejection note of this node
    rejected: str | None = None  #: title (CID 7011) of the note by which another system rejected it


@dataclass(frozen=True, kw_only=True)
class RejectionDocument:
    """A rejection note of another system."""

    sop_instance_uid: str
    title: str  #: code of CID 7011
    rejected: tuple[str, ...]  #: SOP Instance UIDs


@dataclass(frozen=True, kw_only=True)
class RejectionRecord:
    """A rejection note of another system that names objects of this node."""

    sop_instance_uid: str  #: of the note
    title: str  #: code of CID 7011
    meaning: str
    received_at: datetime  #: aware, UTC
    bundles: Mapping[str, int]  #: number of rejected objects by the bundle that made them


@dataclass(frozen=True, kw_only=True)
class RecalledSet:
    """The affected objects of one derived set."""

    set_id: int
    study_instance_uid: str
    source_series_uid: str
    revision: int
    bundle_digest: str
    slices: tuple[int, ...]  #: numbers of the guided slices, from 1; empty for a whole set
    objects: tuple[RecalledObject, ...]
