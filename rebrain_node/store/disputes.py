"""Instances that contradict the ledger, and what the site decides about them.

The first instance of a UID stays what it is; one that contradicts it is quarantined, and its
series is in dispute: nothing is made of it until the site has decided. Every change is part of
the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final, cast

from sqlalchemy import ColumnElement, bindparam, func, or_, select, update
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import ACCEPTED_STATES
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ledger import DisputeDecision, ReceivedInstance, Rival, SeriesState
from rebrain_node.errors import StateError
from rebrain_node.store.audit import append
from rebrain_node.store.series import move
from rebrain_node.store.statements import Statement
from rebrain_node.store.tables import (
    DeliveryRow,
    DerivedSetRow,
    InstanceRow,
    QuarantineRow,
    SeriesRow,
    StudyRow,
)

CODE: Final = "ID-DISPUTED"
#: decision of bytes that were the instance before the site took others
REPLACED: Final = "replaced"
#: so many quarantined versions of an instance are compared with one that arrives
VERSIONS: Final = 8
#: states of an object that a destination may still get
_WAITING: Final = frozenset({"pending", "held"})
_ENDED: Final = frozenset({"synthesised", "published", "failed"})
_STUDY_OF_SERIES: Final = Statement(
    select(SeriesRow.study_instance_uid).where(SeriesRow.series_instance_uid == bindparam("uid"))
)


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """Why bytes must not enter the ledger."""

    code: str  #: documented in docs/audit-events.md
    sentence: str
    series_instance_uid: str  #: of the series that they contradict
    first_sha256: str | None = None  #: of the bytes that are held under the same UID
    #: of those that are quarantined under it, the newest first, at most `VERSIONS`
    quarantined: tuple[str, ...] = ()


def conflict(
    session: Session, received: ReceivedInstance, known: InstanceRow | None
) -> Conflict | None:
    """Find what the ledger holds that contradicts the instance."""
    if known is not None:
        return Conflict(
            code="SAME-UID-OTHER-BYTES",
            sentence="its UID is known with other content",
            series_instance_uid=known.series_instance_uid,
            first_sha256=known.sha256,
            quarantined=_versions(session, received.sop_instance_uid),
        )
    study = _STUDY_OF_SERIES.run(session, uid=received.series_instance_uid)
    if study is not None and study[0] != received.study_instance_uid:
        return Conflict(
            code="SERIES-OF-OTHER-STUDY",
            sentence="its series is known in another study",
            series_instance_uid=received.series_instance_uid,
        )
    return None


def _versions(session: Session, sop_instance_uid: str) -> tuple[str, ...]:
    query = (
        select(QuarantineRow.sha256)
        .where(QuarantineRow.sop_instance_uid == sop_instance_uid)
        .order_by(QuarantineRow.id.desc())
        .limit(VERSIONS)
    )
    return tuple(session.scalars(query))


def quarantine(session: Session, received: ReceivedInstance, found: Conflict) -> None:
    """Note refused bytes, once however often they are sent, and hold their series if need be."""
    query = select(QuarantineRow.id).where(
        QuarantineRow.sop_instance_uid == received.sop_instance_uid,
        QuarantineRow.sha256 == received.sha256,
    )
    if session.execute(query).first() is not None:
        return
    series = session.get_one(SeriesRow, found.series_instance_uid)
    begins = undecided(session, series.series_instance_uid) == 0
    session.add(
        QuarantineRow(
            sop_instance_uid=received.sop_instance_uid,
            sha256=received.sha256,
            size_bytes=received.size_bytes,
            path=received.path,
            calling_ae_title=received.calling_ae_title,
            reason=found.code,
            received_at=datetime.now(UTC),
            sop_class_uid=received.sop_class_uid,
            series_instance_uid=received.series_instance_uid,
            study_instance_uid=received.study_instance_uid,
            transfer_syntax_uid=received.transfer_syntax_uid,
            disputed_series_uid=series.series_instance_uid,
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
    if begins:
        append(
            session,
            Event.SERIES_DISPUTED,
            series.series_instance_uid,
            {"revision": series.revision, "state": series.state},
        )
    withdrawn = withdraw(session, series)
    if series.state == "accepted" or withdrawn:
        series.revision += 1  # work that has begun, or a result that nobody took, is discarded
        hold(session, series)


def undecided(session: Session, series_instance_uid: str) -> int:
    """Count the quarantined instances of a series about which the site has not decided."""
    return session.execute(
        select(func.count())
        .select_from(QuarantineRow)
        .where(
            QuarantineRow.disputed_series_uid == series_instance_uid,
            QuarantineRow.decision.is_(None),
        )
    ).scalar_one()


def undecided_by_series(session: Session) -> dict[str, int]:
    """Count as `undecided` does, for every series that has any."""
    query = (
        select(QuarantineRow.disputed_series_uid, func.count())
        .where(QuarantineRow.decision.is_(None), QuarantineRow.disputed_series_uid.is_not(None))
        .group_by(QuarantineRow.disputed_series_uid)
    )
    return {str(uid): count for uid, count in session.execute(query)}


def refused_by_site(session: Session, series_instance_uid: str) -> bool:
    """Whether the site decided that nothing is to be made of the series."""
    query = select(QuarantineRow.id).where(
        QuarantineRow.disputed_series_uid == series_instance_uid,
        QuarantineRow.decision == "refuse",
    )
    return session.execute(query).first() is not None


def hold(session: Session, series: SeriesRow) -> None:
    """Hold a series that is in dispute until the site decides."""
    move(series, "held")
    count = undecided(session, series.series_instance_uid)
    found = finding(series.series_instance_uid, "held", count)
    append(
        session,
        Event.SERIES_HELD,
        series.series_instance_uid,
        {"revision": series.revision, "state": "held", "findings": [asdict(found)]},
    )


def finding(series_instance_uid: str, state: SeriesState, rivals: int) -> Finding:
    """Say that a series is in dispute: a reason to hold it, a flag where it has ended."""
    what = "1 instance" if rivals == 1 else f"{rivals} instances"
    said = (
        f"{what} of this series arrived again with other content, e.g. another name or Patient ID, "
        "and must not be chosen by chance: the first set is kept, the second is in quarantine"
    )
    if state in _ENDED:
        said += f"; the series is {state} with the first set, and nothing of that is changed"
    return Finding(
        code=CODE,
        sentence=f"{said}; decide with `rebrain-node queue dispute {series_instance_uid}`",
        severity="flag" if state in _ENDED else "refuse",
        value=float(rivals),
        limit=0.0,
    )


def site_refusal() -> Finding:
    """Say that the site refused a disputed series."""
    return Finding(
        code=CODE,
        sentence=(
            "the site decided that nothing is made of this series, because its instances arrived "
            "twice with different content; change that with `rebrain-node queue dispute`"
        ),
        value="refuse",
    )


def rivals(session: Session, series_instance_uids: Sequence[str]) -> tuple[Rival, ...]:
    """Read the quarantined instances of these series that are not decided or were refused."""
    query = (
        select(QuarantineRow, InstanceRow.sha256)
        .outerjoin(InstanceRow, InstanceRow.sop_instance_uid == QuarantineRow.sop_instance_uid)
        .where(QuarantineRow.disputed_series_uid.in_(series_instance_uids), _can_be_decided())
        .order_by(QuarantineRow.id)
    )
    return tuple(
        Rival(
            sop_instance_uid=row.sop_instance_uid,
            series_instance_uid=str(row.disputed_series_uid),
            first_sha256=first,
            sha256=row.sha256,
            reason=row.reason,
            calling_ae_title=row.calling_ae_title,
            received_at=row.received_at,
            decision=cast(DisputeDecision | None, row.decision),
        )
        for row, first in session.execute(query)
    )


def decide(
    session: Session,
    series: SeriesRow,
    decision: DisputeDecision,
    by: tuple[str, str],
) -> None:
    """Carry out what the site decided about one series; ``by`` is operator and reason.

    Raises
    ------
    StateError
        The series is not in dispute, or what was decided can no longer be done.
    """
    uid = series.series_instance_uid
    query = (
        select(QuarantineRow)
        .where(QuarantineRow.disputed_series_uid == uid, _can_be_decided())
        .order_by(QuarantineRow.id)
    )
    rows = session.scalars(query).all()
    if not rows:
        raise StateError(
            f"series {uid} is not in dispute; `rebrain-node queue list` marks those that are "
            f"with {CODE}"
        )
    before, was_refused = series.state, any(row.decision == "refuse" for row in rows)
    if series.state in _ENDED and decision != "keep-first":
        raise StateError(
            f"series {uid} is {series.state}: what was made of the first set cannot be changed any "
            "more. Decide --keep-first, have the results deleted where they were sent, and send "
            "the right study under new UIDs"
        )
    taken = _take_second(session, series, rows) if decision == "take-second" else {}
    session.execute(
        update(QuarantineRow)
        .where(QuarantineRow.id.in_([row.id for row in rows]))
        .values(decision=decision)
    )
    if decision == "refuse":
        if series.state == "held":
            move(series, "refused")
            series.findings = [asdict(site_refusal())]
    elif series.state == "held" or (series.state == "refused" and (was_refused or taken)):
        move(series, "complete")
        series.findings, series.explanation = [], []
    if series.state == "complete":
        _judge_again(session, series.study_instance_uid)
    append(
        session,
        Event.DISPUTE_DECIDED,
        uid,
        {
            "decision": decision,
            "operator": by[0],
            "reason": by[1],
            "instances": len({row.sop_instance_uid for row in rows}),
            "taken": taken,
            "state_before": before,
            "state": series.state,
            "revision": series.revision,
        },
    )


def _can_be_decided() -> ColumnElement[bool]:
    return or_(QuarantineRow.decision.is_(None), QuarantineRow.decision == "refuse")


def is_sent(session: Session, series_instance_uid: str) -> bool:
    """Whether a result of the series was taken by a destination, or is kept for none."""
    sets = select(DerivedSetRow.id).where(DerivedSetRow.source_series_uid == series_instance_uid)
    for set_id in session.scalars(sets):
        states = set(session.scalars(select(DeliveryRow.state).where(DeliveryRow.set_id == set_id)))
        if not states or states & ACCEPTED_STATES:
            return True
    return False


def withdraw(session: Session, series: SeriesRow) -> bool:
    """Take back what waits for delivery, of every set of which no destination took anything.

    Returns whether the set of the series' present revision was taken back. What is left of a
    series that has ended goes its way: nothing would make it again.
    """
    if series.state in {"published", "failed"}:
        return False
    query = select(DerivedSetRow).where(
        DerivedSetRow.source_series_uid == series.series_instance_uid
    )
    newest = False
    for row in session.scalars(query).all():
        of_set = DeliveryRow.set_id == row.id
        states = set(session.scalars(select(DeliveryRow.state).where(of_set)))
        if not states & _WAITING or states & ACCEPTED_STATES:
            continue
        session.execute(
            update(DeliveryRow)
            .where(of_set, DeliveryRow.state.in_(_WAITING))
            .values(state="withdrawn", reason="the series is in dispute")
        )
        newest = newest or (row.revision == series.revision and series.state == "synthesised")
    return newest


def _take_second(
    session: Session, series: SeriesRow, rows: Sequence[QuarantineRow]
) -> dict[str, str]:
    """Put the newest quarantined bytes of each UID in the place of the instance.

    Returns the SHA-256 of the new bytes by SOP Instance UID.

    Raises
    ------
    StateError
        A result of the first set was sent, or a quarantined instance belongs to another series.
    """
    uid = series.series_instance_uid
    if is_sent(session, uid):
        raise StateError(
            f"a result of the first set of series {uid} was sent already. Decide --keep-first or "
            "--refuse, have it deleted where it was sent, and send the right study under new UIDs"
        )
    for row in rows:
        if (row.series_instance_uid, row.study_instance_uid) != (uid, series.study_instance_uid):
            raise StateError(
                f"the quarantined instance {row.sop_instance_uid} is of series "
                f"{row.series_instance_uid or 'unknown'} of study "
                f"{row.study_instance_uid or 'unknown'}, not of series {uid} of study "
                f"{series.study_instance_uid}: it cannot take the place of the first. Decide "
                "--keep-first or --refuse, and send the right study under new UIDs"
            )
    withdraw(session, series)  # of an earlier revision, which had ended when the dispute began
    newest = {row.sop_instance_uid: row for row in rows}
    for row in newest.values():
        _swap(session, row)
    series.revision += 1  # a judgement over the first set is discarded
    return {each: row.sha256 for each, row in newest.items()}


def _swap(session: Session, row: QuarantineRow) -> None:
    query = select(InstanceRow).where(InstanceRow.sop_instance_uid == row.sop_instance_uid)
    instance = session.scalars(query).one()
    first = QuarantineRow(
        sop_instance_uid=instance.sop_instance_uid,
        sha256=instance.sha256,
        size_bytes=instance.size_bytes,
        path=instance.path,
        calling_ae_title=instance.calling_ae_title,
        reason=row.reason,
        received_at=instance.received_at,
        sop_class_uid=instance.sop_class_uid,
        series_instance_uid=instance.series_instance_uid,
        study_instance_uid=instance.study_instance_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        disputed_series_uid=instance.series_instance_uid,
        decision=REPLACED,
    )
    instance.sop_class_uid = str(row.sop_class_uid)
    instance.transfer_syntax_uid = str(row.transfer_syntax_uid)
    instance.sha256 = row.sha256
    instance.size_bytes = row.size_bytes
    instance.path = row.path
    instance.calling_ae_title = row.calling_ae_title
    instance.received_at = row.received_at
    session.delete(row)
    session.flush()
    session.add(first)


def _judge_again(session: Session, study_instance_uid: str) -> None:
    study = session.get_one(StudyRow, study_instance_uid)
    if study.state == "judged":
        study.state = "complete"
