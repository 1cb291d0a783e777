"""The next series of a study, where the one that was selected turned out unfit.

Selected series are refused in the worker, when their volume is checked. The study is then judged
anew without them, in the transaction of the refusal, so that a crash loses nothing and repeats
nothing: which series turned out unfit is read from the audit log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.findings import Finding
from rebrain_node.store.audit import read_details
from rebrain_node.store.tables import AuditRow, SeriesRow, StudyRow

_WOULD_DO = "NOT-PREFERRED"


def judge_again(session: Session, refused: SeriesRow) -> bool:
    """Let the study be judged anew if another of its series would do; whether it is.

    Nothing is changed where a late instance has put the study into reception again.
    """
    study = session.get_one(StudyRow, refused.study_instance_uid)
    siblings = session.scalars(
        select(SeriesRow).where(
            SeriesRow.study_instance_uid == refused.study_instance_uid,
            SeriesRow.state == "refused",
        )
    )
    if study.state != "judged" or not any(_would_do(row) for row in siblings):
        return False
    study.state = "complete"
    return True


def _would_do(row: SeriesRow) -> bool:
    refusals = {f["code"] for f in row.findings if f.get("severity") == "refuse"}
    return refusals == {_WOULD_DO}


def unfit(session: Session, rows: Sequence[SeriesRow]) -> dict[str, tuple[Finding, ...]]:
    """Return the findings of each series that was selected and then refused, by UID.

    Only what was found of its present revision counts.
    """
    found = {}
    for row in rows:
        if row.state != "refused":
            continue
        query = select(AuditRow.details).where(
            AuditRow.subject == row.series_instance_uid,
            AuditRow.event == Event.SERIES_REFUSED,
        )
        for text in session.scalars(query):
            details: dict[str, Any] = read_details(text)
            if details.get("state") == "refused" and details.get("revision") == row.revision:
                found[row.series_instance_uid] = tuple(
                    Finding(**finding, recorded=True) for finding in details.get("findings", ())
                )
    return found
