"""The audit log as values: the closed list of events, one event, the verdict on the chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Event(StrEnum):
    """Every event the audit log knows; docs/audit-events.md says when each is written."""

    NODE_STARTED = "node.started"
    NODE_STOPPED = "node.stopped"
    WORKER_STARTED = "worker.started"
    BUNDLE_VERIFIED = "bundle.verified"
    BUNDLE_REFUSED = "bundle.refused"
    SELF_TEST_FAILED = "self-test.failed"
    ASSOCIATION_REFUSED = "association.refused"
    ASSOCIATION_ABORTED = "association.aborted"
    INSTANCE_RECEIVED = "instance.received"
    INSTANCE_REFUSED = "instance.refused"
    INSTANCE_CONFLICT = "instance.conflict"
    SERIES_DISPUTED = "series.disputed"
    SERIES_HELD = "series.held"
    DISPUTE_DECIDED = "dispute.decided"
    SERIES_REOPENED = "series.reopened"
    STUDY_COMPLETE = "study.complete"
    SERIES_ACCEPTED = "series.accepted"
    SERIES_REFUSED = "series.refused"
    STEP_COMPLETED = "step.completed"
    STEP_FAILED = "step.failed"
    SERIES_RECOGNISED = "series.recognised"
    SERIES_GUIDED = "series.guided"
    SERIES_SYNTHESISED = "series.synthesised"
    SERIES_FAILED = "series.failed"
    GATE_REFUSED = "gate.refused"
    DELIVERY_TAKEN = "delivery.taken"
    DELIVERY_FAILED = "delivery.failed"
    DELIVERY_REFUSED = "delivery.refused"
    SERIES_PUBLISHED = "series.published"


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """One row of the audit log."""

    sequence: int  #: 1, 2, 3, ... without a gap
    recorded_at: datetime  #: aware, UTC; the wall clock, which may be set back
    monotonic_ns: int  #: monotonic clock of the machine, ns; orders events of one boot
    event: str  #: a value of ``Event``; a tampered row may hold anything
    subject: str  #: what it is about: a DICOM UID, an AE title, a destination
    details: Mapping[str, Any]
    hash: str  #: SHA-256 over the previous row's hash and this row, hexadecimal


@dataclass(frozen=True, kw_only=True)
class ChainVerdict:
    """Whether the audit log is as it was written."""

    intact: bool
    rows: int  #: rows that were found good, from the first one on
    head: str  #: hash of the last good row, hexadecimal
    broken_sequence: int | None = None  #: the first row that is not as it was written
    reason: str | None = None  #: one sentence: what is wrong with it
