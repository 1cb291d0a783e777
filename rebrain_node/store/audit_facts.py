"""Holds the fact tables against what the audit log says of them (`store.audit_replay`).

Compared are the columns of `COMPARED`; the others are bookkeeping that has no row of the log, and
stand with the reason in `NOT_COMPARED`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import AuditDifference, Event
from rebrain_node.store.audit_replay import (
    FOLLOWED,
    UNKNOWN,
    FactReplay,
    SetFacts,
    VersionFacts,
)
from rebrain_node.store.fact_digests import DELIVERY_COLUMNS, OBJECT_COLUMNS, digest_of
from rebrain_node.store.tables import (
    AuditRow,
    CommitmentRow,
    DeliveryRow,
    DerivedInstanceRow,
    DerivedSetRow,
    InstanceRow,
    PausedDestinationRow,
    QuarantineRow,
    SeriesRow,
    StudyRow,
    utc_text,
)

#: columns held against the log, by table
COMPARED: Final[Mapping[str, frozenset[str]]] = {
    "study": frozenset({"study_instance_uid", "state", "instance_count", "last_ledger_id"}),
    "series": frozenset(
        {
            "series_instance_uid", "study_instance_uid", "state", "revision", "instance_count",
            "completeness", "completeness_reason", "findings", "explanation", "changed_at",
        }
    ),
    "instance": frozenset(
        {
            "id", "sop_instance_uid", "sop_class_uid", "series_instance_uid",
            "study_instance_uid", "transfer_syntax_uid", "sha256", "size_bytes",
            "calling_ae_title", "received_at", "purged_at",
        }
    ),
    "quarantine": frozenset(
        {
            "sop_instance_uid", "sha256", "size_bytes", "calling_ae_title", "reason",
            "received_at", "sop_class_uid", "series_instance_uid", "study_instance_uid",
            "transfer_syntax_uid", "disputed_series_uid", "decision",
        }
    ),
    "derived_set": frozenset(
        {"id", "source_series_uid", "study_instance_uid", "revision", "provenance", "created_at"}
    ),
    "derived_instance": frozenset(
        {
            "set_id", "position", "kind", "sop_class_uid", "sop_instance_uid",
            "series_instance_uid", "sha256", "size_bytes", "purged_at",
        }
    ),
    "delivery": frozenset({"set_id", "derived_instance_id", "destination", "state", "status"}),
    "paused_destination": frozenset({"destination", "reason", "since"}),
    "commitment": frozenset(
        {"transaction_uid", "set_id", "destination", "requested_at", "answered_at"}
    ),
}  # fmt: skip
#: columns that the log does not tell, and why that is no loss
NOT_COMPARED: Final[Mapping[str, str]] = {
    "study.last_run": "run of the receiver, for the wait after a restart",
    "instance.path": "follows from sha256",
    "quarantine.id": "a number without a meaning",
    "quarantine.path": "follows from sha256",
    "derived_instance.id": "a number without a meaning; its deliveries are compared by it",
    "delivery.id": "a number without a meaning",
    "delivery.attempts": "trials of an open circuit breaker have no row",
    "delivery.reason": "of the last failure; trials of an open circuit breaker have no row",
    "delivery.changed_at": "of the last failure; trials of an open circuit breaker have no row",
}
#: tables whose rows are no facts about a series: clocks and questions that are asked again
BOOKKEEPING: Final = frozenset({"listening", "inquiry"})
#: time between a row of a table and the row of the log in its transaction, at most
_TOGETHER: Final = timedelta(seconds=60)
_PAGE: Final = 200

#: raised by values that this software never writes
MALFORMED: Final = (LookupError, TypeError, ValueError, AttributeError)
Comparison = Callable[[Session], Iterator[AuditDifference]]
_INSTANCE: Final = (
    InstanceRow.id, InstanceRow.sop_instance_uid, InstanceRow.sop_class_uid,
    InstanceRow.series_instance_uid, InstanceRow.study_instance_uid,
    InstanceRow.transfer_syntax_uid, InstanceRow.sha256, InstanceRow.size_bytes,
    InstanceRow.calling_ae_title, InstanceRow.received_at,
)  # fmt: skip


class FactCheck:
    """Follows the log and compares the fact tables with it.

    Parameters
    ----------
    before : int
        Sequence of the last row that retention removed; 0 where the log is whole.
    """

    def __init__(self, before: int = 0) -> None:
        self._replay = FactReplay(sealed=before > 0)
        self._instances = _InstanceCheck(self._replay)
        self._unreadable: list[AuditDifference] = []

    def observe(self, session: Session, rows: Sequence[Sequence[Any]]) -> None:
        """Follow rows of the log, and compare the instances that they tell of."""
        received: list[tuple[str, str, Mapping[str, Any]]] = []
        apply = self._replay.apply
        for sequence, recorded_at, _, event, subject, details, *_ in rows:
            if event not in FOLLOWED:
                continue
            try:
                told = json.loads(details)
                apply(event, subject, recorded_at, told)
                if event == Event.INSTANCE_RECEIVED:
                    received.append((subject, recorded_at, told))
            except MALFORMED:
                self._refuse(f"row {sequence}")
        try:
            self._instances.observe(session, received)
        except MALFORMED:
            self._refuse(f"one of the rows {rows[0][0]} to {rows[-1][0]}")

    def _refuse(self, what: str) -> None:
        sentence = f"{what} of the log says what this software never writes"
        self._unreadable.append(_difference("audit_event", sentence))

    def comparisons(self) -> Iterator[Comparison]:
        """Yield the comparisons; each may be called in a session of its own."""
        yield self._said_before
        yield self._instances.compare
        yield self._quarantine
        yield self._studies
        yield self._series
        yield self._sets
        yield self._orphans
        for begin in range(0, len(self._replay.sets), _PAGE):
            yield _SetPage(self._replay, sorted(self._replay.sets)[begin : begin + _PAGE]).compare
        yield self._others

    def _said_before(self, session: Session) -> Iterator[AuditDifference]:  # noqa: ARG002 - one signature for all
        yield from self._unreadable

    def _studies(self, session: Session) -> Iterator[AuditDifference]:
        held = {row.study_instance_uid: row for row in session.scalars(select(StudyRow))}
        yield from _unmatched("study", held, self._replay.studies, self._replay.sealed)
        for uid, told in self._replay.studies.items():
            row = held.get(uid)
            if row is None:
                continue
            states = [self._replay.series[name].state for name in told.series]
            waits = any(state is not UNKNOWN and state == "complete" for state in states)
            allowed = {True: {"receiving"}, False: {"complete"} if waits else _OPEN, None: _ANY}
            if row.state not in allowed[told.receiving]:
                yield _differs("study", uid, "state", row.state)
            if told.count not in (None, row.instance_count):
                yield _differs("study", uid, "instance_count", row.instance_count)
            if told.last_ledger_id not in (0, row.last_ledger_id):
                yield _differs("study", uid, "last_ledger_id", row.last_ledger_id)

    def _series(self, session: Session) -> Iterator[AuditDifference]:
        held = {row.series_instance_uid: row for row in session.scalars(select(SeriesRow))}
        yield from _unmatched("series", held, self._replay.series, self._replay.sealed)
        again = select(DerivedSetRow.source_series_uid).where(
            DerivedSetRow.id.in_(self._replay.reopened)
        )
        reopened = set(session.scalars(again)) if self._replay.reopened else set()
        for uid, told in self._replay.series.items():
            row = held.get(uid)
            if row is None:
                continue
            pairs: list[tuple[str, Any, Any]] = [
                ("study_instance_uid", told.study, row.study_instance_uid),
                ("revision", told.revision, row.revision),
                ("completeness", told.completeness, row.completeness),
                ("completeness_reason", told.reason, row.completeness_reason),
                ("findings", told.findings, row.findings),
                ("explanation", told.explanation, list(row.explanation)),
            ]
            if uid not in reopened:
                pairs += [("state", told.state, row.state)]
                pairs += [("changed_at", _near(told.changed_at, row.changed_at), row.changed_at)]
            if told.count is not None:
                pairs += [("instance_count", told.count, row.instance_count)]
            for column, wanted, found in pairs:
                if wanted != found:
                    yield _differs("series", uid, column, found)

    def _quarantine(self, session: Session) -> Iterator[AuditDifference]:
        told = dict(self._replay.versions)
        told.update(self._instances.replaced(session))
        held = {
            (row.sop_instance_uid, row.sha256): row
            for row in session.scalars(select(QuarantineRow))
        }
        yield from _unmatched("quarantine", held, told, self._replay.sealed)
        for key, version in told.items():
            row = held.get(key)
            if row is None:
                continue
            said = version.details
            pairs = (
                ("size_bytes", said.get("size_bytes", UNKNOWN), row.size_bytes),
                ("calling_ae_title", said.get("calling_ae_title", UNKNOWN), row.calling_ae_title),
                ("reason", said.get("reason", UNKNOWN), row.reason),
                ("sop_class_uid", said.get("sop_class", UNKNOWN), row.sop_class_uid),
                ("series_instance_uid", said.get("series", UNKNOWN), row.series_instance_uid),
                ("study_instance_uid", said.get("study", UNKNOWN), row.study_instance_uid),
                (
                    "transfer_syntax_uid",
                    said.get("transfer_syntax", UNKNOWN),
                    row.transfer_syntax_uid,
                ),
                ("disputed_series_uid", version.disputed, row.disputed_series_uid),
                ("decision", version.decision, row.decision),
                ("received_at", _near(version.received_at, row.received_at), row.received_at),
            )
            for column, wanted, found in pairs:
                if wanted != found:
                    yield _differs("quarantine", key[0], column, found)

    def _sets(self, session: Session) -> Iterator[AuditDifference]:
        held = {row.id: row for row in session.scalars(select(DerivedSetRow))}
        yield from _unmatched("derived_set", held, self._replay.sets, self._replay.sealed)
        for number, told in self._replay.sets.items():
            row = held.get(number)
            if row is None:
                continue
            provenance = json.dumps(row.provenance, sort_keys=True).encode()
            pairs = (
                ("source_series_uid", told.series, row.source_series_uid),
                ("study_instance_uid", told.study, row.study_instance_uid),
                ("revision", told.revision, row.revision),
                ("provenance", told.provenance, hashlib.sha256(provenance).hexdigest()),
                ("created_at", _near(told.created_at, row.created_at), row.created_at),
            )
            for column, wanted, found in pairs:
                if wanted != found:
                    yield _differs("derived_set", str(number), column, found)

    def _orphans(self, session: Session) -> Iterator[AuditDifference]:
        """Find objects and deliveries of sets that there are not, or that the log does not tell."""
        sets = select(DerivedSetRow.id)
        for table in (DerivedInstanceRow, DeliveryRow):
            query = select(table.set_id).where(table.set_id.not_in(sets)).distinct()
            for number in session.scalars(query):
                yield _difference(table.__tablename__, f"a row names set {number}, which is not")
        if not self._replay.sealed:
            pairs = select(DeliveryRow.set_id, DeliveryRow.destination).distinct()
            for number, name in session.execute(pairs):
                if (number, name) not in self._replay.deliveries:
                    sentence = f"set {number} has rows for {name!r}, of which the log does not tell"
                    yield _difference("delivery", sentence)
        purged = (
            select(DerivedInstanceRow.sop_instance_uid, DerivedSetRow)
            .join(DerivedSetRow, DerivedSetRow.id == DerivedInstanceRow.set_id)
            .where(DerivedInstanceRow.purged_at.is_not(None))
        )
        if not self._replay.sealed:
            for uid, row in session.execute(purged):
                places = {row.source_series_uid, row.study_instance_uid}
                if not places & self._replay.purged and uid not in self._replay.lost:
                    yield _differs("derived_instance", uid, "purged_at", "a time")

    def _others(self, session: Session) -> Iterator[AuditDifference]:
        paused = {row.destination: row for row in session.scalars(select(PausedDestinationRow))}
        yield from _unmatched(
            "paused_destination", paused, self._replay.paused, self._replay.sealed
        )
        for name, (reason, at) in self._replay.paused.items():
            if name in paused:
                row = paused[name]
                if row.reason != reason:
                    yield _differs("paused_destination", name, "reason", row.reason)
                if _near(at, row.since) != row.since:
                    yield _differs("paused_destination", name, "since", row.since)
        asked = {row.transaction_uid: row for row in session.scalars(select(CommitmentRow))}
        told = self._replay.commitments
        yield from _unmatched("commitment", asked, told, self._replay.sealed)
        for uid, (number, name, at, answered) in told.items():
            if uid not in asked:
                continue
            request = asked[uid]
            pairs = (
                ("set_id", number, request.set_id),
                ("destination", name, request.destination),
                ("requested_at", _near(at, request.requested_at), request.requested_at),
                ("answered_at", _near(answered, request.answered_at), request.answered_at),
            )
            for column, wanted, found in pairs:
                if wanted != found:
                    yield _differs("commitment", uid, column, found)


class _InstanceCheck:
    """Compares rows of `instance` with the rows of the log that were written with them."""

    def __init__(self, replay: FactReplay) -> None:
        self._replay = replay
        self._last: int | None = None if replay.sealed else 0
        #: instances that do not agree at once: perhaps a dispute took other bytes
        self._odd: set[str] = set()

    def observe(
        self, session: Session, received: Sequence[tuple[str, str, Mapping[str, Any]]]
    ) -> None:
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
            yield _difference("instance", "there are newer rows than the log tells of")
        if not self._replay.sealed:
            yield from self._purged(session)

    def _compare(self, session: Session, uid: str) -> Iterator[AuditDifference]:
        query = select(*_INSTANCE).where(InstanceRow.sop_instance_uid == uid)
        cursor: Any = session.connection().execute(query).cursor
        row, first = cursor.fetchone(), self._first(session, uid)
        if first is None:
            if row is not None and not self._replay.sealed:
                yield _difference("instance", f"the log does not tell of instance {uid}")
            return
        if row is None:
            yield _difference("instance", f"instance {uid} is missing; the log tells of it")
            return
        versions = self._replay.taken.get(uid)
        told, at = first.details, first.received_at
        if versions:
            newest = versions[-1]
            told, at = {**newest.details, "ledger_id": told["ledger_id"]}, newest.received_at
        for column, wanted, found in _pairs(row, uid, at, told):
            if wanted != found:
                yield _differs("instance", uid, column, found)

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
                    yield _differs("instance", uid, "purged_at", "a time")


class _SetPage:
    """Compares objects and deliveries of some sets."""

    def __init__(self, replay: FactReplay, numbers: Sequence[int]) -> None:
        self._replay, self._numbers = replay, numbers

    def compare(self, session: Session) -> Iterator[AuditDifference]:
        yield from self._objects(session)
        yield from self._deliveries(session)

    def _objects(self, session: Session) -> Iterator[AuditDifference]:
        of_set = DerivedInstanceRow.set_id
        query = select(of_set, *OBJECT_COLUMNS).where(of_set.in_(self._numbers))
        rows = session.execute(query.order_by(of_set, DerivedInstanceRow.position)).all()
        found = {number: [r[1:] for r in group] for number, group in groupby(rows, itemgetter(0))}
        for number in self._numbers:
            if not _is_manifest(self._replay.sets[number], found.get(number, [])):
                sentence = f"the objects of set {number} are not those that the log tells of"
                yield _difference("derived_instance", sentence)

    def _deliveries(self, session: Session) -> Iterator[AuditDifference]:
        of_set = DeliveryRow.set_id, DeliveryRow.destination
        query = select(*of_set, *DELIVERY_COLUMNS).where(DeliveryRow.set_id.in_(self._numbers))
        order = *of_set, DeliveryRow.derived_instance_id
        rows = session.execute(query.order_by(*order)).all()
        found = {key: digest_of(r[2:] for r in g) for key, g in groupby(rows, itemgetter(0, 1))}
        numbers = set(self._numbers)
        for key, digest in self._replay.deliveries.items():
            if key[0] not in numbers:
                continue
            if key not in found or digest != found[key]:
                sentence = f"set {key[0]} for {key[1]!r} does not stand as the log tells"
                yield _difference("delivery", sentence)


def _is_manifest(told: SetFacts, rows: Sequence[Sequence[Any]]) -> bool:
    if told.manifest is not UNKNOWN:
        return bool(told.manifest == digest_of(rows))
    digests = [row[5] for row in rows]  # an earlier version told of the SHA-256 alone
    for count in range(len(digests), 0, -1):  # rejection notes may have come later
        if hashlib.sha256("".join(digests[:count]).encode()).hexdigest() == told.sha256:
            return True
    return False


def _is_told(row: Sequence[Any], uid: str, at: str, told: Mapping[str, Any]) -> bool:
    is_equal = tuple(row[:-1]) == _wanted(uid, told)
    return is_equal and (row[-1][:17] == at[:17] or _near(at, row[-1]) == row[-1])


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
    wanted = (*_wanted(uid, told), _near(at, row[-1]))
    for column, value, found in zip(_INSTANCE, wanted, row, strict=True):
        yield column.key, value, found


def _near(told: Any, found: Any) -> Any:
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


def _unmatched(
    table: str, held: Mapping[Any, Any], told: Mapping[Any, Any], sealed: bool
) -> Iterator[AuditDifference]:
    """Find rows of which the log does not tell, and rows that it tells of and that are missing."""
    for key in sorted(told.keys() - held.keys()):
        yield _difference(table, f"the row of {_name(key)} is missing; the log tells of it")
    if not sealed:
        for key in sorted(held.keys() - told.keys()):
            yield _difference(table, f"the log does not tell of the row of {_name(key)}")


def _name(key: object) -> str:
    return str(key[0] if isinstance(key, tuple) else key)


def _differs(table: str, subject: str, column: str, found: object) -> AuditDifference:
    sentence = f"{table}.{column} of {subject} is {found!s:.80}; the audit log tells another value"
    return _difference(table, sentence)


def _difference(table: str, sentence: str) -> AuditDifference:
    return AuditDifference(kind="fact", subject=table, sentence=sentence)


_OPEN: Final = frozenset({"complete", "judged"})
_ANY: Final = frozenset({"receiving", "complete", "judged"})
