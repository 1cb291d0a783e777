"""The outbox: derived sets as durable bytes, and which destination took which instance.

Facts only; when to try again is the worker's. What leaves the node is read from here, and its
SHA-256 is checked at each reading, so that a result once written is sent as it was written.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from rebrain_node.blobs import BlobStore
from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import PendingDelivery, TakenInstance
from rebrain_node.domain.job import DerivedInstance, DerivedSet, Job, ObjectKind, Predecessor
from rebrain_node.errors import StateError, StoreUnavailableError
from rebrain_node.ports import JsonValue
from rebrain_node.store.audit import append
from rebrain_node.store.database import Database
from rebrain_node.store.series import at_revision, transition
from rebrain_node.store.tables import DeliveryRow, DerivedInstanceRow, DerivedSetRow, SeriesRow


class Outbox:
    """The outbox of one database; bytes lie in ``folder``, named by their SHA-256."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._blobs = BlobStore(folder, sharded=False, remedy="restore it from a backup")
        self._blobs.prepare()

    def put(self, derived: DerivedSet, destinations: Sequence[str], job: Job) -> int:
        """Make a set durable and due at every destination; the id of the set.

        Bytes first, then rows, the series' state ``synthesised`` and the audit row in one
        transaction. The same set again changes nothing and gives the same id. Without a
        destination nothing is due and the series stays ``synthesised``: it was not published.

        Raises
        ------
        StateError
            This revision has a set with other instances, or a UID is known with other bytes.
        SupersededError
            A late instance made a newer revision of the series.
        StoreUnavailableError
            Disk or database cannot take it; nothing is due.
        """
        known = self._same_set(derived, job)
        if known is not None:
            return known
        try:
            self._blobs.put_all(one.content for one in derived.instances)
        except OSError as error:
            raise StoreUnavailableError(
                f"outbox {self._blobs.folder}: {error.strerror}; check room, owner and mode"
            ) from error
        with self._database.writing() as session:
            known = _find(session, derived, job)
            return known if known is not None else _enter(session, derived, destinations, job)

    def set_of(self, series_instance_uid: str, revision: int) -> int | None:
        """Id of the set made from this revision of a source series; None before ``put``."""
        with self._database.reading() as session:
            return _set_of(session, series_instance_uid, revision)

    def predecessor(self, series_instance_uid: str, revision: int) -> Predecessor | None:
        """What the newest revision before ``revision`` gave, if any did; what was withdrawn not."""
        withdrawn = (
            select(DeliveryRow.set_id)
            .group_by(DeliveryRow.set_id)
            .having(func.sum(case((DeliveryRow.state == "withdrawn", 1), else_=0)) > 0)
            .having(func.sum(case((DeliveryRow.state == "taken", 1), else_=0)) == 0)
        )
        newest = (
            select(DerivedSetRow.id)
            .where(
                DerivedSetRow.source_series_uid == series_instance_uid,
                DerivedSetRow.revision < revision,
                DerivedSetRow.id.not_in(withdrawn),
            )
            .order_by(DerivedSetRow.revision.desc())
            .limit(1)
        )
        query = (
            select(DerivedSetRow.revision, DerivedInstanceRow)
            .join(DerivedInstanceRow, DerivedInstanceRow.set_id == DerivedSetRow.id)
            .where(DerivedSetRow.id.in_(newest), DerivedInstanceRow.kind.in_(("MR", "SR")))
            .order_by(DerivedInstanceRow.position)
        )
        with self._database.reading() as session:
            found = {one.kind: (earlier, one) for earlier, one in session.execute(query)}
            if "MR" not in found:
                return None
            earlier, image = found["MR"]
            report = found["SR"][1] if "SR" in found else None
            return Predecessor(
                revision=earlier,
                mr_series_uid=image.series_instance_uid,
                report_series_uid=None if report is None else report.series_instance_uid,
                report_uid=None if report is None else report.sop_instance_uid,
            )

    def pending(self, destination: str | None = None) -> tuple[PendingDelivery, ...]:
        """Sets that a destination has not wholly taken, oldest first."""
        query = (
            select(
                DerivedSetRow,
                DeliveryRow.destination,
                func.count().label("outstanding"),
                func.max(DeliveryRow.attempts).label("attempts"),
                func.max(DeliveryRow.reason).label("reason"),
            )
            .join(DeliveryRow, DeliveryRow.set_id == DerivedSetRow.id)
            .where(DeliveryRow.state == "pending")
            .group_by(DerivedSetRow.id, DeliveryRow.destination)
            .order_by(DerivedSetRow.id, DeliveryRow.destination)
        )
        if destination is not None:
            query = query.where(DeliveryRow.destination == destination)
        with self._database.reading() as session:
            return tuple(
                PendingDelivery(
                    set_id=row.id,
                    destination=name,
                    study_instance_uid=row.study_instance_uid,
                    source_series_uid=row.source_series_uid,
                    revision=row.revision,
                    outstanding=outstanding,
                    attempts=attempts,
                    reason=reason,
                    since=row.created_at,
                )
                for row, name, outstanding, attempts, reason in session.execute(query)
            )

    def instances_of(self, set_id: int) -> tuple[DerivedInstance, ...]:
        """Read all instances of a set in the order of sending, each checked by its SHA-256.

        Raises
        ------
        AlteredBytesError
            An instance is missing or not as it was written; it must never be sent.
        """
        return self._read(
            select(DerivedInstanceRow)
            .where(DerivedInstanceRow.set_id == set_id)
            .order_by(DerivedInstanceRow.position)
        )

    def outstanding(self, set_id: int, destination: str) -> tuple[DerivedInstance, ...]:
        """Read what a destination has still to take of a set, in the order of sending.

        Raises
        ------
        AlteredBytesError
            An instance is missing or not as it was written; it must never be sent.
        """
        return self._read(
            select(DerivedInstanceRow)
            .join(DeliveryRow, DeliveryRow.derived_instance_id == DerivedInstanceRow.id)
            .where(
                DerivedInstanceRow.set_id == set_id,
                DeliveryRow.destination == destination,
                DeliveryRow.state == "pending",
            )
            .order_by(DerivedInstanceRow.position)
        )

    def delivered(self, set_id: int, destination: str, taken: Sequence[TakenInstance]) -> None:
        """Write down what a destination took; with the last of all, the series is published."""
        statuses = {one.sop_instance_uid: one.status for one in taken}
        with self._database.writing() as session:
            rows = [
                (row, uid)
                for row, uid in _deliveries(session, set_id, destination)
                if uid in statuses and row.state != "taken"
            ]
            if not rows:
                return
            for row, uid in rows:
                row.state, row.status, row.reason = "taken", statuses[uid], None
                row.changed_at = datetime.now(UTC)
            append(
                session,
                Event.DELIVERY_TAKEN,
                destination,
                {
                    "set": set_id,
                    "taken": len(rows),
                    "warnings": {uid: statuses[uid] for _, uid in rows if statuses[uid] != 0},
                },
            )
            session.flush()
            _settle(session, set_id)

    def failed(self, set_id: int, destination: str, reason: str) -> None:
        """Write down one failed attempt; what was not taken stays pending."""
        with self._database.writing() as session:
            for row, _ in _deliveries(session, set_id, destination):
                if row.state == "pending":
                    row.attempts += 1
                    row.reason = reason
                    row.changed_at = datetime.now(UTC)
            append(session, Event.DELIVERY_FAILED, destination, {"set": set_id, "reason": reason})

    def refused(self, set_id: int, destination: str, reason: str) -> None:
        """Write down that a destination refuses for good what it has not taken of a set."""
        with self._database.writing() as session:
            for row, _ in _deliveries(session, set_id, destination):
                if row.state == "pending":
                    row.state, row.reason = "refused", reason
                    row.changed_at = datetime.now(UTC)
            append(session, Event.DELIVERY_REFUSED, destination, {"set": set_id, "reason": reason})
            session.flush()
            _settle(session, set_id)

    def _same_set(self, derived: DerivedSet, job: Job) -> int | None:
        with self._database.reading() as session:
            return _find(session, derived, job)

    def _read(self, query: Select[DerivedInstanceRow]) -> tuple[DerivedInstance, ...]:
        with self._database.reading() as session:
            rows = session.scalars(query).all()
        return tuple(
            DerivedInstance(
                kind=cast(ObjectKind, row.kind),
                sop_class_uid=row.sop_class_uid,
                sop_instance_uid=row.sop_instance_uid,
                series_instance_uid=row.series_instance_uid,
                content=self._blobs.get(row.sha256),
            )
            for row in rows
        )


