"""What an operator decides about one series: try it again, or make nothing of it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import Event
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ledger import SeriesState
from rebrain_node.errors import StateError
from rebrain_node.store import disputes, inquiries
from rebrain_node.store.audit import append
from rebrain_node.store.series import move
from rebrain_node.store.tables import DerivedSetRow, InstanceRow, ListeningRow, SeriesRow, StudyRow

#: code of a series that an operator refused
CODE: Final = "CANCELLED"
#: codes of a series that was refused because its source did not confirm it
UNVERIFIED_CODES: Final = frozenset({"SOURCE-HAS-MORE", "NOT-VERIFIED"})


def retry(session: Session, series: SeriesRow, by: tuple[str, str]) -> None:
    """Have a failed or cancelled series judged again, and synthesised if it is accepted.

    Judged, because the flags that the objects carry are those of the judgement, and a failure has
    replaced them. Of a series that was not verified the source is asked again before. ``by`` is
    operator and reason.

    Raises
    ------
    StateError
        It has neither failed nor been cancelled nor been refused as not verified, or it cannot be
        tried again; the text says why.
    """
    uid = series.series_instance_uid
    unverified = _has_code(series, UNVERIFIED_CODES)
    if series.state != "failed" and not is_cancelled(series) and not unverified:
        raise StateError(
            f"series {uid} is {series.state}: only a series that failed, was cancelled or could "
            "not be verified can be tried again"
        )
    _check_no_result(session, series)
    if disputes.undecided(session, uid):
        raise StateError(
            f"series {uid} is in dispute; decide first with `rebrain-node queue dispute {uid}`"
        )
    purged = select(InstanceRow.purged_at).where(
        InstanceRow.series_instance_uid == uid, InstanceRow.purged_at.is_not(None)
    )
    when = session.scalars(purged.limit(1)).first()
    if when is not None:
        raise StateError(
            f"the bytes of series {uid} were deleted by retention on {when:%Y-%m-%d} "
            "(retention.refused_days); send the whole study again"
        )
    before = series.state
    study = session.get_one(StudyRow, series.study_instance_uid)
    if unverified:
        _receive_again(session, study, series)
    else:
        move(series, "complete")
        if study.state == "judged":
            study.state = "complete"
    series.findings, series.explanation = [], []
    _record(session, Event.SERIES_RETRIED, series, before, by)


def _receive_again(session: Session, study: StudyRow, series: SeriesRow) -> None:
    """Take a series back to reception, as after a late instance, so that its source is asked."""
    inquiries.forget(session, series.series_instance_uid)
    study.state = series.state = "receiving"
    study.last_run = session.get_one(ListeningRow, 1).run
    series.completeness = None
    series.changed_at = datetime.now(UTC)


def cancel(session: Session, series: SeriesRow, by: tuple[str, str]) -> None:
    """Refuse a series that waits for its judgement or its synthesis.

    ``by`` is operator and reason.

    Raises
    ------
    StateError
        It does not wait; the text says what can be done instead.
    """
    uid, before = series.series_instance_uid, cast(SeriesState, series.state)
    if before not in {"complete", "accepted"}:
        raise StateError(f"series {uid} is {before}: {_INSTEAD[before]}")
    move(series, "refused")
    operator, reason = by
    found = Finding(
        code=CODE,
        sentence=(
            f"{operator} refused this series when it was {before}: {reason}; take that back with "
            f"`rebrain-node queue retry {uid}`"
        ),
        value=before,
    )
    series.findings = [asdict(found)]
    _record(session, Event.SERIES_CANCELLED, series, before, by)


def is_cancelled(series: SeriesRow) -> bool:
    """Whether an operator refused the series, and no late instance has come since."""
    return _has_code(series, {CODE})


def _has_code(series: SeriesRow, codes: Set[str]) -> bool:
    return series.state == "refused" and any(each["code"] in codes for each in series.findings)


#: what an operator can do with a series that does not wait
_INSTEAD: Final = {
    "receiving": "its study is still in reception; cancel it when the quiet period has passed",
    "held": "it is in dispute; refuse it with `rebrain-node queue dispute --refuse`",
    "refused": "nothing is made of it already",
    "failed": "nothing is made of it already",
    "synthesised": "its result is in the outbox; stop it there with `rebrain-node outbox cancel`",
    "published": "its result was delivered; take it back with `rebrain-node recall --issue`",
}


def _check_no_result(session: Session, series: SeriesRow) -> None:
    query = select(DerivedSetRow.id).where(
        DerivedSetRow.source_series_uid == series.series_instance_uid,
        DerivedSetRow.revision == series.revision,
    )
    set_id = session.scalars(query).first()
    if set_id is not None:
        raise StateError(
            f"the result of series {series.series_instance_uid} is in the outbox, and its delivery "
            f"failed; send it again with `rebrain-node outbox retry {set_id}`"
        )


def _record(
    session: Session, event: Event, series: SeriesRow, before: str, by: tuple[str, str]
) -> None:
    operator, reason = by
    append(
        session,
        event,
        series.series_instance_uid,
        {
            "operator": operator,
            "reason": reason,
            "revision": series.revision,
            "state_before": before,
            "state": series.state,
            "findings": series.findings,
        },
    )
