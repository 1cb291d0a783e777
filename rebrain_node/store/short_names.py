"""Series and studies by the short id that logs and tables show, or by the beginning of a UID."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from rebrain_node.domain.text import reference
from rebrain_node.errors import StateError
from rebrain_node.store.database import Database
from rebrain_node.store.tables import DerivedInstanceRow, DerivedSetRow, SeriesRow, StudyRow

#: the beginning of a short id; fewer digits would soon name another series
_ID: Final = re.compile(r"[0-9a-f]{4,12}")
#: the beginning of a UID; it ends within or behind its second component at the earliest
_UID: Final = re.compile(r"[0-9]+\.[0-9.]+")
#: so many are named where an id is ambiguous
_NAMED: Final = 5


class ShortNames:
    """Finds the series or study that somebody means."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def series(self, text: str) -> str:
        """Return the UID of the source series that ``text`` names.

        Parameters
        ----------
        text : str
            Its UID, that of the synthetic series made of it, its short id, or an unambiguous
            beginning of UID or id.

        Raises
        ------
        StateError
            No series is named so, or several are.
        """
        with self._database.reading() as session:
            found = _matching(session, SeriesRow.series_instance_uid, text)
            if not found:
                found = _sources(session, text)
        return _one(found, text, "series")

    def study(self, text: str) -> str | None:
        """Return the UID of the study that ``text`` names likewise; None where none is.

        Raises
        ------
        StateError
            Several studies are named so.
        """
        with self._database.reading() as session:
            found = _matching(session, StudyRow.study_instance_uid, text)
        return _one(found, text, "studies") if found else None

    def subject(self, text: str) -> str:
        """Return the UID of the series or study that ``text`` names, or ``text`` where none is.

        Raises
        ------
        StateError
            Several are named so.
        """
        with self._database.reading() as session:
            found = {
                *_matching(session, SeriesRow.series_instance_uid, text),
                *_matching(session, StudyRow.study_instance_uid, text),
            }
        return _one(sorted(found), text, "series or studies") if found else text


def _matching(session: Session, column: InstrumentedAttribute[Any], text: str) -> list[str]:
    """Return every UID of the column that ``text`` names; the whole UID names itself alone."""
    if session.scalars(select(column).where(column == text)).first() is not None:
        return [text]
    if _UID.fullmatch(text):
        query = select(column).where(column.startswith(text, autoescape=True))
        return list(session.scalars(query.limit(_NAMED + 1)))
    if _ID.fullmatch(text):
        return [uid for uid in session.scalars(select(column)) if reference(uid).startswith(text)]
    return []


def _sources(session: Session, mr_series_uid: str) -> list[str]:
    """Return the source of a synthetic series."""
    query = (
        select(DerivedSetRow.source_series_uid)
        .join(DerivedInstanceRow, DerivedInstanceRow.set_id == DerivedSetRow.id)
        .where(DerivedInstanceRow.series_instance_uid == mr_series_uid)
    )
    return list(session.scalars(query.limit(1)))


def _one(found: Iterable[str], text: str, what: str) -> str:
    """Return the only UID.

    Raises
    ------
    StateError
        There is none, or there are several.
    """
    uids = list(found)
    if not uids:
        raise StateError(
            f"the ledger has no series {text}; give a Series Instance UID or the id that "
            "`rebrain-node queue list` and the log show, or at least its first 4 digits"
        )
    if len(uids) > 1:
        named = ", ".join(f"{reference(uid)} ({uid})" for uid in uids[:_NAMED])
        more = f" and {len(uids) - _NAMED} more" if len(uids) > _NAMED else ""
        raise StateError(f"{text!r} is the beginning of several {what}: {named}{more}; give more")
    return uids[0]
