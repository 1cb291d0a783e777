"""The tables: facts only; progress and retries belong to the worker.

No column holds a patient's name, identity or birth date; DICOM UIDs are the most personal
data here. Times are aware UTC. The triggers that keep the audit log append-only stand in the
migrations, since they differ by dialect.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from rebrain_node.domain.executor import Duty

#: 64 bit on PostgreSQL, the row id on SQLite
_Id = BigInteger().with_variant(Integer(), "sqlite")
_Uid = String(64)  # PS3.5 section 9.1: at most 64 characters
_Sha256 = String(64)  # hexadecimal


class UtcText(TypeDecorator[datetime]):
    """An aware UTC time as ISO 8601 text of fixed width: sorts as text, equal on both dialects."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Write the time in UTC with microseconds."""
        return None if value is None else utc_text(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Read an aware time."""
        return None if value is None else datetime.fromisoformat(value)


def utc_text(moment: datetime) -> str:
    """Write an aware time as ``2026-01-31T12:00:00.000000+00:00``."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


class Table(DeclarativeBase):
    """What all tables share: the naming convention of constraints."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class AuditRow(Table):
    """One event; never changed or deleted (triggers)."""

    __tablename__ = "audit_event"

    sequence: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=False)
    recorded_at: Mapped[str] = mapped_column(String(32))  #: UTC as text: its bytes are hashed
    monotonic_ns: Mapped[int] = mapped_column(BigInteger)
    event: Mapped[str] = mapped_column(String(64), index=True)
    subject: Mapped[str] = mapped_column(Text, index=True)
    details: Mapped[str] = mapped_column(Text)  #: canonical JSON
    hash: Mapped[str] = mapped_column(_Sha256)


class AuditHead(Table):
    """The one row that says where the chain ends; a cut tail disagrees with it."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    sequence: Mapped[int] = mapped_column(BigInteger)
    hash: Mapped[str] = mapped_column(_Sha256)


class CheckpointRow(Table):
    """One signed checkpoint of the audit log; never changed or deleted (triggers)."""

    __tablename__ = "audit_checkpoint"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16))  #: checkpoint, seal
    sequence: Mapped[int] = mapped_column(BigInteger, index=True)
    hash: Mapped[str] = mapped_column(_Sha256)
    signed_at: Mapped[str] = mapped_column(String(32))  #: UTC as text: its bytes are signed
    key: Mapped[str] = mapped_column(_Sha256)
    signature: Mapped[str] = mapped_column(String(128))


class AuditQueueRow(Table):
    """How far one receiver of audit messages or notices has been told of the audit log."""

    __tablename__ = "audit_queue"

    reader: Mapped[str] = mapped_column(String(64), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger)  #: last row that it has taken
    failures: Mapped[int]  #: in a row
    reason: Mapped[str | None] = mapped_column(Text)  #: of the last failure
    changed_at: Mapped[datetime] = mapped_column(UtcText)


class StudyRow(Table):
    """One study; in reception until it was quiet long enough."""

    __tablename__ = "study"

    study_instance_uid: Mapped[str] = mapped_column(_Uid, primary_key=True)
    state: Mapped[str] = mapped_column(String(16), index=True)  #: receiving, complete, judged
    instance_count: Mapped[int]
    last_ledger_id: Mapped[int] = mapped_column(BigInteger)
    last_run: Mapped[int]  #: run of the receiver that took its newest instance


class ExecutorRow(Table):
    """One start of one process, among those of all machines that share the database."""

    __tablename__ = "executor"

    token: Mapped[str] = mapped_column(String(32), primary_key=True)
    machine: Mapped[str] = mapped_column(String(64))
    process: Mapped[str] = mapped_column(String(32))
    run: Mapped[str] = mapped_column(String(32))  #: of its supervisor
    pid: Mapped[int]
    beats: Mapped[int] = mapped_column(BigInteger)  #: signs of life since the start
    beat_ms: Mapped[int] = mapped_column(BigInteger)  #: of the last, clock of the database
    is_fenced: Mapped[bool]  #: its work was taken over: it may write nothing any more


class DutyRow(Table):
    """What one process of all machines does at a time, and which one has it."""

    __tablename__ = "duty"

    name: Mapped[Duty] = mapped_column(String(16), primary_key=True)
    token: Mapped[str] = mapped_column(String(32))


