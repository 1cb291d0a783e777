"""What was made of a series, gathered from its set, the audit log and the deliveries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rebrain_node.domain.acceptance import ReaderVerdict, Verdict
from rebrain_node.domain.audit import Event
from rebrain_node.domain.guidance import exemplars_of
from rebrain_node.domain.result import (
    SUBJECT_DIGITS,
    DestinationRecord,
    ResultRecord,
    SubjectSummary,
)
from rebrain_node.domain.text import utc
from rebrain_node.errors import StateError
from rebrain_node.ports import JsonValue
from rebrain_node.store.audit import append, read_details
from rebrain_node.store.database import Database
from rebrain_node.store.recall import issued_notes
from rebrain_node.store.tables import AuditRow, DeliveryRow, DerivedInstanceRow, DerivedSetRow

#: what a destination answers when it is asked what it holds
_ASKED: Final = (Event.DELIVERY_VERIFIED, Event.COMMITMENT_ANSWERED)


class Results:
    """The block Result of any series of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_series(self, series_instance_uid: str) -> ResultRecord | None:
        """Gather the newest result of a source series; None where nothing was made of it."""
        query = (
            select(DerivedSetRow)
            .where(DerivedSetRow.source_series_uid == series_instance_uid)
            .order_by(DerivedSetRow.revision.desc())
        )
        with self._database.reading() as session:
            row = session.scalars(query).first()
            return None if row is None else _record(session, row)

    def manifest_of(self, set_id: int) -> str:
        """Read the set manifest of a set.

        Raises
        ------
        StateError
            There is no such set, or it has none: an earlier version made it, or it was erased.
        """
        with self._database.reading() as session:
            row = session.get(DerivedSetRow, set_id)
        if row is None:
            raise StateError(
                f"there is no set {set_id}; `rebrain-node outbox list --all` names all"
            )
        if row.manifest is None:
            raise StateError(
                f"set {set_id} has no manifest: an earlier version of this software made it, or "
                "its patient was erased"
            )
        return row.manifest

    def manifest_with(self, sop_instance_uid: str) -> str | None:
        """Read the set manifest of the set that holds an object; None where none is known."""
        query = (
            select(DerivedSetRow.manifest)
            .join(DerivedInstanceRow, DerivedInstanceRow.set_id == DerivedSetRow.id)
            .where(DerivedInstanceRow.sop_instance_uid == sop_instance_uid)
        )
        with self._database.reading() as session:
            return session.scalars(query).one_or_none()

    def judge(
        self, series_instance_uid: str, verdict: Verdict, *, reason: str, operator: str
    ) -> int:
        """Record what a person thinks of the newest result of a series; the id of the set.

        Raises
        ------
        StateError
            Nothing was made of the series.
        """
        query = (
            select(DerivedSetRow)
            .where(DerivedSetRow.source_series_uid == series_instance_uid)
            .order_by(DerivedSetRow.revision.desc())
        )
        with self._database.writing() as session:
            row = session.scalars(query).first()
            if row is None:
                raise StateError(
                    f"nothing was made of series {series_instance_uid}, so there is nothing to "
                    "judge; `rebrain-node queue list` shows which series have a result"
                )
            details: dict[str, JsonValue] = {
                "set": row.id, "revision": row.revision, "verdict": verdict, "reason": reason,
                "operator": operator,
            }  # fmt: skip
            append(session, Event.SERIES_VERDICT, series_instance_uid, details)
            return row.id


def _record(session: Session, row: DerivedSetRow) -> ResultRecord:
    guided = _newest(session, Event.SERIES_GUIDED, row)
    uncertainty = _newest(session, Event.SERIES_UNCERTAINTY, row)
    ood = _newest(session, Event.SERIES_RECOGNISED, row)
    provenance = row.provenance
    untrusted = uncertainty.get("untrusted")
    mr, objects = _objects(session, row.id)
    return ResultRecord(
        set_id=row.id,
        source_series_uid=row.source_series_uid,
        revision=row.revision,
        made_at=row.created_at,
        mr_series_uid=mr,
        objects=objects,
        bundle=f"{provenance['bundle_name']} {provenance['bundle_version']}",
        bundle_digest=str(provenance["bundle_digest"]),
        signed_by=_signer(session, str(provenance["bundle_digest"])),
        engine=str(provenance["engine_identity"]),
        software_version=str(provenance["software_version"]),
        kinds=guided.get("kinds"),
        subjects=_subjects(guided),
        uncertainty=uncertainty.get("mean"),
        uncertainty_label=uncertainty.get("label"),
        untrusted=None if untrusted is None else tuple(untrusted),
        ood_score=ood.get("score"),
        ood_threshold=ood.get("threshold"),
        destinations=_destinations(session, row),
        recalled=_recalled(session, row),
        verdicts=_verdicts(session, row),
    )


def _verdicts(session: Session, row: DerivedSetRow) -> tuple[ReaderVerdict, ...]:
    """Return the newest verdict of each person on a set."""
    query = (
        select(AuditRow.recorded_at, AuditRow.details)
        .where(
            AuditRow.event == str(Event.SERIES_VERDICT), AuditRow.subject == row.source_series_uid
        )
        .order_by(AuditRow.sequence)
    )
    said = [(at, read_details(text)) for at, text in session.execute(query)]
    newest = {
        details["operator"]: ReaderVerdict.from_json(details, datetime.fromisoformat(at))
        for at, details in said
        if details["set"] == row.id
    }
    return tuple(newest.values())


