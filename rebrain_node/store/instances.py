"""New instances in the ledger, inside the caller's transaction."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import bindparam, exists, insert, select, update
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.ledger import ReceivedInstance, StoredInstance
from rebrain_node.store.audit import append
from rebrain_node.store.statements import DriverTransaction, Statement
from rebrain_node.store.tables import InstanceRow, ListeningRow, SeriesRow, StudyRow, utc_text

_STUDIES = StudyRow.metadata.tables[StudyRow.__tablename__]
_SERIES = SeriesRow.metadata.tables[SeriesRow.__tablename__]
_INSTANCES = InstanceRow.metadata.tables[InstanceRow.__tablename__]
_COLUMNS = tuple(name for name in _INSTANCES.c.keys() if name not in {"id", "purged_at"})  # noqa: SIM118 - columns, not keys, are iterated over
_ADD_INSTANCE = Statement(insert(_INSTANCES).returning(_INSTANCES.c.id), _COLUMNS)
_KNOWN = Statement(select(_INSTANCES.c.id).where(_INSTANCES.c.sop_instance_uid == bindparam("uid")))
_SERIES_STATE = Statement(
    select(_SERIES.c.state).where(_SERIES.c.series_instance_uid == bindparam("uid"))
)
_IS_NEXT = Statement(
    select(_SERIES.c.state).where(
        _SERIES.c.series_instance_uid == bindparam("series"),
        _SERIES.c.study_instance_uid == bindparam("study"),
        _SERIES.c.state == "receiving",
        ~exists().where(_INSTANCES.c.sop_instance_uid == bindparam("uid")),
    )
)
_COUNT_IN_STUDY = Statement(
    update(_STUDIES)
    .where(_STUDIES.c.study_instance_uid == bindparam("uid"))
    .values(
        state="receiving",
        instance_count=_STUDIES.c.instance_count + 1,
        last_ledger_id=bindparam("ledger_id"),
        last_run=select(ListeningRow.run).where(ListeningRow.id == 1).scalar_subquery(),
    )
)
_COUNT_IN_SERIES = Statement(
    update(_SERIES)
    .where(_SERIES.c.series_instance_uid == bindparam("uid"))
    .values(instance_count=_SERIES.c.instance_count + 1)
)


def known_instance(session: Session, sop_instance_uid: str) -> InstanceRow | None:
    """Return the instance of that UID; None for a new one."""
    found = _KNOWN.run(session, uid=sop_instance_uid)
    return None if found is None else session.get_one(InstanceRow, found[0])


def add_next(transaction: DriverTransaction, received: ReceivedInstance) -> bool:
    """Add one more new instance to a series in reception; false where it is anything else."""
    found = _IS_NEXT.run(
        transaction,
        series=received.series_instance_uid,
        study=received.study_instance_uid,
        uid=received.sop_instance_uid,
    )
    if found is not None:
        _add(transaction, received, datetime.now(UTC))
    return found is not None


def add(session: Session, received: ReceivedInstance) -> None:
    """Add a new instance; its study is in reception (again)."""
    now = datetime.now(UTC)
    state = _SERIES_STATE.run(session, uid=received.series_instance_uid)
    if state is None:
        _begin_series(session, received, now)
    elif state[0] != "receiving":
        series = session.get_one(SeriesRow, received.series_instance_uid, populate_existing=True)
        _reopen(session, series, received.sop_instance_uid, now)
        session.flush()
    _add(session, received, now)


def _add(session: Session | DriverTransaction, received: ReceivedInstance, now: datetime) -> None:
    added = _ADD_INSTANCE.run(session, **vars(received), received_at=utc_text(now))
    assert added is not None  # noqa: S101 - for the type checker: RETURNING gives a row
    ledger_id = added[0]
    _COUNT_IN_STUDY.run(session, uid=received.study_instance_uid, ledger_id=ledger_id)
    _COUNT_IN_SERIES.run(session, uid=received.series_instance_uid)
    append(
        session,
        Event.INSTANCE_RECEIVED,
        received.sop_instance_uid,
        {
            "ledger_id": ledger_id,
            "series": received.series_instance_uid,
            "study": received.study_instance_uid,
            "sha256": received.sha256,
            "size_bytes": received.size_bytes,
            "calling_ae_title": received.calling_ae_title,
            "sop_class": received.sop_class_uid,
            "transfer_syntax": received.transfer_syntax_uid,
        },
    )


def _begin_series(session: Session, received: ReceivedInstance, now: datetime) -> None:
    """Add the series, and its study where that is new too."""
    study = received.study_instance_uid
    known = select(_STUDIES.c.state).where(_STUDIES.c.study_instance_uid == study)
    if session.execute(known).scalar() is None:
        session.execute(
            insert(_STUDIES).values(
                study_instance_uid=study,
                state="receiving",
                instance_count=0,
                last_ledger_id=0,
                last_run=0,
            )
        )
    session.execute(
        insert(_SERIES).values(
            series_instance_uid=received.series_instance_uid,
            study_instance_uid=study,
            state="receiving",
            revision=1,
            instance_count=0,
            completeness=None,
            findings=[],
            explanation=[],
            changed_at=now,
        )
    )


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
