"""Instances that contradict the ledger: they are quarantined, and their series is in dispute.

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
from rebrain_node.domain.delivery import ACCEPTED_STATES, WAITING_STATES
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ledger import DisputeDecision, ReceivedInstance, Rival, SeriesState
from rebrain_node.store.audit import append
from rebrain_node.store.series import move
from rebrain_node.store.statements import Statement
from rebrain_node.store.tables import (
    DeliveryRow,
    DerivedSetRow,
    InstanceRow,
    QuarantineRow,
    SeriesRow,
)

CODE: Final = "ID-DISPUTED"
#: so many quarantined versions of an instance are compared with one that arrives
VERSIONS: Final = 8
#: states of a series whose result exists
ENDED: Final = frozenset({"synthesised", "published", "failed"})
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
            "study": received.study_instance_uid,
            "size_bytes": received.size_bytes,
            "sop_class": received.sop_class_uid,
            "transfer_syntax": received.transfer_syntax_uid,
            "disputed_series": series.series_instance_uid,
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
        {
            "revision": series.revision,
            "state": "held",
            "findings": [asdict(found)],
            "kept": {"findings": series.findings, "explanation": series.explanation},
        },
    )


def finding(series_instance_uid: str, state: SeriesState, rivals: int) -> Finding:
    """Say that a series is in dispute: a reason to hold it, a flag where it has ended."""
    what = "1 instance" if rivals == 1 else f"{rivals} instances"
    said = (
        f"{what} of this series arrived again with other content, e.g. another name or Patient ID, "
        "and must not be chosen by chance: the first set is kept, the second is in quarantine"
    )
    if state in ENDED:
        said += f"; the series is {state} with the first set, and nothing of that is changed"
    return Finding(
        code=CODE,
        sentence=f"{said}; decide with `rebrain-node queue dispute {series_instance_uid}`",
        severity="flag" if state in ENDED else "refuse",
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
        .where(QuarantineRow.disputed_series_uid.in_(series_instance_uids), can_be_decided())
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


def can_be_decided() -> ColumnElement[bool]:
    """Of quarantined instances: not decided, or refused by the site, which may decide again."""
    return or_(QuarantineRow.decision.is_(None), QuarantineRow.decision == "refuse")


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
        if not states & WAITING_STATES or states & ACCEPTED_STATES:
            continue
        _withdraw(session, row.id)
        newest = newest or (row.revision == series.revision and series.state == "synthesised")
    return newest


def _withdraw(session: Session, set_id: int) -> None:
    waiting = DeliveryRow.set_id == set_id, DeliveryRow.state.in_(WAITING_STATES)
    counts = select(DeliveryRow.destination, func.count()).where(*waiting)
    by_name = session.execute(
        counts.group_by(DeliveryRow.destination).order_by(DeliveryRow.destination)
    ).all()
    session.execute(
        update(DeliveryRow)
        .where(*waiting)
        .values(state="withdrawn", reason="the series is in dispute")
    )
    for name, count in by_name:
        append(session, Event.DELIVERY_WITHDRAWN, name, {"set": set_id, "objects": count})
