"""What the site decides about a series that arrived twice: keep the first, take the second, refuse.

`store.disputes` finds and records the contradiction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.delivery import ACCEPTED_STATES
from rebrain_node.domain.ledger import DisputeDecision
from rebrain_node.errors import StateError
from rebrain_node.store.audit import append
from rebrain_node.store.disputes import CODE, ENDED, can_be_decided, site_refusal, withdraw
from rebrain_node.store.series import move
from rebrain_node.store.tables import (
    DeliveryRow,
    DerivedSetRow,
    InstanceRow,
    QuarantineRow,
    SeriesRow,
    StudyRow,
)

#: decision of bytes that were the instance before the site took others
REPLACED: Final = "replaced"


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
        .where(QuarantineRow.disputed_series_uid == uid, can_be_decided())
        .order_by(QuarantineRow.id)
    )
    rows = session.scalars(query).all()
    if not rows:
        raise StateError(
            f"series {uid} is not in dispute; `rebrain-node queue list` marks those that are "
            f"with {CODE}"
        )
    before, was_refused = series.state, any(row.decision == "refuse" for row in rows)
    if series.state in ENDED and decision != "keep-first":
        raise StateError(
            f"series {uid} is {series.state}: what was made of the first set cannot be changed any "
            "more. Decide --keep-first, have the results deleted where they were sent, and send "
            "the right study under new UIDs"
        )
    session.execute(
        update(QuarantineRow)
        .where(QuarantineRow.id.in_([row.id for row in rows]))
        .values(decision=decision)
    )
    taken = _take_second(session, series, rows) if decision == "take-second" else {}
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
            "kept": {"findings": series.findings, "explanation": series.explanation},
        },
    )


def _is_sent(session: Session, series_instance_uid: str) -> bool:
    """Whether a result of the series was taken by a destination, or is kept for none."""
    sets = select(DerivedSetRow.id).where(DerivedSetRow.source_series_uid == series_instance_uid)
    for set_id in session.scalars(sets):
        states = set(session.scalars(select(DeliveryRow.state).where(DeliveryRow.set_id == set_id)))
        if not states or states & ACCEPTED_STATES:
            return True
    return False


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
    if _is_sent(session, uid):
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
