"""Removes old rows of the audit log: exported first, then sealed by a signed checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from rebrain_node.blobs import sync_folder
from rebrain_node.domain.audit import Event
from rebrain_node.errors import StateError, StoreUnavailableError
from rebrain_node.ports import JsonValue
from rebrain_node.store.audit import AuditLog, append, is_chained, read_rows
from rebrain_node.store.checkpoints import append_witness, seal
from rebrain_node.store.database import Database
from rebrain_node.store.tables import AuditHead, AuditQueueRow, AuditRow, utc_text

#: where exported rows lie, in the folder of the node's state
ARCHIVE: Final = "audit-archive"
_PAGE: Final = 5000
_YEAR: Final = timedelta(days=365.25)
_NAMES: Final = (
    "sequence", "recorded_at", "monotonic_ns", "event", "subject", "details", "hash",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """Rows that were removed, and the file that has them."""

    file: Path
    first: int
    last: int
    sha256: str  #: of the file, hexadecimal


class AuditRetention:
    """Removes rows of the log of one database."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def remove_older(self, years: float, now: datetime) -> ExportedFile | None:
        """Export, seal and remove the rows older than ``years``; None where there are none.

        Kept are the newest row, and every row from the newest activation of a bundle on, so that
        an older bundle is still refused.

        Raises
        ------
        StateError
            A row to be removed is not as it was written: nothing is removed.
        KeyFileError
            The key of the node is missing.
        StoreUnavailableError
            Disk or database cannot take it: nothing is removed.
        """
        before = AuditLog(self._database).begin()
        with self._database.reading() as session:
            last = _last_old(session, now - years * _YEAR)
        if last is None or last <= before[0]:
            return None
        try:
            made, digest = self._export(before, last)
        except OSError as error:
            raise StoreUnavailableError(
                f"{self._folder / ARCHIVE}: {error.strerror}; check room, owner and mode"
            ) from error
        with self._database.writing() as session:
            signed = seal(session, self._folder, last, digest)
            details: dict[str, JsonValue] = {
                "rows": last - before[0],
                "first": made.first,
                "last": last,
                "sha256": made.sha256,
            }
            append(session, Event.AUDIT_SEALED, made.file.name, details)
            session.execute(delete(AuditRow).where(AuditRow.sequence <= last))
        append_witness(self._folder, signed)
        return made

    def _export(self, before: tuple[int, str], last: int) -> tuple[ExportedFile, str]:
        """Write the rows durably as JSON lines, each checked; also the hash of the last one.

        Raises
        ------
        StateError
            A row is missing or not as it was written.
        """
        sequence, previous = before
        folder = self._folder / ARCHIVE
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"audit-{sequence + 1:012}-{last:012}.jsonl"
        temporary, digest = path.with_suffix(".writing"), hashlib.sha256()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            while sequence < last:
                with self._database.reading() as session:
                    rows = read_rows(session, sequence, min(sequence + _PAGE, last))
                for row in rows:
                    if row[0] != sequence + 1 or not is_chained(previous, row):
                        raise StateError(
                            f"row {sequence + 1} of the audit log is not as it was written, so "
                            "that nothing is removed; see `rebrain-node audit verify`"
                        )
                    sequence, previous = row[0], row[-1]
                    line = json.dumps(dict(zip(_NAMES, row, strict=True))).encode("ascii") + b"\n"
                    digest.update(line)
                    stream.write(line)
                if not rows:
                    raise StateError(f"row {sequence + 1} of the audit log is missing")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
        sync_folder(folder)
        made = ExportedFile(file=path, first=before[0] + 1, last=last, sha256=digest.hexdigest())
        return made, previous


def _last_old(session: Session, limit: datetime) -> int | None:
    """Sequence of the last row of which it and all before are older than ``limit``.

    Rows that a receiver of audit messages or notices has not taken yet are kept.
    """
    head = session.scalars(select(AuditHead.sequence)).one()
    younger = select(func.min(AuditRow.sequence)).where(AuditRow.recorded_at >= utc_text(limit))
    bundle = select(func.max(AuditRow.sequence)).where(AuditRow.event == str(Event.BUNDLE_VERIFIED))
    oldest = select(func.min(AuditQueueRow.sequence))
    told = session.scalars(oldest).one_or_none()  # 0 for a receiver that has taken nothing yet
    kept: list[int | None] = [
        head, session.scalars(younger).one(), session.scalars(bundle).one(),
        (head if told is None else told) + 1,
    ]  # fmt: skip
    return min(sequence for sequence in kept if sequence is not None) - 1
