"""The audit log: append-only rows in a hash chain, written with the change they tell of.

hash(n) = SHA-256(hash(n-1) || row(n)), with hash(0) sixty-four zeros, hashes as lower-case
hexadecimal and row(n) the JSON array [sequence, recorded_at, monotonic_ns, event, subject,
details] without spaces, in ASCII. A chain shows changed, missing and reordered rows; signed
checkpoints (`store.checkpoints`) show a chain that was computed again; only what is held elsewhere
(the report sent to the PACS carries a checkpoint) shows an old copy put back. Where retention
removed rows, the chain begins after the newest seal.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import AuditEvent, ChainVerdict, Checkpoint, Event
from rebrain_node.errors import StateError, StoreUnavailableError
from rebrain_node.ports import JsonValue
from rebrain_node.store.database import Database
from rebrain_node.store.fact_digests import fact_details
from rebrain_node.store.statements import DriverTransaction, Statement
from rebrain_node.store.tables import (
    AuditHead,
    AuditRow,
    CheckpointRow,
    DerivedSetRow,
    InstanceRow,
    SeriesRow,
    utc_text,
)

#: called with each page of good rows and the session that read them
Observer = Callable[[Session, Sequence[Sequence[Any]]], None]

#: hash of the chain before its first row
GENESIS = "0" * 64
#: rows verified under one read lock, so that a long verification never holds up the receiver
_PAGE = 5000

_KNOWN = frozenset(Event)
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
)
_COLUMNS = (
    AuditRow.sequence, AuditRow.recorded_at, AuditRow.monotonic_ns,
    AuditRow.event, AuditRow.subject, AuditRow.details, AuditRow.hash,
)  # fmt: skip
_quoted = encode_basestring_ascii
_NAMES = tuple(column.key for column in _COLUMNS)
_DETAILS = _NAMES.index("details")
#: events about a destination whose details name the set
_OF_SETS = (
    Event.DELIVERY_TAKEN, Event.DELIVERY_FAILED, Event.DELIVERY_REFUSED, Event.DELIVERY_HELD,
    Event.DELIVERY_VERIFIED, Event.COMMITMENT_REQUESTED, Event.COMMITMENT_ANSWERED,
    Event.DELIVERY_RETRIED, Event.DELIVERY_CANCELLED, Event.DELIVERY_WITHDRAWN,
    Event.NOTIFICATION_SENT, Event.NOTIFICATION_FAILED, Event.NOTIFICATION_REFUSED,
    Event.NOTIFICATION_RETRIED, Event.NOTIFICATION_CANCELLED,
)  # fmt: skip
_HEAD = select(AuditHead.sequence, AuditHead.hash)
_GET_HEAD = Statement(_HEAD)
_INSERT = Statement(insert(AuditRow.metadata.tables[AuditRow.__tablename__]))
_SET_HEAD = Statement(
    update(AuditHead.metadata.tables[AuditHead.__tablename__]).values(
        sequence=bindparam("new_sequence"), hash=bindparam("new_hash")
    )
)


def append(
    session: Session | DriverTransaction,
    event: str,
    subject: str,
    details: Mapping[str, JsonValue],
) -> int:
    """Append one row inside the caller's writing transaction; its sequence.

    Raises
    ------
    StateError
        The event is not in the closed list, the details are not JSON, or the log has no head.
    """
    if isinstance(session, Session):  # the other transaction writes received instances alone
        details = fact_details(session, event, subject, details)
    head = _GET_HEAD.run(session)
    if head is None:
        raise StateError("the audit log has no head; restore the database from a backup")
    sequence, previous = head
    row: tuple[int, str, int, str, str, str] = (
        sequence + 1,
        utc_text(datetime.now(UTC)),
        time.monotonic_ns(),
        _known(event),
        _printable(subject),
        _canonical(details),
    )
    digest = _row_hash(previous, row)
    _INSERT.run(session, **dict(zip(_NAMES, (*row, digest), strict=True)))
    _SET_HEAD.run(session, new_sequence=row[0], new_hash=digest)
    return row[0]


class AuditLog:
    """The audit log of one database (port ``AuditLog``).

    Parameters
    ----------
    folder : Path, optional
        Folder of the node's state, which holds the key that signs checkpoints; without one there
        are none.
    """

    def __init__(self, database: Database, folder: Path | None = None) -> None:
        self._database = database
        self._folder = folder

    def checkpoint(self) -> Checkpoint | None:
        """Sign the newest row, once; None before the first row, or where no folder is known.

        Raises
        ------
        KeyFileError
            The key of the node is missing or open to other users.
        StoreUnavailableError
            The checkpoint could not be written.
        """
        if self._folder is None:
            return None
        from rebrain_node.store.checkpoints import Checkpoints  # not in the receiver: cryptography

        return Checkpoints(self._database, self._folder).write()

    def record(self, event: str, subject: str, details: Mapping[str, JsonValue]) -> None:
        """Append one row in a transaction of its own.

        Raises
        ------
        StateError
            The event is not in the closed list, or the details are not JSON.
        StoreUnavailableError
            The row could not be written; the caller must stop.
        """
        with self._database.writing() as session:
            append(session, event, subject, details)

    def events(
        self,
        limit: int,
        *,
        subject: str | None = None,
        event: str | None = None,
        since: datetime | None = None,
        before: int | None = None,
        until: datetime | None = None,
    ) -> tuple[AuditEvent, ...]:
        """Read the newest ``limit`` rows that match, oldest first; those before a sequence."""
        query = select(*_COLUMNS).order_by(AuditRow.sequence.desc()).limit(limit)
        if before is not None:
            query = query.where(AuditRow.sequence < before)
        if subject is not None:
            query = query.where(AuditRow.subject == _printable(subject))
        if event is not None:
            query = query.where(AuditRow.event == _known(event))
        if since is not None:
            query = query.where(AuditRow.recorded_at >= utc_text(since))
        if until is not None:
            query = query.where(AuditRow.recorded_at <= utc_text(until))
        with self._database.reading() as session:
            rows = session.execute(query).all()
        return tuple(_any_event(row) for row in reversed(rows))

    def about_series(self, series_instance_uid: str) -> tuple[AuditEvent, ...]:
        """Read every row about a series, its study, its instances and its results, in order."""
        study = (
            select(SeriesRow.study_instance_uid)
            .where(SeriesRow.series_instance_uid == series_instance_uid)
            .scalar_subquery()
        )
        instances = select(InstanceRow.sop_instance_uid).where(
            InstanceRow.series_instance_uid == series_instance_uid
        )
        sets = select(DerivedSetRow.id).where(
            DerivedSetRow.source_series_uid == series_instance_uid
        )
        about_study = (AuditRow.event == str(Event.STUDY_COMPLETE)) & (AuditRow.subject == study)
        query = select(*_COLUMNS).where(
            (AuditRow.subject == series_instance_uid)
            | AuditRow.subject.in_(instances)
            | about_study
        )
        with self._database.reading() as session:
            rows = {row[0]: row for row in session.execute(query)}
            for set_id in session.scalars(sets):
                named = AuditRow.details.contains(f'"set":{set_id}')  # or a longer number
                deliveries = select(*_COLUMNS).where(AuditRow.event.in_(_OF_SETS), named)
                for row in session.execute(deliveries):
                    if read_details(str(row[_DETAILS])).get("set") == set_id:
                        rows[row[0]] = row
        return tuple(_any_event(rows[sequence]) for sequence in sorted(rows))

    def event(self, sequence: int) -> AuditEvent | None:
        """Read one row; None where there is none."""
        with self._database.reading() as session:
            row = session.execute(select(*_COLUMNS).where(AuditRow.sequence == sequence)).first()
        return None if row is None else _any_event(row)

    def stream(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> Iterator[AuditEvent]:
        """Read every row, oldest first and page by page, recorded from ``since`` to ``until``."""
        last = self.begin()[0]
        while True:
            with self._database.reading() as session:
                rows = read_rows(session, last, last + _PAGE)
                end = session.execute(select(AuditHead.sequence)).scalar_one()
            for event in map(_any_event, rows):
                if (since is None or event.recorded_at >= since) and (
                    until is None or event.recorded_at < until
                ):
                    yield event
            last += _PAGE
            if last >= end:
                return

    def head(self) -> tuple[int, str]:
        """Sequence and hash of the newest row; (0, zeros) before the first."""
        with self._database.reading() as session:
            sequence, digest = session.execute(_HEAD).one()
        return sequence, digest

    def verify(
        self,
        progress: Callable[[int, int], None] | None = None,
        observe: Observer | None = None,
    ) -> ChainVerdict:
        """Recompute the whole chain; the first row that is not as it was written is named.

        Parameters
        ----------
        progress : callable, optional
            Called with rows done and rows in all, every few thousand rows.
        observe : callable, optional
            Called with each page of good rows and the session that read them.

        Raises
        ------
        StoreUnavailableError
            The database does not answer.
        """
        start = self.begin()
        verdict = self._verify(start, progress, observe)
        if observe is None and not verdict.intact and self.begin() != start:
            return self.verify(progress)  # retention removed rows meanwhile
        return verdict

    def begin(self) -> tuple[int, str]:
        """Sequence and hash of the row before the first one: of the newest seal, or (0, zeros)."""
        newest = (
            select(CheckpointRow.sequence, CheckpointRow.hash)
            .where(CheckpointRow.kind == "seal")
            .order_by(CheckpointRow.number.desc())
            .limit(1)
        )
        with self._database.reading() as session:
            found = session.execute(newest).first()
        return (0, GENESIS) if found is None else (found[0], found[1])

    def _verify(
        self,
        start: tuple[int, str],
        progress: Callable[[int, int], None] | None,
        observe: Observer | None,
    ) -> ChainVerdict:
        end, end_hash = self.head()
        good, previous = start
        for after in range(start[0], end, _PAGE):
            for rows, session in self._page(after, min(after + _PAGE, end)):
                for row in rows:
                    if row[0] != good + 1:
                        return _broken(good, previous, f"row {good + 1} is missing")
                    if not is_chained(previous, row):
                        return _broken(good, previous, f"row {good + 1} is not as it was written")
                    good, previous = good + 1, row[-1]
                if observe is not None and session is not None:
                    observe(session, rows)
            if progress is not None:
                progress(good - start[0], end - start[0])
        if good < end:
            return _broken(good, previous, f"row {good + 1} is missing; the head names {end} rows")
        if previous != end_hash:
            return _broken(good, previous, f"the head names another row {good} than this one")
        return self._nothing_beyond(start[0], good, previous)

    def _page(
        self, after: int, last: int
    ) -> Iterator[tuple[Sequence[Sequence[Any]], Session | None]]:
        """Read some rows with the session that is open; one that is unreadable has no columns."""
        try:
            with self._database.reading() as session:
                rows = read_rows(session, after, last)
                yield rows, session
                return
        except StoreUnavailableError:
            self.head()  # raises where the database is away and not only a row unreadable
        yield self._one_by_one(after, last), None

    def _one_by_one(self, after: int, last: int) -> Sequence[Sequence[Any]]:
        rows: list[Sequence[Any]] = []
        for sequence in range(after + 1, last + 1):
            try:
                with self._database.reading() as session:
                    rows.extend(read_rows(session, sequence - 1, sequence))
            except StoreUnavailableError:
                rows.append((sequence, *[None] * (len(_COLUMNS) - 1)))
        return rows

    def _nothing_beyond(self, before: int, good: int, head: str) -> ChainVerdict:
        with self._database.reading() as session:
            end = session.execute(select(AuditHead.sequence)).scalar_one()
            held = session.execute(select(func.count()).select_from(AuditRow)).scalar_one()
        if held != end - before:
            reason = f"the table holds {held} rows, the head names {end - before}"
            return _broken(good, head, reason)
        return ChainVerdict(intact=True, rows=good - before, head=head, first=before + 1)


def read_rows(session: Session, after: int, last: int | None) -> Sequence[Sequence[Any]]:
    """Read the rows after ``after`` to ``last`` as the driver gives them."""
    query = select(*_COLUMNS).where(AuditRow.sequence > after).order_by(AuditRow.sequence)
    if last is not None:
        query = query.where(AuditRow.sequence <= last)
    cursor: Any = session.connection().execute(query).cursor
    rows: Sequence[Sequence[Any]] = cursor.fetchall()
    return rows


def read_events(session: Session, after: int, limit: int) -> tuple[AuditEvent, ...]:
    """Read the first ``limit`` rows after ``after``; one that is unreadable has no details."""
    query = select(*_COLUMNS).where(AuditRow.sequence > after).order_by(AuditRow.sequence)
    return tuple(_any_event(row) for row in session.execute(query.limit(limit)))


def _any_event(row: Sequence[Any]) -> AuditEvent:
    try:
        return _event(row)
    except (ValueError, TypeError):  # a tampered row: `AuditCheck` says so
        pass
    try:
        at = datetime.fromisoformat(row[1])
    except (ValueError, TypeError):
        at = datetime.now(UTC)
    return AuditEvent(
        sequence=row[0], recorded_at=at, monotonic_ns=0, event=str(row[3]), subject=str(row[4]),
        details=_Details(), hash=str(row[6]),
    )  # fmt: skip


class _Details(dict[str, Any]):
    """Details of a row as they were written; what was taken out of them is no defect of a reader.

    So the log can be listed, and what needs the details says why it does not go on.
    """

    def __missing__(self, key: str) -> NoReturn:
        raise StateError(
            f"a row of the audit log has no {key!r}, so it is not as it was written; run "
            "`rebrain-node audit verify`, and keep its output"
        )


def read_details(text: str) -> dict[str, Any]:
    """Read the details of a row; of one that cannot be read there are none.

    Asked for what is not there, they raise StateError.
    """
    try:
        return _Details(json.loads(text))
    except (ValueError, TypeError):
        return _Details()


def _broken(good: int, head: str, reason: str) -> ChainVerdict:
    return ChainVerdict(intact=False, rows=good, head=head, broken_sequence=good + 1, reason=reason)


def _row_hash(previous: str, row: Sequence[Any]) -> str:
    return hashlib.sha256((previous + _CANONICAL.encode([*row])).encode("ascii")).hexdigest()


def is_chained(previous: str, row: Sequence[Any]) -> bool:
    """Whether the last column of a row is its hash after ``previous``."""
    sequence, recorded_at, monotonic_ns, event, subject, details, digest = row
    try:
        text = (
            f"{previous}[{sequence:d},{_quoted(recorded_at)},{monotonic_ns:d},{_quoted(event)},"
            f"{_quoted(subject)},{_quoted(details)}]"
        )
    except (TypeError, ValueError):  # columns that no row of ours can hold
        return False
    return bool(hashlib.sha256(text.encode("ascii")).hexdigest() == digest)


def _known(event: str) -> str:
    if event not in _KNOWN:
        raise StateError(
            f"{event!r} is no audit event; docs/audit-events.md lists all, `rebrain-node audit "
            "list` shows those that happened"
        )
    return str(event)


def _printable(subject: str) -> str:
    """Write what a peer may have chosen (an AE title, a UID) as printable ASCII."""
    return subject.encode("unicode_escape").decode("ascii")


def _canonical(details: Mapping[str, JsonValue]) -> str:
    try:
        return _CANONICAL.encode(details)
    except (TypeError, ValueError) as error:
        raise StateError(f"details of an audit event are not JSON: {error}") from error


def _event(row: Sequence[Any]) -> AuditEvent:
    sequence, recorded_at, monotonic_ns, event, subject, details, digest = row
    return AuditEvent(
        sequence=sequence,
        recorded_at=datetime.fromisoformat(recorded_at),
        monotonic_ns=monotonic_ns,
        event=event,
        subject=subject,
        details=_Details(json.loads(details)),
        hash=digest,
    )