def _set_of(session: Session, series_instance_uid: str, revision: int) -> int | None:
    query = select(DerivedSetRow.id).where(
        DerivedSetRow.source_series_uid == series_instance_uid,
        DerivedSetRow.revision == revision,
    )
    return session.execute(query).scalar_one_or_none()


def _find(session: Session, derived: DerivedSet, job: Job) -> int | None:
    """Id of the set where the very same one is held.

    Raises
    ------
    StateError
        This revision has another set, or a UID is known with other bytes.
    """
    set_id = _set_of(session, job.series_instance_uid, job.revision)
    digests = {one.sop_instance_uid: one.sha256 for one in derived.instances}
    query = select(DerivedInstanceRow).where(DerivedInstanceRow.sop_instance_uid.in_(digests))
    for row in session.scalars(query):
        if row.sha256 != digests[row.sop_instance_uid]:
            raise StateError(
                f"derived instance {row.sop_instance_uid} is known with other bytes; "
                "a UID keeps its bytes permanently: send the stored ones"
            )
    if set_id is None:
        return None
    held = session.scalars(
        select(DerivedInstanceRow.sop_instance_uid)
        .where(DerivedInstanceRow.set_id == set_id)
        .order_by(DerivedInstanceRow.position)
    ).all()
    if held != list(digests):
        raise StateError(
            f"revision {job.revision} of series {job.series_instance_uid} already has a set "
            f"of {len(held)} instances; send the stored ones"
        )
    return set_id


