"""The ledger: every instance received, and where each series stands.

Each change and its audit row are one transaction. The states of a series and the ways between
them are the table ``store.series.TRANSITIONS``; anything else is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Final, cast, get_args

from sqlalchemy import Select, distinct, func, or_, select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.completeness import UNVERIFIED, CompletenessVerdict, least
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ledger import (
    DisputeDecision,
    Judgement,
    LedgerCounts,
    ReceivedInstance,
    Reception,
    Rival,
    SeriesRecord,
    SeriesState,
    StoredInstance,
    StudyInReception,
)
from rebrain_node.errors import (
    InstanceConflictError,
    OutOfResourcesError,
    StateError,
    StoreUnavailableError,
)
from rebrain_node.ports import JsonValue
from rebrain_node.store import (
    decisions,
    dispute_decisions,
    disputes,
    judging,
    second_choice,
    series_end,
)
from rebrain_node.store.audit import append
from rebrain_node.store.database import Database
from rebrain_node.store.group_commit import CommitQueue
from rebrain_node.store.instances import add, add_next, known_instance, stored
from rebrain_node.store.series import move, transition
from rebrain_node.store.tables import InstanceRow, QuarantineRow, SeriesRow, StudyRow

#: up to so many series are asked for by name
_FEW: Final = 100


class Ledger:
    """The ledger of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._group = CommitQueue(self._write_down_all)

    def record_received(
        self, received: ReceivedInstance, same_content: Callable[[str], bool] | None = None
    ) -> Reception:
        """Write down an instance whose bytes are durable: ``new``, or ``same`` as one known.

        Parameters
        ----------
        same_content : callable, optional
            Called with the SHA-256 of other bytes that are held or quarantined under the UID:
            whether both are one instance in two encodings. No transaction is open then.

        Raises
        ------
        InstanceConflictError
            The SOP Instance UID is known with other content, or the series with another study;
            quarantine and audit hold it.
        OutOfResourcesError
            The database cannot take it; nothing was written.
        """
        outcome = self._write_down(received, quarantining=same_content is None)
        if isinstance(outcome, disputes.Conflict) and same_content is not None:
            known = outcome.first_sha256
            if known is not None and same_content(known):
                return "same"
            if not any(same_content(version) for version in outcome.quarantined):
                outcome = self._write_down(received, quarantining=True)
        if isinstance(outcome, disputes.Conflict):
            raise InstanceConflictError(
                f"SOP instance {received.sop_instance_uid}: {outcome.sentence}; the new bytes are "
                "quarantined and the series waits for a decision of the site "
                "(`rebrain-node queue dispute`); let the sender give changed instances new UIDs",
                status=0x0117,
                reason=outcome.code,
            )
        return outcome

    def _write_down(
        self, received: ReceivedInstance, *, quarantining: bool
    ) -> Reception | disputes.Conflict:
        try:
            return self._group.run((received, quarantining))
        except StoreUnavailableError as error:
            raise OutOfResourcesError(str(error), status=0xA700, reason="DATABASE") from error

    def _write_down_all(
        self, requests: Sequence[tuple[ReceivedInstance, bool]]
    ) -> Sequence[Reception | disputes.Conflict]:
        """Write down instances of several associations in one transaction."""
        with self._database.writing_rows() as transaction:
            if all(add_next(transaction, received) for received, _ in requests):
                return ["new"] * len(requests)
            transaction.roll_back()  # a new series, a late, known or contradicting instance
        with self._database.writing() as session:
            return [_write_down(session, *request) for request in requests]

    def rivals(self, uid: str) -> tuple[Rival, ...]:
        """Read what is quarantined and can be decided of a series, or of a study."""
        with self._database.reading() as session:
            held = [row.series_instance_uid for row in _series_named(session, uid)]
            return disputes.rivals(session, held)

    def decide(
        self, uid: str, decision: DisputeDecision, *, operator: str, reason: str
    ) -> tuple[SeriesRecord, ...]:
        """Carry out what the site decided about a series, or all disputed series of a study.

        All of it or nothing; the audit log keeps operator and reason.

        Raises
        ------
        StateError
            There is no dispute, or the decision can no longer be carried out.
        """
        with self._database.writing() as session:
            rows = _series_named(session, uid)
            if not rows:
                raise StateError(f"the ledger has no series and no study {uid}")
            if rows[0].series_instance_uid != uid:
                known = [row.series_instance_uid for row in rows]
                named = {one.series_instance_uid for one in disputes.rivals(session, known)}
                rows = [row for row in rows if row.series_instance_uid in named]
                if not rows:
                    raise StateError(f"no series of study {uid} is in dispute")
            for row in rows:
                dispute_decisions.decide(session, row, decision, (operator, reason))
            return _records(session, rows)

    def retry(self, series_instance_uid: str, *, operator: str, reason: str) -> SeriesRecord:
        """Have a failed or cancelled series judged again, and synthesised if it is accepted.

        Raises
        ------
        StateError
            It has neither failed nor been cancelled, its result exists, it is in dispute, or its
            bytes were deleted.
        """
        return self._decide_one(series_instance_uid, decisions.retry, (operator, reason))

    def cancel(self, series_instance_uid: str, *, operator: str, reason: str) -> SeriesRecord:
        """Refuse a series that waits for its judgement or its synthesis.

        Raises
        ------
        StateError
            It does not wait.
        """
        return self._decide_one(series_instance_uid, decisions.cancel, (operator, reason))

    def _decide_one(
        self,
        series_instance_uid: str,
        decide: Callable[[Session, SeriesRow, tuple[str, str]], None],
        by: tuple[str, str],
    ) -> SeriesRecord:
        with self._database.writing() as session:
            row = session.get(SeriesRow, series_instance_uid)
            if row is None:
                raise StateError(f"the ledger has no series {series_instance_uid}")
            decide(session, row, by)
            return _records(session, [row])[0]

    def has_reception(self) -> bool:
        """Whether any study is not complete."""
        query = select(StudyRow.study_instance_uid).where(StudyRow.state == "receiving").limit(1)
        with self._database.reading() as session:
            return session.execute(query).first() is not None

    def studies_in_reception(self) -> tuple[StudyInReception, ...]:
        """Every study that is not complete, oldest news first."""
        query = (
            select(StudyRow).where(StudyRow.state == "receiving").order_by(StudyRow.last_ledger_id)
        )
        with self._database.reading() as session:
            return tuple(
                StudyInReception(
                    study_instance_uid=row.study_instance_uid,
                    instance_count=row.instance_count,
                    last_ledger_id=row.last_ledger_id,
                    last_run=row.last_run,
                )
                for row in session.scalars(query)
            )

    def studies_to_judge(self) -> tuple[str, ...]:
        """Study Instance UIDs that are complete and not judged, oldest first."""
        query = (
            select(StudyRow.study_instance_uid)
            .where(StudyRow.state == "complete")
            .order_by(StudyRow.last_ledger_id)
        )
        with self._database.reading() as session:
            return tuple(session.scalars(query))

    def complete(
        self,
        study: StudyInReception,
        details: Mapping[str, JsonValue],
        verdicts: Mapping[str, CompletenessVerdict] | None = None,
    ) -> bool:
        """Take the study as complete; false where news came since ``study`` was read.

        Parameters
        ----------
        details : mapping
            How that was found.
        verdicts : mapping of str to CompletenessVerdict, optional
            What their sources say of its series, by UID; all others are unverified.
        """
        verdicts = verdicts or {}
        with self._database.writing() as session:
            row = session.get_one(StudyRow, study.study_instance_uid)
            if row.state != "receiving" or row.last_ledger_id != study.last_ledger_id:
                return False
            row.state = "complete"
            for series in _series_of(session, study.study_instance_uid):
                if series.state == "receiving":
                    move(series, "complete")
                    _verify(session, series, verdicts.get(series.series_instance_uid))
            append(
                session,
                Event.STUDY_COMPLETE,
                study.study_instance_uid,
                {**details, "completeness": least(verdicts), "instances": row.instance_count},
            )
        return True

    def judge(self, study_instance_uid: str, judgements: Sequence[Judgement]) -> None:
        """Write the decisions about all series of a complete study.

        A series that was judged before and got no late instance keeps its state, save that a
        refused one may now be accepted. Judging again with the same decisions changes nothing.

        Raises
        ------
        SupersededError
            The study is in reception again, or a series changed since it was read: read again.
        StateError
            A judgement names a series that is not of the study.
        """
        with self._database.writing() as session:
            study = session.get_one(StudyRow, study_instance_uid)
            rows = {row.series_instance_uid: row for row in _series_of(session, study_instance_uid)}
            judging.check(study, rows, judgements)
            for judgement in judgements:
                judging.apply(session, rows[judgement.series_instance_uid], judgement)
            study.state = "judged"

    def transition(
        self,
        series_instance_uid: str,
        revision: int,
        state: SeriesState,
        event: str,
        details: Mapping[str, JsonValue],
        findings: Sequence[Finding] = (),
    ) -> bool:
        """Take a series to ``state``, with its audit row; false where it already stands there.

        ``findings`` are the reasons; where given, the series shows them from now on.

        Raises
        ------
        SupersededError
            A late instance made a newer revision than ``revision``.
        StateError
            ``TRANSITIONS`` knows no such way, or the ledger no such series.
        """
        with self._database.writing() as session:
            told: dict[str, JsonValue] = dict(details)
            if findings:
                told["findings"] = [asdict(finding) for finding in findings]
            moved = transition(session, series_instance_uid, revision, state, (event, told))
            if moved and findings:
                row = session.get_one(SeriesRow, series_instance_uid)
                row.findings = [asdict(finding) for finding in findings]
        return moved

    def refuse_selected(
        self,
        series_instance_uid: str,
        revision: int,
        details: Mapping[str, JsonValue],
        findings: Sequence[Finding],
    ) -> bool:
        """Refuse a series that had been selected, and let its study be judged without it.

        One transaction; whether the study is judged anew, because another of its series would do.

        Raises
        ------
        SupersededError
            A late instance made a newer revision than ``revision``.
        StateError
            The series was not selected, or the ledger has none of that UID.
        """
        reasons: dict[str, JsonValue] = {
            **details, "findings": [asdict(finding) for finding in findings]
        }  # fmt: skip
        event = Event.SERIES_REFUSED
        with self._database.writing() as session:
            if not transition(session, series_instance_uid, revision, "refused", (event, reasons)):
                return False
            row = session.get_one(SeriesRow, series_instance_uid)
            row.findings = [asdict(finding) for finding in findings]
            return second_choice.judge_again(session, row)

    def unfit(self, study: str) -> Mapping[str, tuple[Finding, ...]]:
        """Read why selected series of a study were refused afterwards, by Series Instance UID."""
        with self._database.reading() as session:
            return second_choice.unfit(session, _series_of(session, study))

    def instances(
        self, *, study: str | None = None, series: str | None = None
    ) -> tuple[StoredInstance, ...]:
        """Read the instances of a study or series, in the order of their arrival."""
        query = select(InstanceRow).order_by(InstanceRow.id)
        if study is not None:
            query = query.where(InstanceRow.study_instance_uid == study)
        if series is not None:
            query = query.where(InstanceRow.series_instance_uid == series)
        with self._database.reading() as session:
            return tuple(stored(row) for row in session.scalars(query))

    def series(
        self, state: SeriesState | None = None, *, study: str | None = None
    ) -> tuple[SeriesRecord, ...]:
        """Read all series, or those in one state or of one study, longest unchanged first."""
        query = select(SeriesRow).order_by(SeriesRow.changed_at, SeriesRow.series_instance_uid)
        if state is not None:
            query = query.where(SeriesRow.state == state)
        if study is not None:
            query = query.where(SeriesRow.study_instance_uid == study)
        return self._series(query)

    def series_one(self, series_instance_uid: str) -> SeriesRecord | None:
        """Read one series; None where the ledger knows none."""
        found = self._series(
            select(SeriesRow).where(SeriesRow.series_instance_uid == series_instance_uid)
        )
        return found[0] if found else None

    def counts(self) -> LedgerCounts:
        """Count at one instant; ``received`` comes from the instances, the rest from the states."""
        with self._database.reading() as session:
            instances, received = session.execute(
                select(
                    func.count(), func.count(distinct(InstanceRow.series_instance_uid))
                ).select_from(InstanceRow)
            ).one()
            quarantined = session.execute(
                select(func.count()).select_from(QuarantineRow)
            ).scalar_one()
            disputed = session.execute(
                select(func.count(distinct(QuarantineRow.disputed_series_uid))).where(
                    QuarantineRow.decision.is_(None)
                )
            ).scalar_one()
            states = session.execute(
                select(SeriesRow.state, func.count()).group_by(SeriesRow.state)
            ).all()
            confirmed = len(series_end.confirmed_series(session))
        by_state: dict[SeriesState, int] = dict.fromkeys(get_args(SeriesState), 0)
        by_state.update({cast(SeriesState, state): count for state, count in states})
        return LedgerCounts(
            instances=instances,
            quarantined=quarantined,
            received=received,
            disputed=disputed,
            by_state=by_state,
            confirmed=confirmed,
        )

    def _series(self, query: Select[SeriesRow]) -> tuple[SeriesRecord, ...]:
        with self._database.reading() as session:
            return _records(session, session.scalars(query).all())


