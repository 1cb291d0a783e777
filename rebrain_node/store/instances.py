"""New instances in the ledger, inside the caller's transaction."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.ledger import ReceivedInstance, StoredInstance
from rebrain_node.store.audit import append
from rebrain_node.store.tables import InstanceRow, ListeningRow, SeriesRow, StudyRow


def known_instance(session: Session, sop_instance_uid: str) -> InstanceRow | None:
    """Return the instance of that UID; None for a new one."""
    query = select(InstanceRow).where(InstanceRow.sop_instance_uid == sop_instance_uid)
    return session.scalars(query).first()


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
    study.last_run = session.get_one(ListeningRow, 1).run
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
            last_run=0,
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


def stored(row: InstanceRow) -> StoredInstance:
    """Read an instance as a value."""
    return StoredInstance(
        ledger_id=row.id,
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        path=row.path,
        received_at=row.received_at,
        purged_at=row.purged_at,
    )
