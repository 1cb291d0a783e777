"""Compares rows of `instance` with the rows of the audit log that were written with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import AuditDifference, Event
from rebrain_node.store.audit_replay import UNKNOWN, FactReplay, VersionFacts
from rebrain_node.store.tables import AuditRow, InstanceRow, utc_text

#: time between a row of a table and the row of the log in its transaction, at most
_TOGETHER: Final = timedelta(seconds=60)
_INSTANCE: Final = (
    InstanceRow.id, InstanceRow.sop_instance_uid, InstanceRow.sop_class_uid,
    InstanceRow.series_instance_uid, InstanceRow.study_instance_uid,
    InstanceRow.transfer_syntax_uid, InstanceRow.sha256, InstanceRow.size_bytes,
    InstanceRow.calling_ae_title, InstanceRow.received_at,
)  # fmt: skip


class InstanceCheck:
    """Compares instances while the log is followed; what differs at once, again at its end.

    Parameters
    ----------
    replay : FactReplay
        What the log told so far.
    """

    def __init__(self, replay: FactReplay) -> None:
        self._replay = replay
        self._last: int | None = None if replay.sealed else 0
        #: instances that do not agree at once: perhaps a dispute took other bytes
        self._odd: set[str] = set()

    def observe(
        self, session: Session, received: Sequence[tuple[str, str, Mapping[str, Any]]]
    ) -> None:
        """Compare the instances of some rows of the log: UID, time and details of each."""
        if not received:
            return
        first = received[0][2]["ledger_id"] - 1 if self._last is None else self._last
        last = max(first, received[-1][2]["ledger_id"])
        query = select(*_INSTANCE).where(InstanceRow.id > first, InstanceRow.id <= last)
        cursor: Any = session.connection().execute(query.order_by(InstanceRow.id)).cursor
        rows = {row[0]: row for row in cursor.fetchall()}
        for uid, at, told in received:
            row = rows.pop(told["ledger_id"], None)
            if row is None or not _is_told(row, uid, at, told):
                self._odd.add(uid)
                self._odd.update(() if row is None else (row[1],))
        self._odd.update(row[1] for row in rows.values())
        self._last = last

    def replaced(self, session: Session) -> Mapping[tuple[str, str], Any]:
        """What the quarantine must hold of instances whose place other bytes took."""
        found = {}
        for uid, versions in self._replay.taken.items():
            for before, after in zip(
                [self._first(session, uid), *versions], versions, strict=False
            ):
                if before is None:
                    continue
                said = {**before.details, "reason": after.details.get("reason", UNKNOWN)}
                # where one instance alone was swapped, earlier versions wrote another decision
                decision = "replaced" if "disputed_series" in after.details else UNKNOWN
                disputed = said.get("series", UNKNOWN)
                version = VersionFacts(said, before.received_at, disputed, decision)
                found[uid, str(said["sha256"])] = version
        return found

    def compare(self, session: Session) -> Iterator[AuditDifference]:
        """Compare again what did not agree at once, and look for rows without a row of the log."""
        for uid in sorted(self._odd | self._replay.taken.keys()):
            yield from self._compare(session, uid)
        beyond = select(func.count()).where(InstanceRow.id > (self._last or 0))
        if self._last is not None and session.scalars(beyond).one():
            yield difference("instance", "there are newer rows than the log tells of")
        if not self._replay.sealed:
            yield from self._purged(session)

    def _compare(self, session: Session, uid: str) -> Iterator[AuditDifference]:
        query = select(*_INSTANCE).where(InstanceRow.sop_instance_uid == uid)
        cursor: Any = session.connection().execute(query).cursor
        row, first = cursor.fetchone(), self._first(session, uid)
        if first is None:
            if row is not None and not self._replay.sealed:
                yield difference("instance", f"the log does not tell of instance {uid}")
            return
        if row is None:
            yield difference("instance", f"instance {uid} is missing; the log tells of it")
            return
        versions = self._replay.taken.get(uid)
        told, at = first.details, first.received_at
        if versions:
            newest = versions[-1]
            told, at = {**newest.details, "ledger_id": told["ledger_id"]}, newest.received_at
        for column, wanted, found in _pairs(row, uid, at, told):
            if wanted != found:
                yield differs("instance", uid, column, found)

    def _first(self, session: Session, uid: str) -> Any:
        query = select(AuditRow.details, AuditRow.recorded_at).where(
            AuditRow.subject == uid, AuditRow.event == str(Event.INSTANCE_RECEIVED)
        )
        found = session.execute(query).first()
        return None if found is None else VersionFacts(json.loads(found[0]), found[1], UNKNOWN)

    def _purged(self, session: Session) -> Iterator[AuditDifference]:
        is_purged = InstanceRow.purged_at.is_not(None)
        pairs = select(InstanceRow.series_instance_uid, InstanceRow.study_instance_uid)
        for series, study in session.execute(pairs.where(is_purged).distinct()).all():
            if {series, study} & self._replay.purged:
                continue
            uids = select(InstanceRow.sop_instance_uid).where(
                is_purged, InstanceRow.series_instance_uid == series
            )
            for uid in session.scalars(uids):
                if uid not in self._replay.lost:
                    yield differs("instance", uid, "purged_at", "a time")


def _is_told(row: Sequence[Any], uid: str, at: str, told: Mapping[str, Any]) -> bool:
    is_equal = tuple(row[:-1]) == _wanted(uid, told)
    return is_equal and (row[-1][:17] == at[:17] or near(at, row[-1]) == row[-1])


def _wanted(uid: str, told: Mapping[str, Any]) -> tuple[Any, ...]:
    """Values of `_INSTANCE` without the time, by the log."""
    return (
        told["ledger_id"], uid, told.get("sop_class", UNKNOWN), told["series"],
        told.get("study", UNKNOWN), told.get("transfer_syntax", UNKNOWN), told["sha256"],
        told.get("size_bytes", UNKNOWN), told["calling_ae_title"],
    )  # fmt: skip


def _pairs(
    row: Sequence[Any], uid: str, at: Any, told: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Column, value by the log and value of the table, of one row of `instance`."""
    wanted = (*_wanted(uid, told), near(at, row[-1]))
    for column, value, found in zip(_INSTANCE, wanted, row, strict=True):
        yield column.key, value, found


def near(told: Any, found: Any) -> Any:
    """``found`` where it is a time that lies near the row of the log, else ``told``."""
    if told is UNKNOWN or told is None:
        return told
    text = utc_text(found) if isinstance(found, datetime) else found
    if isinstance(text, str) and text[:17] == told[:17] and len(text) == len(told):
        return found
    try:
        apart = abs(datetime.fromisoformat(text) - datetime.fromisoformat(told))
    except (TypeError, ValueError):
        return told
    return found if apart <= _TOGETHER else told


def differs(table: str, subject: str, column: str, found: object) -> AuditDifference:
    """Say that a column holds another value than the log tells."""
    sentence = f"{table}.{column} of {subject} is {found!s:.80}; the audit log tells another value"
    return difference(table, sentence)


def difference(table: str, sentence: str) -> AuditDifference:
    """Say what of a table contradicts the log."""
    return AuditDifference(kind="fact", subject=table, sentence=sentence)
