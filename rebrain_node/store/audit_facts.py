"""Holds the fact tables against what the audit log says of them (`store.audit_replay`).

Compared are the columns of `COMPARED`; the others are bookkeeping that has no row of the log, and
stand with the reason in `NOT_COMPARED`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import AuditDifference, Event
from rebrain_node.store.audit_instances import InstanceCheck, difference, differs, near
from rebrain_node.store.audit_replay import (
    FOLLOWED,
    UNKNOWN,
    FactReplay,
    SetFacts,
)
from rebrain_node.store.fact_digests import (
    DELIVERY_COLUMNS,
    OBJECT_COLUMNS,
    digest_of,
    sha256_of,
)
from rebrain_node.store.tables import (
    CommitmentRow,
    DeliveryRow,
    DeliveryStopRow,
    DerivedInstanceRow,
    DerivedSetRow,
    PausedDestinationRow,
    QuarantineRow,
    SeriesRow,
    StudyRow,
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
        {
            "id", "source_series_uid", "study_instance_uid", "revision", "provenance",
            "created_at", "manifest",
        }
    ),
    "derived_instance": frozenset(
        {
            "set_id", "position", "kind", "sop_class_uid", "sop_instance_uid",
            "series_instance_uid", "sha256", "size_bytes", "purged_at",
        }
    ),
    "delivery": frozenset({"set_id", "derived_instance_id", "destination", "state", "status"}),
    "paused_destination": frozenset({"destination", "reason", "since"}),
    "delivery_stop": frozenset({"rule", "reason", "since"}),
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
#: (what receivers were notified of and how workitems ended stands on the log, one event each)
BOOKKEEPING: Final = frozenset(
    {"listening", "inquiry", "notification", "workitem", "audit_queue", "executor", "duty"}
)
_PAGE: Final = 200

#: raised by values that this software never writes
MALFORMED: Final = (LookupError, TypeError, ValueError, AttributeError)
Comparison = Callable[[Session], Iterator[AuditDifference]]


class FactCheck:
    """Follows the log and compares the fact tables with it.

    Parameters
    ----------
    before : int
        Sequence of the last row that retention removed; 0 where the log is whole.
    """

    def __init__(self, before: int = 0) -> None:
        self._replay = FactReplay(sealed=before > 0)
        self._instances = InstanceCheck(self._replay)
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
        self._unreadable.append(difference("audit_event", sentence))

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
                yield differs("study", uid, "state", row.state)
            if told.count not in (None, row.instance_count):
                yield differs("study", uid, "instance_count", row.instance_count)
            if told.last_ledger_id not in (0, row.last_ledger_id):
                yield differs("study", uid, "last_ledger_id", row.last_ledger_id)

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
                pairs += [("changed_at", near(told.changed_at, row.changed_at), row.changed_at)]
            if told.count is not None:
                pairs += [("instance_count", told.count, row.instance_count)]
            for column, wanted, found in pairs:
                if wanted != found:
                    yield differs("series", uid, column, found)

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
                ("received_at", near(version.received_at, row.received_at), row.received_at),
            )
            for column, wanted, found in pairs:
                if wanted != found:
                    yield differs("quarantine", key[0], column, found)

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
                ("created_at", near(told.created_at, row.created_at), row.created_at),
                ("manifest", told.signed_manifest, sha256_of(row.manifest)),
            )
            for column, wanted, found in pairs:
                if wanted != found:
                    yield differs("derived_set", str(number), column, found)

    def _orphans(self, session: Session) -> Iterator[AuditDifference]:
        """Find objects and deliveries of sets that there are not, or that the log does not tell."""
        sets = select(DerivedSetRow.id)
        for table in (DerivedInstanceRow, DeliveryRow):
            query = select(table.set_id).where(table.set_id.not_in(sets)).distinct()
            for number in session.scalars(query):
                yield difference(table.__tablename__, f"a row names set {number}, which is not")
        if not self._replay.sealed:
            pairs = select(DeliveryRow.set_id, DeliveryRow.destination).distinct()
            for number, name in session.execute(pairs):
                if (number, name) not in self._replay.deliveries:
                    sentence = f"set {number} has rows for {name!r}, of which the log does not tell"
                    yield difference("delivery", sentence)
        purged = (
            select(DerivedInstanceRow.sop_instance_uid, DerivedSetRow)
            .join(DerivedSetRow, DerivedSetRow.id == DerivedInstanceRow.set_id)
            .where(DerivedInstanceRow.purged_at.is_not(None))
        )
        if not self._replay.sealed:
            for uid, row in session.execute(purged):
                places = {row.source_series_uid, row.study_instance_uid}
                if not places & self._replay.purged and uid not in self._replay.lost:
                    yield differs("derived_instance", uid, "purged_at", "a time")

    def _others(self, session: Session) -> Iterator[AuditDifference]:
        paused = {row.destination: row for row in session.scalars(select(PausedDestinationRow))}
        yield from self._switches("paused_destination", paused, self._replay.paused)
        stops = {row.rule: row for row in session.scalars(select(DeliveryStopRow))}
        yield from self._switches("delivery_stop", stops, self._replay.stops)
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
                ("requested_at", near(at, request.requested_at), request.requested_at),
                ("answered_at", near(answered, request.answered_at), request.answered_at),
            )
            for column, wanted, found in pairs:
                if wanted != found:
                    yield differs("commitment", uid, column, found)

    def _switches(
        self,
        table: str,
        held: Mapping[str, PausedDestinationRow] | Mapping[str, DeliveryStopRow],
        told: Mapping[str, tuple[Any, str]],
    ) -> Iterator[AuditDifference]:
        """Compare what is stopped or paused, with reason and time."""
        yield from _unmatched(table, held, told, self._replay.sealed)
        for name, (reason, at) in told.items():
            if name in held:
                row = held[name]
                if row.reason != reason:
                    yield differs(table, name, "reason", row.reason)
                if near(at, row.since) != row.since:
                    yield differs(table, name, "since", row.since)


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
                yield difference("derived_instance", sentence)

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
                yield difference("delivery", sentence)


def _is_manifest(told: SetFacts, rows: Sequence[Sequence[Any]]) -> bool:
    if told.manifest is not UNKNOWN:
        return bool(told.manifest == digest_of(rows))
    digests = [row[5] for row in rows]  # an earlier version told of the SHA-256 alone
    for count in range(len(digests), 0, -1):  # rejection notes may have come later
        if hashlib.sha256("".join(digests[:count]).encode()).hexdigest() == told.sha256:
            return True
    return False


def _unmatched(
    table: str, held: Mapping[Any, Any], told: Mapping[Any, Any], sealed: bool
) -> Iterator[AuditDifference]:
    """Find rows of which the log does not tell, and rows that it tells of and that are missing."""
    for key in sorted(told.keys() - held.keys()):
        yield difference(table, f"the row of {_name(key)} is missing; the log tells of it")
    if not sealed:
        for key in sorted(held.keys() - told.keys()):
            yield difference(table, f"the log does not tell of the row of {_name(key)}")


def _name(key: object) -> str:
    return str(key[0] if isinstance(key, tuple) else key)


_OPEN: Final = frozenset({"complete", "judged"})
_ANY: Final = frozenset({"receiving", "complete", "judged"})