class ListeningRow(Table):
    """The one row that says how long the receiver has listened, over all its runs."""

    __tablename__ = "listening"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    run: Mapped[int]  #: counts the starts of the receiver
    run_began_ms: Mapped[int] = mapped_column(BigInteger)  #: ``listened_ms`` when the run began
    listened_ms: Mapped[int] = mapped_column(BigInteger)


class SeriesRow(Table):
    """One series and where it stands."""

    __tablename__ = "series"

    series_instance_uid: Mapped[str] = mapped_column(_Uid, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(
        ForeignKey("study.study_instance_uid"), index=True
    )
    state: Mapped[str] = mapped_column(String(16), index=True)  #: domain.ledger.SeriesState
    revision: Mapped[int]
    instance_count: Mapped[int]
    completeness: Mapped[str | None] = mapped_column(String(16))
    completeness_reason: Mapped[str | None] = mapped_column(Text)  #: what the verdict rests on
    findings: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    explanation: Mapped[list[str]] = mapped_column(JSON)
    changed_at: Mapped[datetime] = mapped_column(UtcText)


class InquiryRow(Table):
    """What the source of a series in reception has answered; times on the clock of listening."""

    __tablename__ = "inquiry"

    series_instance_uid: Mapped[str] = mapped_column(
        ForeignKey("series.series_instance_uid"), primary_key=True
    )
    revision: Mapped[int]
    source: Mapped[str | None] = mapped_column(String(32))
    began_ms: Mapped[int] = mapped_column(BigInteger)
    asked_ms: Mapped[int | None] = mapped_column(BigInteger)
    rounds: Mapped[int]
    equal: Mapped[int]
    failed: Mapped[int]
    failure: Mapped[str | None] = mapped_column(Text)
    received: Mapped[int | None]  #: instances that were here at the newest answer
    count: Mapped[int | None]
    missing: Mapped[int | None]


class InstanceRow(Table):
    """One received instance; its bytes lie in the inbox under ``path``."""

    __tablename__ = "instance"

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(_Uid, unique=True)
    sop_class_uid: Mapped[str] = mapped_column(_Uid)
    series_instance_uid: Mapped[str] = mapped_column(
        ForeignKey("series.series_instance_uid"), index=True
    )
    study_instance_uid: Mapped[str] = mapped_column(
        ForeignKey("study.study_instance_uid"), index=True
    )
    transfer_syntax_uid: Mapped[str] = mapped_column(_Uid)
    sha256: Mapped[str] = mapped_column(_Sha256)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str] = mapped_column(Text)
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    received_at: Mapped[datetime] = mapped_column(UtcText)
    purged_at: Mapped[datetime | None] = mapped_column(UtcText)  #: when its bytes were deleted


class QuarantineRow(Table):
    """Bytes that contradict the ledger, and what the site decided about them.

    Empty columns are those of rows that an earlier version wrote.
    """

    __tablename__ = "quarantine"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "sha256"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(_Uid)
    sha256: Mapped[str] = mapped_column(_Sha256)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str] = mapped_column(Text)
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(32))
    received_at: Mapped[datetime] = mapped_column(UtcText)
    sop_class_uid: Mapped[str | None] = mapped_column(_Uid)
    series_instance_uid: Mapped[str | None] = mapped_column(_Uid)  #: as the bytes say
    study_instance_uid: Mapped[str | None] = mapped_column(_Uid)  #: as the bytes say
    transfer_syntax_uid: Mapped[str | None] = mapped_column(_Uid)
    #: series of the ledger that the bytes contradict
    disputed_series_uid: Mapped[str | None] = mapped_column(_Uid, index=True)
    #: domain.ledger.DisputeDecision, or ``replaced`` for bytes that were the instance before
    decision: Mapped[str | None] = mapped_column(String(16))


