"""Find every object made by a bundle, or guided by an exemplar, and what others rejected."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import (
    ACCEPTED_STATES,
    REJECTION_TITLES,
    RecalledObject,
    RecalledSet,
    RejectionDocument,
    RejectionRecord,
)
from rebrain_node.domain.guidance import exemplars_of
from rebrain_node.errors import StateError
from rebrain_node.ports import JsonValue
from rebrain_node.store.audit import append, read_details
from rebrain_node.store.database import Database
from rebrain_node.store.tables import (
    AuditRow,
    DeliveryRow,
    DerivedInstanceRow,
    DerivedSetRow,
    SeriesRow,
)

#: a hash, or its beginning: 32 digits name a subject, 48 one slice of it
_HASH: Final = re.compile(r"[0-9a-f]{16,64}")
#: SOP Instance UIDs in one query
_BATCH: Final = 500


class Recall:
    """The questions of `recall` to one database, and the rejection notes that others sent."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_bundle(self, digest: str) -> tuple[RecalledSet, ...]:
        """Every set made by a bundle, oldest first.

        Parameters
        ----------
        digest : str
            SHA-256 of its manifest, or the beginning of it.

        Raises
        ------
        StateError
            That is no digest.
        """
        _check(digest, "bundle digest")
        with self._database.reading() as session:
            rows = session.scalars(select(DerivedSetRow).order_by(DerivedSetRow.id)).all()
            return tuple(
                _set(session, row, ())
                for row in rows
                if str(row.provenance["bundle_digest"]).startswith(digest)
            )

    def by_series(self, source_series_uid: str) -> tuple[RecalledSet, ...]:
        """Every set made of a source series, oldest first."""
        return self._sets_where(DerivedSetRow.source_series_uid == source_series_uid)

    def by_time(self, since: datetime) -> tuple[RecalledSet, ...]:
        """Every set made at ``since`` (aware) or later, oldest first."""
        return self._sets_where(DerivedSetRow.created_at >= since)

    def replaced(self) -> tuple[RecalledSet, ...]:
        """Every set that a destination holds, of which a later revision is published, oldest first.

        A set with a rejection note is left out.
        """
        query = (
            select(DerivedSetRow)
            .join(SeriesRow, SeriesRow.series_instance_uid == DerivedSetRow.source_series_uid)
            .where(
                SeriesRow.state == "published",
                DerivedSetRow.revision < SeriesRow.revision,
                select(DeliveryRow.id)
                .where(
                    DeliveryRow.set_id == DerivedSetRow.id,
                    DeliveryRow.state.in_(ACCEPTED_STATES),
                )
                .exists(),
            )
            .order_by(DerivedSetRow.id)
        )
        with self._database.reading() as session:
            rejected = {details["set"] for details in _notes(session)}
            rows = [row for row in session.scalars(query).all() if row.id not in rejected]
            return tuple(_set(session, row, ()) for row in rows)

    def record_rejection(self, note: RejectionDocument) -> int:
        """Record a rejection note of another system; the number of our objects that it names.

        0, and no audit row, where it names none, was made by this node, or is recorded.
        """
        named = (
            select(DerivedInstanceRow.sop_instance_uid, DerivedSetRow.provenance)
            .join(DerivedSetRow, DerivedSetRow.id == DerivedInstanceRow.set_id)
            .order_by(DerivedInstanceRow.id)
        )
        uid = DerivedInstanceRow.sop_instance_uid
        with self._database.writing() as session:
            known = select(AuditRow.sequence).where(
                AuditRow.event == str(Event.REJECTION_RECEIVED),
                AuditRow.subject == note.sop_instance_uid,
            )
            ours = select(DerivedInstanceRow.id).where(uid == note.sop_instance_uid)
            if session.scalars(known).first() or session.scalars(ours).first():
                return 0
            found: dict[str, str] = {}
            for begin in range(0, len(note.rejected), _BATCH):
                batch = note.rejected[begin : begin + _BATCH]
                for one, provenance in session.execute(named.where(uid.in_(batch))):
                    found[str(one)] = str(provenance["bundle_digest"])
            if found:
                details: dict[str, JsonValue] = {
                    "title": note.title,
                    "objects": list(found),
                    "bundles": dict(Counter(found.values())),
                    "others": len(note.rejected) - len(found),
                }
                append(session, Event.REJECTION_RECEIVED, note.sop_instance_uid, details)
        return len(found)

    def refreshed(self, recalled: RecalledSet) -> RecalledSet:
        """Read anew where each object of a set stands."""
        uids = [one.sop_instance_uid for one in recalled.objects]
        query = (
            select(DerivedInstanceRow.sop_instance_uid, DeliveryRow.destination, DeliveryRow.state)
            .join(DeliveryRow, DeliveryRow.derived_instance_id == DerivedInstanceRow.id)
            .where(DeliveryRow.set_id == recalled.set_id)
        )
        found: dict[str, dict[str, str]] = {uid: {} for uid in uids}
        with self._database.reading() as session:
            for uid, name, state in session.execute(query):
                found.setdefault(uid, {})[name] = state
        objects = (
            replace(one, destinations=found[one.sop_instance_uid]) for one in recalled.objects
        )
        return replace(recalled, objects=tuple(objects))

    def rejections(self) -> tuple[RejectionRecord, ...]:
        """Every rejection note of another system that names our objects, oldest first."""
        with self._database.reading() as session:
            return tuple(
                RejectionRecord(
                    sop_instance_uid=row.subject,
                    title=details["title"],
                    meaning=REJECTION_TITLES[details["title"]],
                    received_at=datetime.fromisoformat(row.recorded_at),
                    bundles=details["bundles"],
                )
                for row, details in _received(session)
            )

    def _sets_where(self, condition: ColumnElement[bool]) -> tuple[RecalledSet, ...]:
        query = select(DerivedSetRow).where(condition).order_by(DerivedSetRow.id)
        with self._database.reading() as session:
            return tuple(_set(session, row, ()) for row in session.scalars(query).all())

    def by_exemplar(self, hashed: str) -> tuple[RecalledSet, ...]:
        """Every set with slices guided by an exemplar, with those slices alone, oldest first.

        Objects that show the whole volume (SC, SR, SEG, PM) are named too.

        Parameters
        ----------
        hashed : str
            Keyed hash of a slice, or its beginning; the first 32 digits name a subject.

        Raises
        ------
        StateError
            That is no hash.
        """
        _check(hashed, "exemplar hash")
        with self._database.reading() as session:
            guided = list(_guided(session, hashed))
            return tuple(
                _set(session, row, slices)
                for series, revision, slices in guided
                for row in _sets(session, series, revision)
            )


