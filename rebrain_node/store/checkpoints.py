"""Signed checkpoints of the audit log: in the database, and as lines of a file beside it.

A checkpoint is the number, time, sequence and hash of a row, signed with the key of the node. They
show a chain that was computed again. The file `audit-checkpoints.jsonl` in the folder of the
node's state shows a log that was cut, or a database that was put back, also where the database
is another machine's; a copy of everything that was put back only the reports in the PACS show.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from rebrain_node.domain.audit import AuditDifference, Checkpoint, Event
from rebrain_node.errors import StoreUnavailableError
from rebrain_node.model.keys import is_signed, node_key, public_part, sign_statement
from rebrain_node.store.database import Database
from rebrain_node.store.tables import AuditHead, AuditRow, CheckpointRow, utc_text

#: lines of all checkpoints, in the folder of the node's state
WITNESS_FILE: Final = "audit-checkpoints.jsonl"
_FIELDS: Final = tuple(Checkpoint.__dataclass_fields__)


class Checkpoints:
    """The checkpoints of one database, signed with the key in ``folder``."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self._folder = folder

    def write(self) -> Checkpoint | None:
        """Sign the newest row; the checkpoint that is there where it is signed already.

        None before the first row.

        Raises
        ------
        KeyFileError
            The key of the node is missing or open to other users.
        StoreUnavailableError
            The checkpoint could not be written.
        """
        key = node_key(self._folder)
        with self.database.writing() as session:
            sequence, digest = session.execute(select(AuditHead.sequence, AuditHead.hash)).one()
            newest = newest_checkpoint(session)
            if newest is not None and (newest.sequence, newest.kind) == (sequence, "checkpoint"):
                return newest
            if not sequence:
                return None
            made = _sign(session, key, "checkpoint", (sequence, digest))
        append_witness(self._folder, made)
        return made

    def is_due(self, rows: int, minutes: float) -> bool:
        """Whether a checkpoint is due: after ``rows`` rows, ``minutes``, or a published series."""
        with self.database.reading() as session:
            sequence = session.scalars(select(AuditHead.sequence)).one()
            newest = newest_checkpoint(session)
            signed = 0 if newest is None else newest.sequence
            if sequence == signed:
                return False
            if newest is None or sequence - signed >= rows:
                return True
            if datetime.now(UTC) - datetime.fromisoformat(newest.signed_at) >= timedelta(
                minutes=minutes
            ):
                return True
            published = select(AuditRow.sequence).where(
                AuditRow.sequence > signed, AuditRow.event == str(Event.SERIES_PUBLISHED)
            )
            return session.scalars(published.limit(1)).first() is not None


def seal(session: Session, folder: Path, sequence: int, digest: str) -> Checkpoint:
    """Sign that the log begins after this row; the caller removes rows and writes the file."""
    return _sign(session, node_key(folder), "seal", (sequence, digest))


def read_checkpoints(session: Session) -> tuple[Checkpoint, ...]:
    """Read every checkpoint, by number."""
    rows = session.scalars(select(CheckpointRow).order_by(CheckpointRow.number))
    return tuple(map(_checkpoint, rows))