def _verify(session: Session, series: SeriesRow, verdict: CompletenessVerdict | None) -> None:
    series.completeness = UNVERIFIED if verdict is None else verdict.completeness
    series.completeness_reason = None if verdict is None else verdict.reason
    if verdict is not None:
        append(
            session,
            Event.SERIES_VERIFIED,
            series.series_instance_uid,
            {
                "revision": series.revision,
                "completeness": verdict.completeness,
                "instances": series.instance_count,
                "reason": verdict.reason,
            },
        )


def _write_down(
    session: Session, received: ReceivedInstance, quarantining: bool
) -> Reception | disputes.Conflict:
    known = known_instance(session, received.sop_instance_uid)
    if known is not None and known.sha256 == received.sha256:
        known.purged_at = None  # its bytes are stored again
        return "same"
    conflict = disputes.conflict(session, received, known)
    if conflict is None:
        add(session, received)
        return "new"
    if quarantining:
        disputes.quarantine(session, received, conflict)
    return conflict


def _series_of(session: Session, study: str) -> Sequence[SeriesRow]:
    return session.scalars(select(SeriesRow).where(SeriesRow.study_instance_uid == study)).all()


def _series_named(session: Session, uid: str) -> Sequence[SeriesRow]:
    """Return the series of that UID, or all series of the study of that UID."""
    return session.scalars(
        select(SeriesRow)
        .where(or_(SeriesRow.series_instance_uid == uid, SeriesRow.study_instance_uid == uid))
        .order_by(SeriesRow.series_instance_uid)
    ).all()


