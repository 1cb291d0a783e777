"""Erases what is stored of a patient's study: every byte of it, whatever the rules of retention.

Rows stay: they hold UIDs and hashes, and no name, identity or date of birth (docs/audit-events.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from rebrain_node.blobs import BlobStore
from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import WAITING_STATES
from rebrain_node.errors import StateError
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


@dataclass(frozen=True, kw_only=True)
class StudySample:
    """One stored file of each study, by which its patient is found."""

    study_instance_uid: str
    inbox: tuple[str, ...]  #: SHA-256 of one received instance, and of what is quarantined
    outbox: tuple[str, ...]  #: SHA-256 of one derived object


@dataclass(frozen=True, kw_only=True)
class ErasedStudy:
    """What was erased of a study."""

    study_instance_uid: str
    instances: int
    objects: int
    quarantined: int
    size_bytes: int


class Erasure:
    """Erases studies from inbox and outbox of one database."""

    def __init__(self, database: Database, inbox: BlobStore, outbox: BlobStore) -> None:
        self._database = database
        self.inbox = inbox
        self.outbox = outbox

    def studies(self) -> tuple[StudySample, ...]:
        """Name a stored file or two of every study of which bytes are stored."""
        received: dict[str, list[str]] = {}
        made: dict[str, list[str]] = {}
        instances = select(InstanceRow.study_instance_uid, InstanceRow.sha256).where(
            InstanceRow.purged_at.is_(None)
        )
        objects = (
            select(DerivedSetRow.study_instance_uid, DerivedInstanceRow.sha256)
            .join(DerivedSetRow, DerivedSetRow.id == DerivedInstanceRow.set_id)
            .where(DerivedInstanceRow.purged_at.is_(None))
        )
        quarantined = select(QuarantineRow.study_instance_uid, QuarantineRow.sha256).where(
            QuarantineRow.study_instance_uid.is_not(None)
        )
        with self._database.reading() as session:
            for query, found in ((instances, received), (objects, made)):
                for study, sha256 in session.execute(query):
                    found.setdefault(study, [sha256])
            for row in session.execute(quarantined):
                received.setdefault(str(row[0]), []).append(row[1])
        return tuple(
            StudySample(
                study_instance_uid=study,
                inbox=tuple(received.get(study, ())),
                outbox=tuple(made.get(study, ())),
            )
            for study in sorted(received.keys() | made.keys())
        )

    def sample(self, study_instance_uid: str) -> StudySample:
        """Name a stored file or two of one study."""
        received = select(InstanceRow.sha256).where(
            InstanceRow.study_instance_uid == study_instance_uid, InstanceRow.purged_at.is_(None)
        )
        made = (
            select(DerivedInstanceRow.sha256)
            .join(DerivedSetRow, DerivedSetRow.id == DerivedInstanceRow.set_id)
            .where(
                DerivedSetRow.study_instance_uid == study_instance_uid,
                DerivedInstanceRow.purged_at.is_(None),
            )
        )
        with self._database.reading() as session:
            return StudySample(
                study_instance_uid=study_instance_uid,
                inbox=tuple(session.scalars(received.limit(1))),
                outbox=tuple(session.scalars(made.limit(1))),
            )

    def erase(self, study_instance_uid: str, *, operator: str, reason: str) -> ErasedStudy:
        """Remove every stored byte of a study, and its set manifests; the audit log keeps why.

        Files are removed before the transaction ends: a crash in between leaves rows whose files
        are gone, and the same command again records them.

        Raises
        ------
        StateError
            The study is unknown, or something of it is still to be made or delivered.
        OSError
            A file cannot be removed.
        """
        now = datetime.now(UTC)
        with self._database.writing() as session:
            _require_ended(session, study_instance_uid)
            instances = session.scalars(
                select(InstanceRow).where(
                    InstanceRow.study_instance_uid == study_instance_uid,
                    InstanceRow.purged_at.is_(None),
                )
            ).all()
            objects = session.scalars(
                select(DerivedInstanceRow)
                .join(DerivedSetRow, DerivedSetRow.id == DerivedInstanceRow.set_id)
                .where(
                    DerivedSetRow.study_instance_uid == study_instance_uid,
                    DerivedInstanceRow.purged_at.is_(None),
                )
            ).all()
            quarantined = _quarantined(session, study_instance_uid)
            for received in instances:
                self.inbox.remove(received.sha256)
                received.purged_at = now
            for rival in quarantined:
                self.inbox.remove(rival.sha256)
            for made in objects:
                self.outbox.remove(made.sha256)
                made.purged_at = now
            session.execute(
                update(DerivedSetRow)
                .where(DerivedSetRow.study_instance_uid == study_instance_uid)
                .values(manifest=None)
            )
            sizes = [
                *(each.size_bytes for each in instances),
                *(each.size_bytes for each in quarantined),
                *(each.size_bytes for each in objects),
            ]
            erased = ErasedStudy(
                study_instance_uid=study_instance_uid,
                instances=len(instances),
                objects=len(objects),
                quarantined=len(quarantined),
                size_bytes=sum(sizes),
            )
            details: dict[str, JsonValue] = {
                "operator": operator,
                "reason": reason,
                "instances": erased.instances,
                "objects": erased.objects,
                "quarantined": erased.quarantined,
                "bytes": erased.size_bytes,
            }
            append(session, Event.PATIENT_ERASED, study_instance_uid, details)
        return erased


def _quarantined(session: Session, study: str) -> Sequence[QuarantineRow]:
    """Read what the study has in quarantine: as the bytes say, or as the series in dispute."""
    series = select(SeriesRow.series_instance_uid).where(SeriesRow.study_instance_uid == study)
    return session.scalars(
        select(QuarantineRow).where(
            or_(
                QuarantineRow.study_instance_uid == study,
                QuarantineRow.disputed_series_uid.in_(series),
            )
        )
    ).all()


def _require_ended(session: Session, study: str) -> None:
    rows = session.scalars(select(SeriesRow).where(SeriesRow.study_instance_uid == study)).all()
    if not rows:
        raise StateError(f"the ledger has no study {study}")
    for row in rows:
        if row.state not in ENDED:
            raise StateError(
                f"series {row.series_instance_uid} of study {study} is {row.state}: something is "
                "still to be made or decided; stop it first (`queue cancel`, `queue dispute "
                "--refuse`, `outbox cancel`)"
            )
    waiting = (
        select(DeliveryRow.set_id)
        .join(DerivedSetRow, DerivedSetRow.id == DeliveryRow.set_id)
        .where(DerivedSetRow.study_instance_uid == study, DeliveryRow.state.in_(WAITING_STATES))
    )
    number = session.scalars(waiting.limit(1)).first()
    if number is not None:
        raise StateError(
            f"set {number} of study {study} still waits for delivery; stop it first with "
            f"`rebrain-node outbox cancel {number}`"
        )