def _recalled(session: Session, row: DerivedSetRow) -> str | None:
    """Return when and why a rejection note was sent for the set; None where none was."""
    query = (
        select(AuditRow.recorded_at, AuditRow.details)
        .where(
            AuditRow.event == str(Event.SERIES_RECALLED),
            AuditRow.subject == row.source_series_uid,
        )
        .order_by(AuditRow.sequence.desc())
    )
    for recorded_at, text in session.execute(query):
        details = read_details(text)
        if details["set"] == row.id:
            return f"{utc(datetime.fromisoformat(recorded_at))}: {details['reason']}"
    return None


def _newest(session: Session, event: Event, row: DerivedSetRow) -> Mapping[str, Any]:
    """Return the details of the newest event about the revision; the last word of the log holds."""
    for details in _details(session, event, row.source_series_uid):
        if details.get("revision") == row.revision:
            return details
    return {}


def _details(session: Session, event: Event, subject: str) -> Iterable[Mapping[str, Any]]:
    query = (
        select(AuditRow.details)
        .where(AuditRow.event == str(event), AuditRow.subject == subject)
        .order_by(AuditRow.sequence.desc())
    )
    return map(read_details, session.scalars(query))


def _objects(session: Session, set_id: int) -> tuple[str | None, dict[str, int]]:
    """Return the MR series, and the number of objects of each kind, without rejection notes."""
    notes = issued_notes(session, set_id)
    query = (
        select(
            DerivedInstanceRow.kind,
            DerivedInstanceRow.series_instance_uid,
            DerivedInstanceRow.sop_instance_uid,
        )
        .where(DerivedInstanceRow.set_id == set_id)
        .order_by(DerivedInstanceRow.position)
    )
    found = session.execute(query).all()
    mr = next((str(series) for kind, series, _ in found if kind == "MR"), None)
    return mr, dict(Counter(str(kind) for kind, _, uid in found if uid not in notes))


def _signer(session: Session, digest: str) -> str | None:
    """Return the name of the key with which the bundle was verified last."""
    for details in _details(session, Event.BUNDLE_VERIFIED, digest):
        signer = details.get("signed_by")
        return None if signer is None else str(signer["name"])
    return None


def _subjects(guided: Mapping[str, Any]) -> tuple[SubjectSummary, ...]:
    """Return who is behind the guided slices; the subject with most slices first."""
    slices: dict[str, list[int]] = defaultdict(list)
    exemplars: dict[str, set[str]] = defaultdict(set)
    for k, exemplar in exemplars_of(guided) if guided else ():
        subject = exemplar[:SUBJECT_DIGITS]
        slices[subject].append(k + 1)
        exemplars[subject].add(exemplar)
    return tuple(
        SubjectSummary(subject=subject, exemplars=len(exemplars[subject]), slices=tuple(numbers))
        for subject, numbers in sorted(slices.items(), key=lambda item: (-len(item[1]), item[0]))
    )


def _destinations(session: Session, row: DerivedSetRow) -> tuple[DestinationRecord, ...]:
    """Say where the set stands at each destination, and since when; its rejection notes apart."""
    set_id, notes = row.id, issued_notes(session, row.id)
    query = (
        select(DeliveryRow.destination, DeliveryRow.state, func.count())
        .join(DerivedInstanceRow, DerivedInstanceRow.id == DeliveryRow.derived_instance_id)
        .where(DeliveryRow.set_id == set_id, DerivedInstanceRow.sop_instance_uid.not_in(notes))
        .group_by(DeliveryRow.destination, DeliveryRow.state)
        .order_by(DeliveryRow.destination, DeliveryRow.state)
    )
    states: dict[str, dict[str, int]] = defaultdict(dict)
    for destination, state, count in session.execute(query):
        states[destination][state] = count
    return tuple(
        DestinationRecord(
            destination=name,
            states=counts,
            accepted_at=_time(session, (Event.DELIVERY_TAKEN,), name, row),
            confirmed_at=_time(session, _ASKED, name, row) if counts.get("confirmed") else None,
        )
        for name, counts in states.items()
    )


def _time(
    session: Session, events: Iterable[Event], destination: str, row: DerivedSetRow
) -> datetime | None:
    """Return when such an event about a set last happened at a destination.

    What happened after a rejection note was issued may be about the note alone, and counts only
    where nothing happened before.
    """
    set_id, recalled = row.id, _recalled_sequence(session, row)
    query = (
        select(AuditRow.sequence, AuditRow.recorded_at, AuditRow.details)
        .where(
            AuditRow.event.in_([str(event) for event in events]),
            AuditRow.subject == destination,
            AuditRow.details.contains(f'"set":{set_id}'),
        )
        .order_by(AuditRow.sequence.desc())
    )
    newest: datetime | None = None
    for sequence, recorded_at, details in session.execute(query):
        if read_details(details).get("set") == set_id:
            newest = newest or datetime.fromisoformat(recorded_at)
            if recalled is None or sequence < recalled:
                return datetime.fromisoformat(recorded_at)
    return newest


def _recalled_sequence(session: Session, row: DerivedSetRow) -> int | None:
    """Return the row of the log about the first rejection note for a set; None where none was."""
    query = (
        select(AuditRow.sequence, AuditRow.details)
        .where(
            AuditRow.event == str(Event.SERIES_RECALLED),
            AuditRow.subject == row.source_series_uid,
        )
        .order_by(AuditRow.sequence)
    )
    found = session.execute(query)
    return next((n for n, details in found if read_details(details)["set"] == row.id), None)
