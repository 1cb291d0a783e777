"""What may be deleted, and when: stored bytes only, never a row of the ledger or the audit log.

Deletable are the bytes of a derived set once every destination has confirmed it, those of its
source series with it, and those of a series that was refused or failed; each after the days that
the settings give. Whether it may be deleted is asked again in the transaction that deletes, so that
an answer or a command of that moment holds. Files are removed before the transaction ends: a crash
in between leaves rows whose files are gone already, and the next purge records them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import ScalarSelect, Select, and_, exists, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from rebrain_node.blobs import BlobStore
from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import RELEASED_STATES
from rebrain_node.ports import JsonValue
from rebrain_node.store.audit import append
from rebrain_node.store.database import Database
from rebrain_node.store.series import ENDED
from rebrain_node.store.tables import (
    DeliveryRow,
    DerivedInstanceRow,
    DerivedSetRow,
    InstanceRow,
    QuarantineRow,
    SeriesRow,
)

#: small objects that are kept: of them a rejection note can be made years later
_KEPT: Final = ("SR", "KOS")


@dataclass(frozen=True, kw_only=True)
class RetentionRules:
    """How many days bytes are kept after the last change."""

    delivered_days: float
    refused_days: float


@dataclass(frozen=True, kw_only=True)
class PurgeableSeries:
    """A series whose bytes may be deleted, and those of what was made of it."""

    series_instance_uid: str
    state: str
    since: datetime  #: aware, UTC: its last change
    received_bytes: int
    derived_bytes: int


@dataclass(frozen=True, kw_only=True)
class StorageUse:
    """What is stored now, and how fast it grows.

    Attributes
    ----------
    daily_bytes : float
        Received in the last seven days, divided by seven.
    unconfirmed_sets : int
        Sets that are kept because a destination has not confirmed them.
    deleted_unconfirmed : int
        Objects whose bytes were deleted although a destination had not confirmed them; a defect.
    """

    received_bytes: int
    derived_bytes: int
    daily_bytes: float
    unconfirmed_sets: int
    deleted_unconfirmed: int


class Retention:
    """Deletes what may be deleted from inbox and outbox of one database."""

    def __init__(self, database: Database, inbox: BlobStore, outbox: BlobStore) -> None:
        self._database = database
        self._inbox = inbox
        self._outbox = outbox

    def purgeable(self, rules: RetentionRules, now: datetime) -> tuple[PurgeableSeries, ...]:
        """List the series whose bytes may be deleted, longest unchanged first."""
        with self._database.reading() as session:
            return tuple(_purgeable(session, rules, now))

    def purge(self, rules: RetentionRules, now: datetime) -> tuple[PurgeableSeries, ...]:
        """Delete the bytes of every series that `purgeable` lists, and record it.

        Raises
        ------
        OSError
            A file cannot be removed; what was removed before is recorded at the next purge.
        """
        return tuple(each for each in self.purgeable(rules, now) if self._purge(each, now))

    def deleted_unconfirmed(self) -> int:
        """Count the objects whose bytes were deleted before a destination had confirmed them.

        0 unless this software has a defect, or rows were changed behind its back.
        """
        with self._database.reading() as session:
            return _deleted_unconfirmed(session)

    def use(self) -> StorageUse:
        """Measure what is stored."""
        since = datetime.now(UTC) - timedelta(days=7)
        received = select(func.coalesce(func.sum(InstanceRow.size_bytes), 0))
        derived = select(func.coalesce(func.sum(DerivedInstanceRow.size_bytes), 0))
        unconfirmed = (
            select(func.count(func.distinct(DeliveryRow.set_id)))
            .join(DerivedInstanceRow, DerivedInstanceRow.id == DeliveryRow.derived_instance_id)
            .where(
                DeliveryRow.state.not_in(RELEASED_STATES), DerivedInstanceRow.purged_at.is_(None)
            )
        )
        with self._database.reading() as session:
            week = session.scalars(received.where(InstanceRow.received_at >= since)).one()
            return StorageUse(
                received_bytes=session.scalars(
                    received.where(InstanceRow.purged_at.is_(None))
                ).one(),
                derived_bytes=session.scalars(
                    derived.where(DerivedInstanceRow.purged_at.is_(None))
                ).one(),
                daily_bytes=week / 7,
                unconfirmed_sets=session.scalars(unconfirmed).one(),
                deleted_unconfirmed=_deleted_unconfirmed(session),
            )

    def _purge(self, series: PurgeableSeries, now: datetime) -> bool:
        """Delete the bytes of a series; False where they may no longer be deleted."""
        uid = series.series_instance_uid
        with self._database.writing() as session:
            state = session.get_one(SeriesRow, uid).state
            if state != series.state or not _is_released(session, uid):
                return False
            received = session.scalars(_received(uid)).all()
            derived = session.scalars(_derived(uid)).all()
            for row in received:
                if not _is_shared(session, row):
                    self._inbox.remove(row.sha256)
                row.purged_at = now
            for each in derived:
                self._outbox.remove(each.sha256)
                each.purged_at = now
            details: dict[str, JsonValue] = {
                "state": series.state,
                "instances": len(received),
                "objects": len(derived),
                "bytes": series.received_bytes + series.derived_bytes,
            }
            append(session, Event.STORAGE_PURGED, uid, details)
        return True


def _purgeable(session: Session, rules: RetentionRules, now: datetime) -> Iterator[PurgeableSeries]:
    days: Mapping[str, float] = {
        "published": rules.delivered_days,
        "refused": rules.refused_days,
        "failed": rules.refused_days,
    }
    is_old = or_(
        *(
            and_(SeriesRow.state == state, SeriesRow.changed_at <= now - timedelta(days=each))
            for state, each in days.items()
        )
    )
    open_studies = (
        select(SeriesRow.study_instance_uid).where(SeriesRow.state.not_in(ENDED)).distinct()
    )
    disputed = select(QuarantineRow.disputed_series_uid).where(
        QuarantineRow.disputed_series_uid.is_not(None), QuarantineRow.decision.is_(None)
    )
    of_set = DeliveryRow.set_id == DerivedSetRow.id
    kept_sets = select(DerivedSetRow.source_series_uid).where(
        or_(
            ~exists().where(of_set),
            exists().where(of_set, DeliveryRow.state.not_in(RELEASED_STATES)),
        )
    )
    received = _size_of(_received(SeriesRow.series_instance_uid), InstanceRow)
    derived = _size_of(_derived(SeriesRow.series_instance_uid), DerivedInstanceRow)
    query = (
        select(SeriesRow, received, derived)
        .where(
            is_old,
            SeriesRow.study_instance_uid.not_in(open_studies),
            SeriesRow.series_instance_uid.not_in(disputed),
            SeriesRow.series_instance_uid.not_in(kept_sets),
        )
        .order_by(SeriesRow.changed_at, SeriesRow.series_instance_uid)
    )
    for row, received_bytes, derived_bytes in session.execute(query).all():
        if received_bytes or derived_bytes:
            yield PurgeableSeries(
                series_instance_uid=row.series_instance_uid,
                state=row.state,
                since=row.changed_at,
                received_bytes=received_bytes,
                derived_bytes=derived_bytes,
            )


def _size_of(rows: Select[Any], table: type[InstanceRow | DerivedInstanceRow]) -> ScalarSelect[int]:
    """Sum the bytes of some rows."""
    size = func.coalesce(func.sum(table.size_bytes), 0)
    return rows.with_only_columns(size).correlate(SeriesRow).scalar_subquery()


def _is_released(session: Session, series_instance_uid: str) -> bool:
    """Whether every object made of the series has left: confirmed, left out or cancelled.

    A set without a destination has left nowhere and is kept.
    """
    sets = session.scalars(
        select(DerivedSetRow.id).where(DerivedSetRow.source_series_uid == series_instance_uid)
    ).all()
    for set_id in sets:
        states = set(session.scalars(select(DeliveryRow.state).where(DeliveryRow.set_id == set_id)))
        if not states or states - RELEASED_STATES:
            return False
    return True


def _deleted_unconfirmed(session: Session) -> int:
    """Count deleted objects of which a destination's row has not changed since, unconfirmed."""
    query = (
        select(func.count(func.distinct(DerivedInstanceRow.id)))
        .join(DeliveryRow, DeliveryRow.derived_instance_id == DerivedInstanceRow.id)
        .where(
            DerivedInstanceRow.purged_at.is_not(None),
            DeliveryRow.state.not_in(RELEASED_STATES),
            DeliveryRow.changed_at <= DerivedInstanceRow.purged_at,
        )
    )
    return session.scalars(query).one()


def _received(series_instance_uid: str | InstrumentedAttribute[str]) -> Select[InstanceRow]:
    return select(InstanceRow).where(
        InstanceRow.series_instance_uid == series_instance_uid, InstanceRow.purged_at.is_(None)
    )


def _derived(series_instance_uid: str | InstrumentedAttribute[str]) -> Select[DerivedInstanceRow]:
    return (
        select(DerivedInstanceRow)
        .join(DerivedSetRow, DerivedSetRow.id == DerivedInstanceRow.set_id)
        .where(
            DerivedSetRow.source_series_uid == series_instance_uid,
            DerivedInstanceRow.kind.not_in(_KEPT),
            DerivedInstanceRow.purged_at.is_(None),
        )
    )


def _is_shared(session: Session, row: InstanceRow) -> bool:
    """Whether the quarantine refers to the same bytes."""
    query = select(QuarantineRow.id).where(QuarantineRow.sha256 == row.sha256).limit(1)
    return session.scalars(query).first() is not None
