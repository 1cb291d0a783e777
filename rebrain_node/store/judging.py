"""How the judgements of a study are written into the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.ledger import Judgement
from rebrain_node.errors import StateError, SupersededError
from rebrain_node.store import decisions, disputes
from rebrain_node.store.audit import append
from rebrain_node.store.series import move
from rebrain_node.store.tables import SeriesRow, StudyRow


def check(study: StudyRow, rows: Mapping[str, SeriesRow], judgements: Sequence[Judgement]) -> None:
    """Refuse judgements that were made over something else than what is held now.

    Raises
    ------
    StateError
        A judgement names a series that is not of the study.
    SupersededError
        The study or a series changed since it was read.
    """
    if study.state == "receiving":
        raise SupersededError(
            f"study {study.study_instance_uid} got new instances; judge it when it is complete"
        )
    judged = {judgement.series_instance_uid: judgement for judgement in judgements}
    foreign = judged.keys() - rows.keys()
    if foreign:
        raise StateError(f"series {min(foreign)} is not of study {study.study_instance_uid}")
    for uid, row in rows.items():
        if uid in judged and judged[uid].revision != row.revision:
            raise SupersededError(
                f"series {uid} is at revision {row.revision}; judge the study again"
            )
        if uid not in judged and row.state == "complete":
            raise SupersededError(f"series {uid} has no judgement; judge the study again")


def apply(session: Session, row: SeriesRow, judgement: Judgement) -> None:
    """Write one judgement; a series in dispute is held, one that the site refused stays so."""
    uid, accepted = row.series_instance_uid, judgement.decision == "accepted"
    if row.state != "complete" and not (row.state == "refused" and accepted):
        return
    by_site = disputes.refused_by_site(session, uid)
    if decisions.is_cancelled(row) or (by_site and row.state == "refused"):
        return
    findings = [asdict(finding) for finding in judgement.findings]
    row.findings = [asdict(disputes.site_refusal()), *findings] if by_site else findings
    row.explanation = list(judgement.explanation)
    if accepted and not by_site and disputes.undecided(session, uid):
        disputes.hold(session, row)
        return
    move(row, "refused" if by_site else judgement.decision)
    append(
        session,
        Event.SERIES_ACCEPTED if row.state == "accepted" else Event.SERIES_REFUSED,
        uid,
        {
            "revision": row.revision,
            "completeness": row.completeness,
            "findings": row.findings,
            "explanation": row.explanation,
        },
    )
