"""The ledger as values: what was received, what was decided about it, where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from rebrain_node.domain.findings import Finding

#: Where a series stands; docs/audit-events.md draws the allowed transitions.
SeriesState = Literal[
    "receiving", "complete", "held", "refused", "accepted", "synthesised", "published", "failed"
]
PENDING: Final[tuple[SeriesState, ...]] = (
    "receiving", "complete", "held", "accepted", "synthesised",
)  # fmt: skip
Decision = Literal["accepted", "refused"]
#: what a site decides about a series that arrived again with other content
DisputeDecision = Literal["keep-first", "take-second", "refuse"]
Reception = Literal["new", "same"]


@dataclass(frozen=True, kw_only=True)
class ReceivedInstance:
    """One instance whose bytes already lie on disk durably, to be written into the ledger."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    sha256: str  #: of the stored bytes, hexadecimal
    size_bytes: int
    path: str  #: of the stored bytes, relative to the inbox's folder
    calling_ae_title: str


@dataclass(frozen=True, kw_only=True)
class StoredInstance:
    """One instance of the ledger."""

    ledger_id: int  #: grows with every new instance
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    sha256: str  #: of the stored bytes, hexadecimal
    size_bytes: int
    path: str  #: relative to the inbox's folder
    received_at: datetime  #: aware, UTC
    purged_at: datetime | None = None  #: aware, UTC: when its bytes were deleted by retention


@dataclass(frozen=True, kw_only=True)
class StudyInReception:
    """A study that still waits for its quiet period; a change of ``last_ledger_id`` is news."""

    study_instance_uid: str
    instance_count: int
    last_ledger_id: int  #: ledger id of its newest instance
    last_run: int = 0  #: run of the receiver that took it


@dataclass(frozen=True, kw_only=True)
class ListeningTime:
    """How long the receiver has listened, in seconds that pass only while it does."""

    run: int  #: counts its starts
    run_began_s: float  #: ``listened_s`` when the newest run began
    listened_s: float  #: over all runs


@dataclass(frozen=True, kw_only=True)
class Rival:
    """One quarantined instance that contradicts what the ledger holds of a series."""

    sop_instance_uid: str
    series_instance_uid: str  #: of the series that is in dispute
    first_sha256: str | None  #: of the instance in the ledger; None where it holds none of that UID
    sha256: str  #: of the quarantined bytes
    reason: str  #: ``SAME-UID-OTHER-BYTES`` or ``SERIES-OF-OTHER-STUDY``
    calling_ae_title: str
    received_at: datetime  #: aware, UTC
    decision: DisputeDecision | None  #: None until the site decides


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The decision about one series of a complete study."""

    series_instance_uid: str
    revision: int  #: the revision that was judged; a newer one makes the judgement stale
    decision: Decision
    findings: tuple[Finding, ...] = ()
    explanation: tuple[str, ...] = ()  #: lines that say why, no patient data


@dataclass(frozen=True, kw_only=True)
class SeriesRecord:
    """Where one series stands."""

    series_instance_uid: str
    study_instance_uid: str
    state: SeriesState
    revision: int  #: 1, +1 for each late change
    instance_count: int
    #: ``VERIFIED``, ``INCOMPLETE`` or ``UNVERIFIED``; None while the study is in reception
    completeness: str | None
    findings: tuple[Finding, ...]
    explanation: tuple[str, ...]
    changed_at: datetime  #: aware, UTC
    completeness_reason: str | None = None  #: what that verdict rests on
    #: whether every destination has confirmed the whole result; None where none is published
    confirmed: bool | None = None

    @property
    def state_text(self) -> str:
        """The state, for a published series with whether it is confirmed."""
        if self.confirmed is None:
            return self.state
        return f"{self.state}, {'confirmed' if self.confirmed else 'not confirmed'}"


@dataclass(frozen=True, kw_only=True)
class LedgerCounts:
    """How many series stand where; received = refused + published + failed + pending."""

    instances: int
    quarantined: int  #: instances with a known UID and other bytes
    received: int  #: series of which at least one instance is held
    disputed: int  #: series with quarantined instances about which the site has not decided
    by_state: dict[SeriesState, int]  #: every state, zero where there is none
    confirmed: int = 0  #: published series whose result every destination has confirmed

    @property
    def pending(self) -> int:
        """Series for which something is still to be done."""
        return sum(self.by_state[state] for state in PENDING)

    @property
    def unconfirmed(self) -> int:
        """Published series whose result a destination has not confirmed."""
        return self.by_state["published"] - self.confirmed

    @property
    def conserved(self) -> bool:
        """Whether no series was lost and none counted twice."""
        ended = self.by_state["refused"] + self.by_state["published"] + self.by_state["failed"]
        return self.received == ended + self.pending