def _records(session: Session, rows: Sequence[SeriesRow]) -> tuple[SeriesRecord, ...]:
    rivals = disputes.undecided_by_series(session)
    published = [row.series_instance_uid for row in rows if row.state == "published"]
    confirmed: frozenset[str] = frozenset()
    if published:
        few = (SeriesRow.series_instance_uid.in_(published),) if len(published) < _FEW else ()
        confirmed = series_end.confirmed_series(session, *few)
    return tuple(
        replace(
            _record(row, rivals.get(row.series_instance_uid, 0)),
            confirmed=row.series_instance_uid in confirmed if row.state == "published" else None,
        )
        for row in rows
    )


def _record(row: SeriesRow, rivals: int) -> SeriesRecord:
    findings = tuple(Finding(**finding, recorded=True) for finding in row.findings)
    state = cast(SeriesState, row.state)
    if rivals:
        dispute = (disputes.finding(row.series_instance_uid, state, rivals),)
        findings = findings + dispute if state == "refused" else dispute + findings
    return SeriesRecord(
        series_instance_uid=row.series_instance_uid,
        study_instance_uid=row.study_instance_uid,
        state=state,
        revision=row.revision,
        instance_count=row.instance_count,
        completeness=row.completeness,
        completeness_reason=row.completeness_reason if row.completeness else None,
        findings=findings,
        explanation=tuple(row.explanation),
        changed_at=row.changed_at,
    )