def _enter(session: Session, derived: DerivedSet, destinations: Sequence[str], job: Job) -> int:
    now = datetime.now(UTC)
    at_revision(session, job.series_instance_uid, job.revision)
    row = DerivedSetRow(
        source_series_uid=job.series_instance_uid,
        study_instance_uid=job.study_instance_uid,
        revision=job.revision,
        provenance=asdict(derived.provenance),
        created_at=now,
    )
    session.add(row)
    session.flush()
    for position, one in enumerate(derived.instances):
        instance = DerivedInstanceRow(
            set_id=row.id,
            position=position,
            kind=one.kind,
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=one.sop_instance_uid,
            series_instance_uid=one.series_instance_uid,
            sha256=one.sha256,
            size_bytes=len(one.content),
        )
        session.add(instance)
    session.flush()
    ids = session.scalars(
        select(DerivedInstanceRow.id).where(DerivedInstanceRow.set_id == row.id)
    ).all()
    session.add_all(
        DeliveryRow(
            set_id=row.id,
            derived_instance_id=instance_id,
            destination=destination,
            state="pending",
            status=None,
            attempts=0,
            reason=None,
            changed_at=now,
        )
        for destination in destinations
        for instance_id in ids
    )
    told: dict[str, JsonValue] = {
        "set": row.id,
        "provenance": derived.provenance.digest,
        "destinations": list(destinations),
        "objects": dict(Counter(one.kind for one in derived.instances)),
        "sha256": _digest(derived),
    }
    transition(
        session,
        job.series_instance_uid,
        job.revision,
        "synthesised",
        (Event.SERIES_SYNTHESISED, told),
    )
    return row.id


def _digest(derived: DerivedSet) -> str:
    """SHA-256 over the instances' SHA-256 (ASCII hexadecimal) in the order of sending."""
    return hashlib.sha256("".join(one.sha256 for one in derived.instances).encode()).hexdigest()


def _deliveries(
    session: Session, set_id: int, destination: str
) -> Sequence[tuple[DeliveryRow, str]]:
    query = (
        select(DeliveryRow, DerivedInstanceRow.sop_instance_uid)
        .join(DerivedInstanceRow, DerivedInstanceRow.id == DeliveryRow.derived_instance_id)
        .where(DeliveryRow.set_id == set_id, DeliveryRow.destination == destination)
        .order_by(DerivedInstanceRow.position)
    )
    found = [(row, uid) for row, uid in session.execute(query)]
    if not found:
        raise StateError(f"the outbox holds no set {set_id} for destination {destination!r}")
    return found


def _settle(session: Session, set_id: int) -> None:
    """End the series when nothing of its set is pending: published, or failed by a refusal."""
    query = (
        select(DeliveryRow.state, func.count())
        .where(DeliveryRow.set_id == set_id)
        .group_by(DeliveryRow.state)
    )
    held = dict(session.execute(query).all())
    if held.get("pending", 0):
        return
    row = session.get_one(DerivedSetRow, set_id)
    series = session.get_one(SeriesRow, row.source_series_uid)
    if series.revision != row.revision:
        return  # a late instance came: the newer revision has its own set and its own end
    if held.get("refused", 0):
        told = Event.SERIES_FAILED, {"set": set_id, "refused": held["refused"]}
        transition(session, row.source_series_uid, row.revision, "failed", told)
    else:
        told = Event.SERIES_PUBLISHED, {"set": set_id, "taken": held["taken"]}
        transition(session, row.source_series_uid, row.revision, "published", told)
