"""The outbox: derived sets as durable bytes.

What leaves the node is read from here, and its
SHA-256 is checked at each reading, so that a result once written is sent as it was written.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from rebrain_node.blobs import outbox_blobs
from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import ACCEPTED_STATES, DeliveryState
from rebrain_node.domain.job import DerivedInstance, DerivedSet, Job, ObjectKind, Predecessor
from rebrain_node.domain.stop_rules import ResultMeasures, StopLimits
from rebrain_node.errors import StateError, StoreUnavailableError
from rebrain_node.ports import JsonValue
from rebrain_node.store.audit import append
from rebrain_node.store.database import Database
from rebrain_node.store.fact_digests import sha256_of
from rebrain_node.store.series import at_revision, transition
from rebrain_node.store.stops import judge
from rebrain_node.store.tables import (
    DeliveryRow,
    DerivedInstanceRow,
    DerivedSetRow,
    NotificationRow,
)


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """What becomes of a new result beside its delivery.

    Attributes
    ----------
    kept : sequence of str
        Destinations that get it only by `outbox retry`: shadow mode.
    shadow : bool
        Whether it is made in shadow mode.
    measures : ResultMeasures or None
        Recorded, and judged by the stop rules.
    limits : StopLimits
        Of these rules.
    manifest : str or None
        The set manifest (`domain.set_manifest`) as it is stored.
    """

    kept: Sequence[str] = ()
    shadow: bool = False
    measures: ResultMeasures | None = None
    limits: StopLimits = field(default_factory=StopLimits)
    manifest: str | None = None


_PLAIN: Final = ResultOptions()


class Outbox:
    """The outbox of one database; bytes lie in ``folder``, named by their SHA-256."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._blobs = outbox_blobs(folder)
        self._blobs.prepare()

    def put(
        self,
        derived: DerivedSet,
        destinations: Sequence[str],
        job: Job,
        notified: Sequence[tuple[str, str]] = (),
        options: ResultOptions = _PLAIN,
    ) -> int:
        """Make a set durable and due at every destination; the id of the set.

        ``notified`` names each destination and a receiver that is notified once the destination
        has confirmed the set.

        Bytes first, then rows, the series' state ``synthesised`` and the audit row in one
        transaction, in which the stop rules are judged too: a result that is beyond a limit is not
        sent. The same set again changes nothing and gives the same id. Without a destination
        nothing is due and the series stays ``synthesised``: it was not published.

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
            if known is None:
                known = _enter(session, derived, destinations, job, options)
                session.add_all(_notifications(known, notified))
                _measure(session, known, job, options)
            return known

    def add_note(self, set_id: int, note: DerivedInstance, reason: str, operator: str) -> int:
        """Add a rejection note to a set; due wherever an object of the set has been accepted.

        Returns the number of destinations; the same note again changes nothing and gives 0.

        Raises
        ------
        StateError
            No destination has accepted an object of the set.
        StoreUnavailableError
            Disk or database cannot take it; nothing is due.
        """
        try:
            self._blobs.put(note.content)
        except OSError as error:
            raise StoreUnavailableError(
                f"outbox {self._blobs.folder}: {error.strerror}; check room, owner and mode"
            ) from error
        with self._database.writing() as session:
            known = select(DerivedInstanceRow.id).where(
                DerivedInstanceRow.sop_instance_uid == note.sop_instance_uid
            )
            if session.scalars(known).first() is not None:
                return 0
            destinations = session.scalars(
                select(DeliveryRow.destination)
                .where(DeliveryRow.set_id == set_id, DeliveryRow.state.in_(ACCEPTED_STATES))
                .distinct()
            ).all()
            if not destinations:
                raise StateError(f"no destination has accepted an object of set {set_id}")
            row = session.get_one(DerivedSetRow, set_id)
            last = session.scalars(
                select(func.max(DerivedInstanceRow.position)).where(
                    DerivedInstanceRow.set_id == set_id
                )
            ).one()
            _add(session, row, [note], destinations, first_position=last + 1)
            details: dict[str, JsonValue] = {
                "set": set_id,
                "revision": row.revision,
                "note": note.sop_instance_uid,
                "destinations": list(destinations),
                "reason": reason,
                "operator": operator,
            }
            append(session, Event.SERIES_RECALLED, row.source_series_uid, details)
        return len(destinations)

    def set_of(self, series_instance_uid: str, revision: int) -> int | None:
        """Id of the set made from this revision of a source series; None before ``put``."""
        with self._database.reading() as session:
            return _set_of(session, series_instance_uid, revision)

    def predecessor(self, series_instance_uid: str, revision: int) -> Predecessor | None:
        """What the newest revision before ``revision`` gave; what was withdrawn or kept did not."""
        withdrawn = (
            select(DeliveryRow.set_id)
            .group_by(DeliveryRow.set_id)
            .having(func.sum(case((DeliveryRow.state.in_(("withdrawn", "kept")), 1), else_=0)) > 0)
            .having(func.sum(case((DeliveryRow.state.in_(ACCEPTED_STATES), 1), else_=0)) == 0)
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

    def kept_of(self, set_id: int) -> DerivedInstance:
        """Read an object of a set whose bytes are still stored; retention keeps SR and KOS.

        Raises
        ------
        StateError
            The bytes of all objects were deleted by retention.
        """
        found = self._read(
            select(DerivedInstanceRow)
            .where(DerivedInstanceRow.set_id == set_id, DerivedInstanceRow.purged_at.is_(None))
            .order_by(DerivedInstanceRow.size_bytes)
            .limit(1)
        )
        if not found:
            raise StateError(
                f"the bytes of set {set_id} were deleted by retention, and it has neither SR nor "
                "KOS: reject its objects at the destination"
            )
        return found[0]

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


def _enter(
    session: Session,
    derived: DerivedSet,
    destinations: Sequence[str],
    job: Job,
    options: ResultOptions,
) -> int:
    now = datetime.now(UTC)
    at_revision(session, job.series_instance_uid, job.revision)
    row = DerivedSetRow(
        source_series_uid=job.series_instance_uid,
        study_instance_uid=job.study_instance_uid,
        revision=job.revision,
        provenance=asdict(derived.provenance),
        created_at=now,
        manifest=options.manifest,
    )
    session.add(row)
    session.flush()
    _add(session, row, derived.instances, destinations)
    _keep(session, row.id, options.kept)
    told: dict[str, JsonValue] = {
        "set": row.id,
        "provenance": derived.provenance.digest,
        "destinations": [*destinations, *options.kept],
        "objects": dict(Counter(one.kind for one in derived.instances)),
        "sha256": _digest(derived),
        "signed_manifest": sha256_of(options.manifest),
    }
    transition(
        session,
        job.series_instance_uid,
        job.revision,
        "synthesised",
        (Event.SERIES_SYNTHESISED, told),
    )
    return row.id


def _keep(session: Session, set_id: int, destinations: Sequence[str]) -> None:
    """Keep all objects of a set for destinations that get them only by `outbox retry`."""
    objects = select(DerivedInstanceRow.id).where(DerivedInstanceRow.set_id == set_id)
    held = session.scalars(objects.order_by(DerivedInstanceRow.position)).all()
    session.add_all(
        _delivery(set_id, instance, destination, "kept")
        for destination in destinations
        for instance in held
    )
    session.flush()


def _measure(session: Session, set_id: int, job: Job, options: ResultOptions) -> None:
    if options.measures is None:
        return
    details: dict[str, JsonValue] = {
        "set": set_id, "revision": job.revision, "shadow": options.shadow,
    }  # fmt: skip
    details |= options.measures.to_json()
    append(session, Event.RESULT_MEASURED, job.series_instance_uid, details)
    judge(session, options.limits)


def _delivery(set_id: int, instance: int, destination: str, state: DeliveryState) -> DeliveryRow:
    return DeliveryRow(
        set_id=set_id,
        derived_instance_id=instance,
        destination=destination,
        state=state,
        status=None,
        attempts=0,
        reason="made in shadow mode" if state == "kept" else None,
        changed_at=datetime.now(UTC),
    )


def _add(
    session: Session,
    row: DerivedSetRow,
    instances: Sequence[DerivedInstance],
    destinations: Sequence[str],
    first_position: int = 0,
) -> None:
    """Add objects to a set, each pending at every destination."""
    added = [
        DerivedInstanceRow(
            set_id=row.id,
            position=position,
            kind=one.kind,
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=one.sop_instance_uid,
            series_instance_uid=one.series_instance_uid,
            sha256=one.sha256,
            size_bytes=len(one.content),
        )
        for position, one in enumerate(instances, first_position)
    ]
    session.add_all(added)
    session.flush()
    session.add_all(
        _delivery(row.id, instance.id, destination, "pending")
        for destination in destinations
        for instance in added
    )


def _notifications(set_id: int, notified: Sequence[tuple[str, str]]) -> list[NotificationRow]:
    return [
        NotificationRow(
            set_id=set_id,
            destination=destination,
            receiver=receiver,
            sop_instance_uid=f"2.25.{uuid.uuid4().int}",
            state="waiting",
            status=None,
            attempts=0,
            reason=None,
            changed_at=datetime.now(UTC),
        )
        for destination, receiver in notified
    ]


def _digest(derived: DerivedSet) -> str:
    """SHA-256 over the instances' SHA-256 (ASCII hexadecimal) in the order of sending."""
    return hashlib.sha256("".join(one.sha256 for one in derived.instances).encode()).hexdigest()