def _received(session: Session) -> Iterator[tuple[AuditRow, dict[str, Any]]]:
    """Rejection notes of others, oldest first, each with its details."""
    query = (
        select(AuditRow)
        .where(AuditRow.event == str(Event.REJECTION_RECEIVED))
        .order_by(AuditRow.sequence)
    )
    for row in session.scalars(query):
        yield row, read_details(row.details)


def issued_notes(session: Session, set_id: int) -> frozenset[str]:
    """SOP Instance UIDs of the rejection notes of this node for a set."""
    row = session.get_one(DerivedSetRow, set_id)
    about = AuditRow.subject == row.source_series_uid
    return frozenset(
        str(details["note"]) for details in _notes(session, about) if details["set"] == set_id
    )


def every_note(session: Session) -> frozenset[str]:
    """SOP Instance UIDs of all rejection notes of this node."""
    return frozenset(str(details["note"]) for details in _notes(session))


def _notes(session: Session, *conditions: ColumnElement[bool]) -> Iterator[dict[str, Any]]:
    """Details of the audit rows about rejection notes of this node."""
    query = select(AuditRow.details).where(
        AuditRow.event == str(Event.SERIES_RECALLED), *conditions
    )
    return map(read_details, session.scalars(query))


def _check(digits: str, what: str) -> None:
    if not _HASH.fullmatch(digits):
        raise StateError(f"{digits!r} is no {what}: 16 to 64 digits, 0-9 and a-f")


def _guided(session: Session, hashed: str) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """Series, revision and guided slices; the last word of the log on a revision holds."""
    query = (
        select(AuditRow.subject, AuditRow.details)
        .where(AuditRow.event == str(Event.SERIES_GUIDED), AuditRow.details.contains(hashed))
        .order_by(AuditRow.sequence)
    )
    found: dict[tuple[str, int], tuple[int, ...]] = {}
    for subject, text in session.execute(query):
        details = read_details(text)
        slices = tuple(k for k, name in exemplars_of(details) if name.startswith(hashed))
        if slices:
            found[subject, int(details["revision"])] = slices
    for (series, revision), slices in found.items():
        yield series, revision, slices


def _sets(session: Session, series: str, revision: int) -> Sequence[DerivedSetRow]:
    query = select(DerivedSetRow).where(
        DerivedSetRow.source_series_uid == series, DerivedSetRow.revision == revision
    )
    return session.scalars(query).all()


def _set(session: Session, row: DerivedSetRow, slices: tuple[int, ...]) -> RecalledSet:
    instances = session.scalars(
        select(DerivedInstanceRow)
        .where(DerivedInstanceRow.set_id == row.id)
        .order_by(DerivedInstanceRow.position)
    ).all()
    images = [one.id for one in instances if one.kind == "MR"]
    # where all slices stand in one multi-frame instance, it is that one
    notes = issued_notes(session, row.id)
    rejected = {uid: said["title"] for _, said in _received(session) for uid in said["objects"]}
    meant = {images[k] for k in slices} if slices and len(images) > max(slices) else set(images)
    return RecalledSet(
        set_id=row.id,
        study_instance_uid=row.study_instance_uid,
        source_series_uid=row.source_series_uid,
        revision=row.revision,
        bundle_digest=str(row.provenance["bundle_digest"]),
        slices=tuple(k + 1 for k in slices),
        objects=tuple(
            RecalledObject(
                kind=one.kind,
                sop_class_uid=one.sop_class_uid,
                sop_instance_uid=one.sop_instance_uid,
                series_instance_uid=one.series_instance_uid,
                destinations=_destinations(session, one.id),
                is_note=one.sop_instance_uid in notes,
                rejected=rejected.get(one.sop_instance_uid),
            )
            for one in instances
            if one.kind != "MR" or one.id in meant
        ),
    )


def _destinations(session: Session, instance: int) -> dict[str, str]:
    query = select(DeliveryRow.destination, DeliveryRow.state).where(
        DeliveryRow.derived_instance_id == instance
    )
    return {str(name): str(state) for name, state in session.execute(query)}
