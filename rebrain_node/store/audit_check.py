"""Whether the audit log is as it was written: chain, checkpoints, triggers, and the fact tables.

The log is read once, page by page; what changes meanwhile is read on before each comparison, so
that a running node is neither held up nor accused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import AuditDifference, ChainVerdict
from rebrain_node.store.audit import AuditLog, is_chained, read_rows
from rebrain_node.store.audit_facts import MALFORMED, FactCheck
from rebrain_node.store.checkpoints import (
    checkpoint_differences,
    checkpoint_fault,
    newest_checkpoint,
    read_checkpoints,
    read_witness,
    witness_differences,
    witness_end_fault,
)
from rebrain_node.store.database import Database
from rebrain_node.store.tables import AuditHead, AuditRow, DerivedInstanceRow
from rebrain_node.store.triggers import trigger_differences

#: at most so many differences are listed
_LISTED = 1000


@dataclass(frozen=True, kw_only=True)
class LogReading:
    """What database and log have of what somebody else names."""

    first: int  #: sequence of the first row of the log
    hashes: Mapping[int, str]  #: by sequence
    objects: frozenset[str]  #: SOP Instance UIDs


class AuditCheck:
    """Checks the audit log of one database.

    Parameters
    ----------
    folder : Path
        Folder of the node's state.
    keys : collection of str
        Public keys (hexadecimal) whose checkpoints count; the node's own first.
    """

    def __init__(self, database: Database, folder: Path, keys: Collection[str]) -> None:
        self._database = database
        self._folder = folder
        #: public keys whose checkpoints count
        self.keys = keys

    def verify(self, progress: Callable[[int, int], None] | None = None) -> ChainVerdict:
        """Check everything; the first break of the chain, or all that contradicts it.

        Raises
        ------
        StoreUnavailableError
            The database does not answer.
        """
        log = AuditLog(self._database)
        before = log.begin()
        facts = FactCheck(before[0])
        verdict = log.verify(progress, facts.observe)
        if log.begin() != before:  # retention removed rows meanwhile
            return self.verify(progress)
        if not verdict.intact:
            return verdict
        reader = _LogReader(facts, verdict.first - 1 + verdict.rows, verdict.head)
        differences = [*self._checkpoints(verdict), *self._triggers(), *self._facts(facts, reader)]
        with self._database.reading() as session:
            signed = [each.sequence for each in read_checkpoints(session)]
        return replace(
            verdict,
            intact=not differences,
            reason=differences[0].sentence if differences else None,
            differences=tuple(differences[:_LISTED]),
            checkpoints=len(signed),
            unsigned=max(0, verdict.first - 1 + verdict.rows - max(signed, default=0)),
        )

    def tail(self, rows: int) -> str | None:
        """Check the newest rows, the head and the newest checkpoint with its line in the file.

        Returns a sentence where they differ.

        Takes no longer for a long log, and does not show what was changed before these rows.

        Raises
        ------
        StoreUnavailableError
            The database does not answer.
        """
        begin, genesis = AuditLog(self._database).begin()
        with self._database.reading() as session:
            end, head = session.execute(select(AuditHead.sequence, AuditHead.hash)).one()
            good = max(begin, end - rows)
            signed = newest_checkpoint(session)
            hashes = hashes_of(session, {good, *([] if signed is None else [signed.sequence])})
            previous = genesis if good == begin else hashes.get(good, "")
            for row in read_rows(session, good, end):
                if row[0] != good + 1 or not is_chained(previous, row):
                    break
                good, previous = good + 1, row[-1]
        if good < end or previous != head:
            return f"row {min(good + 1, end)} of the audit log is not as it was written"
        fault = None if signed is None else checkpoint_fault(signed, self.keys, hashes, begin + 1)
        if signed is None or fault is not None:
            return fault and f"checkpoint {signed and signed.number}: {fault}"
        return witness_end_fault(self._folder, signed)

    def rows(self, sequences: Collection[int], objects: Collection[str]) -> LogReading:
        """Read what the log has of some rows, and which objects (SOP instances) the outbox has."""
        before = AuditLog(self._database).begin()
        wanted, known = sorted(objects), set[str]()
        with self._database.reading() as session:
            hashes = hashes_of(session, sequences)
            for begin in range(0, len(wanted), 500):
                uid = DerivedInstanceRow.sop_instance_uid
                known |= set(
                    session.scalars(select(uid).where(uid.in_(wanted[begin : begin + 500])))
                )
        if before[0]:
            hashes[before[0]] = before[1]
        return LogReading(first=before[0] + 1, hashes=hashes, objects=frozenset(known))

    def _checkpoints(self, verdict: ChainVerdict) -> Iterator[AuditDifference]:
        with self._database.reading() as session:
            held = read_checkpoints(session)
            named = {each.sequence for each in held}
            try:
                lines = read_witness(self._folder)
            except OSError:
                lines = ()
            named |= {each.sequence for _, each in lines if each is not None}
            hashes = hashes_of(session, named)
        first = verdict.first
        sealed = [each for each in held if each.kind == "seal"]
        hashes |= {each.sequence: each.hash for each in sealed if each.sequence == first - 1}
        yield from checkpoint_differences(held, self.keys, hashes, first)
        yield from witness_differences(self._folder, held, self.keys, hashes, first)

    def _triggers(self) -> Iterator[AuditDifference]:
        with self._database.reading() as session:
            yield from trigger_differences(session.connection())

    def _facts(self, facts: FactCheck, reader: _LogReader) -> Iterator[AuditDifference]:
        for compare in facts.comparisons():
            with self._database.reading() as session:
                yield from reader.read_on(session)
                try:
                    yield from tuple(compare(session))
                except MALFORMED as error:
                    kind = type(error).__name__
                    sentence = f"log or tables hold values that this software never writes ({kind})"
                    yield AuditDifference(kind="fact", subject="audit_event", sentence=sentence)


def hashes_of(session: Session, sequences: Collection[int]) -> dict[int, str]:
    """Read the hash of some rows, by sequence; what the log does not have is left out."""
    wanted, found = sorted(sequences), dict[int, str]()
    for begin in range(0, len(wanted), 500):
        query = select(AuditRow.sequence, AuditRow.hash).where(
            AuditRow.sequence.in_(wanted[begin : begin + 500])
        )
        found.update({row[0]: row[1] for row in session.execute(query)})
    return found


class _LogReader:
    """Follows a log that grows, so that the facts are compared with all of it."""

    def __init__(self, facts: FactCheck, last: int, head: str) -> None:
        self._facts, self._last, self._head = facts, last, head

    def read_on(self, session: Session) -> Iterator[AuditDifference]:
        rows: Sequence[Sequence[Any]] = read_rows(session, self._last, None)
        for row in rows:
            if row[0] != self._last + 1 or not is_chained(self._head, row):
                sentence = f"row {self._last + 1} is not as it was written"
                yield AuditDifference(kind="fact", subject="audit_event", sentence=sentence)
                return
            self._last, self._head = row[0], row[-1]
        self._facts.observe(session, rows)
