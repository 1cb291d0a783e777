"""What the sources of series in reception have answered: kept, so that a restart asks no more.

One row for each series that holds CT, made when its study has become quiet. A late instance of a
judged series makes a new revision, whose source is asked anew.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.orm import Session

from rebrain_node.domain.completeness import Inquiry, SourceAnswer
from rebrain_node.store.database import Database
from rebrain_node.store.tables import InquiryRow, InstanceRow, SeriesRow


class Inquiries:
    """The inquiries of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_study(
        self, study: str, now_s: float, source_of: Callable[[str], str | None]
    ) -> tuple[Inquiry, ...]:
        """Read the inquiry of each CT series of a study in reception; one that lacks is made.

        Parameters
        ----------
        study : str
            Study Instance UID.
        now_s : float
            The clock of listening.
        source_of : callable
            Name of the source of a calling AE title; None where none is set.
        """
        with self._database.reading() as session:
            found = {row: _row_of(session, row) for row in _ct_series(session, study)}
            inquiries = tuple(_inquiry(session, row, held) for row, held in found.items() if held)
        if len(inquiries) == len(found):
            return inquiries
        with self._database.writing() as session:
            for series in _ct_series(session, study):
                if _row_of(session, series) is None:
                    _begin(session, series, now_s, source_of)
        return self.of_study(study, now_s, source_of)

    def of_series(self, series: str) -> Inquiry | None:
        """Read the inquiry of one series at its present revision; None where there is none."""
        with self._database.reading() as session:
            row = session.get(SeriesRow, series)
            held = None if row is None else _row_of(session, row)
            return None if row is None or held is None else _inquiry(session, row, held)

    def record_answer(self, inquiry: Inquiry, answer: SourceAnswer, now_s: float) -> None:
        """Keep an answer; answers agree that were given over the same instances here."""
        with self._database.writing() as session:
            series = session.get_one(SeriesRow, inquiry.series_instance_uid)
            row = _row_of(session, series)
            if row is None or row.revision != inquiry.revision:
                return
            missing = answer.missing(_held(session, series))
            now = (answer.count, missing, series.instance_count)
            same = row.failed == 0 and now == (row.count, row.missing, row.received)
            row.count, row.missing, row.received = now
            row.equal = row.equal + 1 if same else 1
            row.failed, row.failure = 0, None
            _asked(row, now_s)

    def record_failure(self, inquiry: Inquiry, failure: str, now_s: float) -> None:
        """Keep that a question had no answer; the next answer begins a new row of equal ones."""
        with self._database.writing() as session:
            row = session.get(InquiryRow, inquiry.series_instance_uid)
            if row is None or row.revision != inquiry.revision:
                return
            row.failed, row.failure = row.failed + 1, failure
            row.equal = 0
            _asked(row, now_s)


def forget(session: Session, series_instance_uid: str) -> None:
    """Have the source of a series asked anew, inside the caller's transaction."""
    row = session.get(InquiryRow, series_instance_uid)
    if row is not None:
        session.delete(row)


def _ct_series(session: Session, study: str) -> tuple[SeriesRow, ...]:
    """Return the series in reception that hold CT: only of these anything is made."""
    from rebrain_node.instance.scan import CT_CLASSES  # not before the first study: it is large

    ct = select(InstanceRow.series_instance_uid).where(
        InstanceRow.study_instance_uid == study, InstanceRow.sop_class_uid.in_(sorted(CT_CLASSES))
    )
    query = select(SeriesRow).where(
        SeriesRow.study_instance_uid == study,
        SeriesRow.state == "receiving",
        SeriesRow.series_instance_uid.in_(ct),
    )
    return tuple(session.scalars(query.order_by(SeriesRow.series_instance_uid)))


def _row_of(session: Session, series: SeriesRow) -> InquiryRow | None:
    """Return the inquiry of the present revision."""
    row = session.get(InquiryRow, series.series_instance_uid)
    return None if row is None or row.revision != series.revision else row


def _begin(
    session: Session, series: SeriesRow, now_s: float, source_of: Callable[[str], str | None]
) -> None:
    forget(session, series.series_instance_uid)
    session.flush()
    session.add(
        InquiryRow(
            series_instance_uid=series.series_instance_uid,
            revision=series.revision,
            source=source_of(_sender(session, series)),
            began_ms=round(1000.0 * now_s),
            rounds=0,
            equal=0,
            failed=0,
        )
    )


def _sender(session: Session, series: SeriesRow) -> str:
    """Calling AE title of the newest instance."""
    query = (
        select(InstanceRow.calling_ae_title)
        .where(InstanceRow.series_instance_uid == series.series_instance_uid)
        .order_by(InstanceRow.id.desc())
        .limit(1)
    )
    return session.scalars(query).one()


def _held(session: Session, series: SeriesRow) -> frozenset[str]:
    query = select(InstanceRow.sop_instance_uid).where(
        InstanceRow.series_instance_uid == series.series_instance_uid
    )
    return frozenset(session.scalars(query))


def _asked(row: InquiryRow, now_s: float) -> None:
    row.rounds += 1
    row.asked_ms = round(1000.0 * now_s)


def _inquiry(session: Session, series: SeriesRow, row: InquiryRow) -> Inquiry:
    """Read a row; an answer over fewer instances than are here now has to be given again."""
    current = row.received == series.instance_count
    return Inquiry(
        series_instance_uid=series.series_instance_uid,
        study_instance_uid=series.study_instance_uid,
        revision=series.revision,
        source=row.source,
        calling_ae_title=_sender(session, series),
        received=series.instance_count,
        began_s=row.began_ms / 1000.0,
        asked_s=None if row.asked_ms is None else row.asked_ms / 1000.0,
        rounds=row.rounds,
        equal=row.equal if current else 0,
        failed=row.failed,
        failure=row.failure,
        count=row.count,
        missing=row.missing if current else None,
    )