def append_witness(folder: Path, made: Checkpoint) -> None:
    """Append a checkpoint to the file, durably.

    Raises
    ------
    StoreUnavailableError
        The disk cannot take it.
    """
    line = json.dumps(asdict(made), separators=(",", ":")) + "\n"
    path = folder / WITNESS_FILE
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
        try:
            os.write(descriptor, line.encode("ascii"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreUnavailableError(
            f"{path}: {error.strerror}; check room, owner and mode"
        ) from error


def checkpoint_differences(
    checkpoints: Sequence[Checkpoint], keys: Collection[str], hashes: Mapping[int, str], first: int
) -> Iterator[AuditDifference]:
    """Hold the checkpoints of the database against each other and against the log.

    Parameters
    ----------
    keys : collection of str
        Public keys that may have signed.
    hashes : mapping of int to str
        Hash by sequence of the rows that checkpoints name.
    first : int
        Sequence of the first row of the log.
    """
    before = 0
    for place, each in enumerate(checkpoints, 1):
        if each.number != place:
            yield _difference(each, f"checkpoint {place} is missing")
            return
        fault = checkpoint_fault(each, keys, hashes, first)
        if fault is None and each.kind == "checkpoint" and each.sequence < before:
            fault = f"it signs row {each.sequence}, and one before it row {before}"
        if fault is not None:
            yield _difference(each, fault)
        if each.kind == "checkpoint":
            before = max(before, each.sequence)


def witness_differences(
    folder: Path,
    checkpoints: Sequence[Checkpoint],
    keys: Collection[str],
    hashes: Mapping[int, str],
    first: int,
) -> Iterator[AuditDifference]:
    """Hold the lines of the file against database and log."""
    if not checkpoints and not (folder / WITNESS_FILE).exists():
        return
    known = {each.number: each for each in checkpoints}
    try:
        lines = read_witness(folder)
    except OSError as error:
        yield _of_file(f"{WITNESS_FILE}: {error.strerror}; restore it from a backup")
        return
    for number, each in lines:
        if each is None:
            yield _of_file(f"line {number} of {WITNESS_FILE} is not as it was written")
        elif fault := checkpoint_fault(each, keys, hashes, first):
            yield _difference(each, f"line {number} of {WITNESS_FILE}: {fault}")
        elif known.get(each.number) != each:
            yield _difference(
                each, f"line {number} of {WITNESS_FILE} names it, the database does not"
            )
    seen = [each.number for _, each in lines if each is not None]
    if checkpoints and (not seen or seen[-1] < checkpoints[-1].number - 1):
        yield _of_file(f"{WITNESS_FILE} ends before checkpoint {checkpoints[-1].number}")


def witness_end_fault(folder: Path, newest: Checkpoint) -> str | None:
    """Hold the last line of the file against the newest checkpoint; a sentence where it differs.

    A checkpoint is in the database before it is in the file.
    """
    try:
        lines = read_witness(folder)
    except OSError as error:
        return f"{WITNESS_FILE}: {error.strerror}; restore it from a backup"
    last = lines[-1][1] if lines else None
    if lines and last is None:
        return f"line {len(lines)} of {WITNESS_FILE} is not as it was written"
    if last is None or last.number < newest.number - 1:
        return f"{WITNESS_FILE} ends before checkpoint {newest.number}"
    if last.number > newest.number:
        return f"{WITNESS_FILE} names checkpoint {last.number}, the database does not"
    return None


def read_witness(folder: Path) -> tuple[tuple[int, Checkpoint | None], ...]:
    """Read number and checkpoint of every line; None for a line that cannot be read.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    content = (folder / WITNESS_FILE).read_bytes()
    return tuple((n, _parsed(line)) for n, line in enumerate(content.splitlines(), 1))


def _parsed(line: bytes) -> Checkpoint | None:
    try:
        fields: Any = json.loads(line)
        found = Checkpoint(**fields)
    except (ValueError, TypeError):
        return None
    numbers = type(found.number) is int and type(found.sequence) is int
    texts = all(isinstance(getattr(found, name), str) for name in _FIELDS if name not in _NUMBERS)
    return found if numbers and texts else None


_NUMBERS: Final = ("number", "sequence")


def checkpoint_fault(
    each: Checkpoint, keys: Collection[str], hashes: Mapping[int, str], first: int
) -> str | None:
    """Say in what a checkpoint is not the node's, or contradicts the log; None where it holds."""
    if each.key not in keys:
        return f"it is signed with the key {each.key}, which is not the key of this node"
    if not is_signed(each.statement, each.signature, each.key):
        return "its signature is not of it: it was altered"
    return row_fault(each.sequence, each.hash, hashes, first)


def row_fault(sequence: int, digest: str, hashes: Mapping[int, str], first: int) -> str | None:
    """Say in what the log contradicts a signed row; None where it agrees or no longer has it."""
    if sequence < first - 1 or hashes.get(sequence) == digest:
        return None
    if sequence not in hashes:
        return f"it signs row {sequence}, which the log does not have: rows were removed at its end"
    return f"it signs another row {sequence} than the log has: the log was written again"


def _sign(
    session: Session, key: Any, kind: Literal["checkpoint", "seal"], row: tuple[int, str]
) -> Checkpoint:
    last = session.scalars(select(func.max(CheckpointRow.number))).one() or 0
    unsigned = Checkpoint(
        number=last + 1,
        kind=kind,
        sequence=row[0],
        hash=row[1],
        signed_at=utc_text(datetime.now(UTC)),
        key=public_part(key),
    )
    made = replace(unsigned, signature=sign_statement(unsigned.statement, key))
    session.execute(insert(CheckpointRow).values(**asdict(made)))
    return made


def newest_checkpoint(session: Session) -> Checkpoint | None:
    """Read the newest checkpoint."""
    row = session.scalars(
        select(CheckpointRow).order_by(CheckpointRow.number.desc()).limit(1)
    ).first()
    return None if row is None else _checkpoint(row)


def _checkpoint(row: CheckpointRow) -> Checkpoint:
    return Checkpoint(**{name: getattr(row, name) for name in _FIELDS})


def _difference(each: Checkpoint, fault: str) -> AuditDifference:
    return AuditDifference(
        kind="checkpoint",
        subject=str(each.number),
        sentence=f"checkpoint {each.number}: {fault}",
    )


def _of_file(sentence: str) -> AuditDifference:
    return AuditDifference(kind="checkpoint", subject=WITNESS_FILE, sentence=sentence)