class DerivedSetRow(Table):
    """All objects made from one revision of a series."""

    __tablename__ = "derived_set"
    __table_args__ = (UniqueConstraint("source_series_uid", "revision"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    source_series_uid: Mapped[str] = mapped_column(ForeignKey("series.series_instance_uid"))
    study_instance_uid: Mapped[str] = mapped_column(_Uid)
    revision: Mapped[int]
    provenance: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcText)
    manifest: Mapped[str | None] = mapped_column(Text)  #: domain.set_manifest; None once erased


class DerivedInstanceRow(Table):
    """One object of a set; its bytes lie in the outbox under its SHA-256."""

    __tablename__ = "derived_instance"
    __table_args__ = (UniqueConstraint("set_id", "position"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    set_id: Mapped[int] = mapped_column(ForeignKey("derived_set.id"))
    position: Mapped[int]  #: order of sending
    kind: Mapped[str] = mapped_column(String(8))
    sop_class_uid: Mapped[str] = mapped_column(_Uid)
    sop_instance_uid: Mapped[str] = mapped_column(_Uid, unique=True)
    series_instance_uid: Mapped[str] = mapped_column(_Uid)
    sha256: Mapped[str] = mapped_column(_Sha256)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    purged_at: Mapped[datetime | None] = mapped_column(UtcText)  #: when its bytes were deleted


class DeliveryRow(Table):
    """One object for one destination."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("derived_instance_id", "destination"),
        Index(
            "ix_delivery_open", "state", "destination", "set_id"
        ),  # what is open is counted often
    )

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    set_id: Mapped[int] = mapped_column(ForeignKey("derived_set.id"), index=True)
    derived_instance_id: Mapped[int] = mapped_column(ForeignKey("derived_instance.id"))
    destination: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))  #: domain.delivery.DeliveryState
    status: Mapped[int | None]  #: DIMSE status of the answer
    attempts: Mapped[int]  #: failed ones
    reason: Mapped[str | None] = mapped_column(Text)  #: of the last failure
    changed_at: Mapped[datetime] = mapped_column(UtcText)


class PausedDestinationRow(Table):
    """A destination to which an operator has stopped deliveries."""

    __tablename__ = "paused_destination"

    destination: Mapped[str] = mapped_column(String(32), primary_key=True)
    reason: Mapped[str] = mapped_column(Text)
    since: Mapped[datetime] = mapped_column(UtcText)


class DeliveryStopRow(Table):
    """A rule, or an operator, that has stopped all deliveries."""

    __tablename__ = "delivery_stop"

    rule: Mapped[str] = mapped_column(String(16), primary_key=True)  #: domain.stop_rules.StopRule
    reason: Mapped[str] = mapped_column(Text)
    since: Mapped[datetime] = mapped_column(UtcText)


class NotificationRow(Table):
    """What one receiver is told about a set that one destination holds."""

    __tablename__ = "notification"
    __table_args__ = (UniqueConstraint("set_id", "destination", "receiver"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    set_id: Mapped[int] = mapped_column(ForeignKey("derived_set.id"))
    destination: Mapped[str] = mapped_column(String(32))
    receiver: Mapped[str] = mapped_column(String(32))
    sop_instance_uid: Mapped[str] = mapped_column(_Uid, unique=True)  #: of the notification
    #: domain.notification.NotificationState
    state: Mapped[str] = mapped_column(String(16), index=True)
    status: Mapped[int | None]  #: of the last N-CREATE response
    attempts: Mapped[int]  #: failed ones
    reason: Mapped[str | None] = mapped_column(Text)  #: of the last failure
    changed_at: Mapped[datetime] = mapped_column(UtcText)


class WorkitemRow(Table):
    """A workitem of a workflow manager that this node performs."""

    __tablename__ = "workitem"
    __table_args__ = (UniqueConstraint("manager", "workitem_uid"),)

    id: Mapped[int] = mapped_column(_Id, primary_key=True)
    manager: Mapped[str] = mapped_column(String(32))
    workitem_uid: Mapped[str] = mapped_column(_Uid)
    study_instance_uid: Mapped[str] = mapped_column(_Uid, index=True)
    transaction_uid: Mapped[str] = mapped_column(_Uid, unique=True)
    state: Mapped[str] = mapped_column(String(16), index=True)  #: domain.workitem.WorkitemState
    claimed_at: Mapped[datetime | None] = mapped_column(UtcText)
    status: Mapped[int | None]  #: HTTP status of the last answer
    attempts: Mapped[int]  #: failed ones
    reason: Mapped[str | None] = mapped_column(Text)
    changed_at: Mapped[datetime] = mapped_column(UtcText)


class CommitmentRow(Table):
    """One request for storage commitment; the Transaction UID is never used again."""

    __tablename__ = "commitment"

    transaction_uid: Mapped[str] = mapped_column(_Uid, primary_key=True)
    set_id: Mapped[int] = mapped_column(ForeignKey("derived_set.id"), index=True)
    destination: Mapped[str] = mapped_column(String(32))
    requested_at: Mapped[datetime] = mapped_column(UtcText)
    answered_at: Mapped[datetime | None] = mapped_column(UtcText)
