"""What the ledger does with one received instance, inside the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.ledger import ReceivedInstance
from rebrain_node.store.audit import append
from rebrain_node.store.tables import InstanceRow, QuarantineRow, SeriesRow, StudyRow


@dataclass(frozen=True)
class Conflict:
    """Why bytes must not enter the ledger."""

    code: str  #: documented in docs/audit-events.md
    sentence: str


def known_sha256(session: Session, sop_instance_uid: str) -> str | None:
    """SHA-256 of the bytes held under this UID; None for a new one."""
    query = select(InstanceRow.sha256).where(InstanceRow.sop_instance_uid == sop_instance_uid)
    return session.execute(query).scalar_one_or_none()


def conflict(session: Session, received: ReceivedInstance, known: str | None) -> Conflict | None:
    """Find what the ledger holds that contradicts the instance."""
    if known is not None:
        return Conflict("SAME-UID-OTHER-BYTES", "its UID is known with other bytes")
    series = session.get(SeriesRow, received.series_instance_uid)
    if series is not None and series.study_instance_uid != received.study_instance_uid:
        return Conflict("SERIES-OF-OTHER-STUDY", "its series is known in another study")
    return None


def quarantine(session: Session, received: ReceivedInstance, found: Conflict) -> None:
    """Note refused bytes, once however often they are sent."""
    query = select(QuarantineRow.id).where(
        QuarantineRow.sop_instance_uid == received.sop_instance_uid,
        QuarantineRow.sha256 == received.sha256,
    )
    if session.execute(query).first() is not None:
        return
    session.add(
        QuarantineRow(
            sop_instance_uid=received.sop_instance_uid,
            sha256=received.sha256,
            size_bytes=received.size_bytes,
            path=received.path,
            calling_ae_title=received.calling_ae_title,
            reason=found.code,
            received_at=datetime.now(UTC),
        )
    )
    append(
        session,
        Event.INSTANCE_CONFLICT,
        received.sop_instance_uid,
        {
            "reason": found.code,
            "sha256": received.sha256,
            "series": received.series_instance_uid,
            "calling_ae_title": received.calling_ae_title,
        },
    )


def add(session: Session, received: ReceivedInstance) -> None:
    """Add a new instance; its study is in reception (again)."""
    now = datetime.now(UTC)
    study = _study(session, received)
    series = _series(session, received, now)
    session.flush()
    instance = InstanceRow(
        sop_instance_uid=received.sop_instance_uid,
        sop_class_uid=received.sop_class_uid,
        series_instance_uid=received.series_instance_uid,
        study_instance_uid=received.study_instance_uid,
        transfer_syntax_uid=received.transfer_syntax_uid,
        sha256=received.sha256,
        size_bytes=received.size_bytes,
        path=received.path,
        calling_ae_title=received.calling_ae_title,
        received_at=now,
    )
    session.add(instance)
    session.flush()
    study.state = "receiving"
    study.instance_count += 1
    study.last_ledger_id = instance.id
    series.instance_count += 1
    append(
        session,
        Event.INSTANCE_RECEIVED,
        received.sop_instance_uid,
        {
            "ledger_id": instance.id,
            "series": received.series_instance_uid,
            "study": received.study_instance_uid,
            "sha256": received.sha256,
            "size_bytes": received.size_bytes,
            "calling_ae_title": received.calling_ae_title,
        },
    )


def _study(session: Session, received: ReceivedInstance) -> StudyRow:
    study = session.get(StudyRow, received.study_instance_uid)
    if study is None:
        study = StudyRow(
            study_instance_uid=received.study_instance_uid,
            state="receiving",
            instance_count=0,
            last_ledger_id=0,
        )
        session.add(study)
    return study


def _series(session: Session, received: ReceivedInstance, now: datetime) -> SeriesRow:
    series = session.get(SeriesRow, received.series_instance_uid)
    if series is None:
        session.flush()  # the study's row first: the series refers to it
        series = SeriesRow(
            series_instance_uid=received.series_instance_uid,
            study_instance_uid=received.study_instance_uid,
            state="receiving",
            revision=1,
            instance_count=0,
            completeness=None,
            findings=[],
            explanation=[],
            changed_at=now,
        )
        session.add(series)
    elif series.state != "receiving":
        _reopen(session, series, received.sop_instance_uid, now)
    return series


def _reopen(session: Session, series: SeriesRow, late_uid: str, now: datetime) -> None:
    """Take a series that was complete or judged back: the late instance makes a new revision."""
    before = series.state
    series.state = "receiving"
    series.revision += 1
    series.completeness = None
    series.findings = []
    series.explanation = []
    series.changed_at = now
    append(
        session,
        Event.SERIES_REOPENED,
        series.series_instance_uid,
        {"late_instance": late_uid, "state_before": before, "revision": series.revision},
    )
