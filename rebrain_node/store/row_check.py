"""Holds the rows of one database against each other, for `storage fsck`.

What the node writes in one transaction cannot differ; a restored backup, another program or a
damaged page can make it so. Numbers are computed again; what only a person can decide is listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from rebrain_node.store.tables import (
    DeliveryRow,
    DerivedInstanceRow,
    DerivedSetRow,
    InstanceRow,
    SeriesRow,
    StudyRow,
)

#: states of a series that has a result in the outbox
_WITH_RESULT: Final = ("synthesised", "published")


@dataclass(frozen=True, kw_only=True)
class RowDifference:
    """Rows that contradict each other."""

    kind: Literal["count", "no-result", "no-object", "no-instance"]
    table: Literal["study", "series", "derived_set", "delivery"]
    subject: str  #: UID of the study or series, or number of the set
    sentence: str  #: what contradicts what, and what helps
    count: int | None = None  #: the right number, of a `count`


def row_differences(session: Session) -> tuple[RowDifference, ...]:
    """Find what contradicts each other, studies and series first."""
    return (
        *_counts(session),
        *_series_without_instances(session),
        *_series_without_result(session),
        *_without_objects(session),
    )


def correct_counts(session: Session, found: Sequence[RowDifference]) -> int:
    """Write the right numbers, inside the caller's transaction; how many."""
    wrong = [each for each in found if each.kind == "count"]
    for each in wrong:
        if each.table == "study":
            at_study = StudyRow.study_instance_uid == each.subject
            session.execute(update(StudyRow).where(at_study).values(instance_count=each.count))
        else:
            at_series = SeriesRow.series_instance_uid == each.subject
            session.execute(update(SeriesRow).where(at_series).values(instance_count=each.count))
    return len(wrong)


def _counts(session: Session) -> Iterator[RowDifference]:
    by_study = select(InstanceRow.study_instance_uid, func.count()).group_by(
        InstanceRow.study_instance_uid
    )
    by_series = select(InstanceRow.series_instance_uid, func.count()).group_by(
        InstanceRow.series_instance_uid
    )
    studies = {row[0]: row[1] for row in session.execute(by_study)}
    series = {row[0]: row[1] for row in session.execute(by_series)}
    for study in session.scalars(select(StudyRow).order_by(StudyRow.study_instance_uid)):
        right = studies.get(study.study_instance_uid, 0)
        if study.instance_count != right:
            yield _count("study", study.study_instance_uid, study.instance_count, right)
    for row in session.scalars(select(SeriesRow).order_by(SeriesRow.series_instance_uid)):
        right = series.get(row.series_instance_uid, 0)
        if row.instance_count != right:
            yield _count("series", row.series_instance_uid, row.instance_count, right)


def _count(table: Literal["study", "series"], uid: str, stated: int, right: int) -> RowDifference:
    return RowDifference(
        kind="count",
        table=table,
        subject=uid,
        count=right,
        sentence=f"the {table} says {stated} instances and has {right}; --repair corrects it",
    )


def _series_without_instances(session: Session) -> Iterator[RowDifference]:
    held = select(InstanceRow.series_instance_uid)
    query = select(SeriesRow.series_instance_uid).where(SeriesRow.series_instance_uid.not_in(held))
    for uid in session.scalars(query.order_by(SeriesRow.series_instance_uid)):
        yield RowDifference(
            kind="no-instance",
            table="series",
            subject=uid,
            sentence="the series has no instance; send it again",
        )


def _series_without_result(session: Session) -> Iterator[RowDifference]:
    query = (
        select(SeriesRow)
        .outerjoin(
            DerivedSetRow,
            (DerivedSetRow.source_series_uid == SeriesRow.series_instance_uid)
            & (DerivedSetRow.revision == SeriesRow.revision),
        )
        .where(SeriesRow.state.in_(_WITH_RESULT), DerivedSetRow.id.is_(None))
        .order_by(SeriesRow.series_instance_uid)
    )
    for row in session.scalars(query):
        yield RowDifference(
            kind="no-result",
            table="series",
            subject=row.series_instance_uid,
            sentence=(
                f"the series is {row.state} and the outbox has no set of its revision "
                f"{row.revision}; restore the database from a backup"
            ),
        )


def _without_objects(session: Session) -> Iterator[RowDifference]:
    objects = select(DerivedInstanceRow.set_id)
    sets = select(DerivedSetRow.id).where(DerivedSetRow.id.not_in(objects))
    for number in session.scalars(sets.order_by(DerivedSetRow.id)):
        yield RowDifference(
            kind="no-object",
            table="derived_set",
            subject=str(number),
            sentence="the set has no object; restore the database from a backup",
        )
    of_set = select(DerivedInstanceRow.id).where(
        DerivedInstanceRow.id == DeliveryRow.derived_instance_id,
        DerivedInstanceRow.set_id == DeliveryRow.set_id,
    )
    lost = select(DeliveryRow.set_id).where(~of_set.exists()).distinct().order_by(
        DeliveryRow.set_id
    )  # fmt: skip
    for number in session.scalars(lost):
        yield RowDifference(
            kind="no-object",
            table="delivery",
            subject=str(number),
            sentence=(
                "a delivery of the set names an object that the set does not have; restore the "
                "database from a backup"
            ),
        )
