"""Find every object made by a bundle, or guided by an exemplar."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import RecalledObject, RecalledSet
from rebrain_node.domain.guidance import exemplars_of
from rebrain_node.errors import StateError
from rebrain_node.store.database import Database
from rebrain_node.store.tables import AuditRow, DeliveryRow, DerivedInstanceRow, DerivedSetRow

#: a hash, or its beginning: 32 digits name a subject, 48 one slice of it
_HASH: Final = re.compile(r"[0-9a-f]{16,64}")


class Recall:
    """The question of `recall` to one database; it changes nothing."""

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
        details = json.loads(text)
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
