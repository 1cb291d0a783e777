"""Holds stored bytes and rows against each other: `storage fsck`.

Bytes that no row names are harmless to the node, and may be the only copy of an instance: they
are moved and never deleted. A row whose bytes are gone is marked as if retention had deleted
them, so that the same instance is taken again when its sender sends it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from sqlalchemy import func, select, update

from rebrain_node.blobs import stored_files, sync_folder, unfinished_files
from rebrain_node.domain.audit import Event
from rebrain_node.store.audit import append
from rebrain_node.store.database import Database
from rebrain_node.store.row_check import RowDifference, correct_counts, row_differences
from rebrain_node.store.tables import (
    AuditRow,
    DerivedInstanceRow,
    DerivedSetRow,
    InstanceRow,
    QuarantineRow,
    SeriesRow,
)

#: folder, beside inbox and outbox, of bytes that no row names or that are altered
LOST_FOUND: Final = "lost-found"
Table = Literal["instance", "quarantine", "derived_instance"]


@dataclass(frozen=True, kw_only=True)
class StorageDifference:
    """Bytes and rows that do not agree."""

    kind: Literal["unknown", "missing", "altered", "unfinished"]
    path: Path  #: relative to the folder of the node's state
    table: Table | None = None  #: where the row stands; None for unknown bytes
    sop_instance_uid: str | None = None
    series_instance_uid: str | None = None  #: source series


class StorageCheck:
    """Inbox, outbox and database of one node.

    Parameters
    ----------
    database
        None where it is lost: no bytes are known then.
    folder
        Folder of the node's state.
    """

    def __init__(self, database: Database | None, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def differences(self) -> tuple[StorageDifference, ...]:
        """Compare both ways; reads every stored byte.

        While the node runs, an instance that is just being received may be listed as unknown.

        Raises
        ------
        OSError
            A file cannot be read.
        StoreUnavailableError
            The database does not answer.
        """
        files = {path.relative_to(self._folder) for path in stored_files(self._folder)}
        rows = self._rows()
        unfinished = sorted(p.relative_to(self._folder) for p in unfinished_files(self._folder))
        found = [
            StorageDifference(kind="unknown", path=path)
            for path in sorted(files - {row.path for row in rows})
        ]
        found += [StorageDifference(kind="unfinished", path=path) for path in unfinished]
        return (*found, *(each for row in rows if (each := self._damage(row)) is not None))

    def row_differences(self) -> tuple[RowDifference, ...]:
        """Hold the rows of the database against each other.

        Raises
        ------
        StoreUnavailableError
            The database does not answer.
        """
        if self._database is None:
            return ()
        with self._database.reading() as session:
            return row_differences(session)

    def repair(
        self, found: Sequence[StorageDifference], rows: Sequence[RowDifference] = ()
    ) -> None:
        """Move bytes without a row into `LOST_FOUND`, mark rows without bytes, correct numbers.

        Unfinished files are moved too: nobody was told that they were received. The bytes of a
        quarantined instance have no mark; their loss stands in the audit log. No node may run
        meanwhile.

        Raises
        ------
        OSError
            A file cannot be moved.
        StoreUnavailableError
            The database does not answer; bytes may have been moved.
        """
        moved = sorted({each.path for each in found if each.kind != "missing"})
        for path in moved:
            target = self._folder / LOST_FOUND / path
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._folder / path).rename(target)
            sync_folder(target.parent)
        if self._database is not None and (found or any(row.kind == "count" for row in rows)):
            self._mark(found, len(moved), rows)

    def paths(self) -> frozenset[Path]:
        """Name the files that the rows say are stored, relative to the folder."""
        return frozenset(row.path for row in self._rows())

    def _rows(self) -> tuple[StorageDifference, ...]:
        """Every row that names bytes, as the difference that it would be without them."""
        if self._database is None:
            return ()
        derived = (
            select(DerivedInstanceRow, DerivedSetRow.source_series_uid)
            .join(DerivedSetRow, DerivedSetRow.id == DerivedInstanceRow.set_id)
            .where(DerivedInstanceRow.purged_at.is_(None))
            .order_by(DerivedInstanceRow.id)
        )
        received = (
            select(InstanceRow).where(InstanceRow.purged_at.is_(None)).order_by(InstanceRow.id)
        )
        erased = select(AuditRow.subject).where(AuditRow.event == str(Event.PATIENT_ERASED))
        of_erased = select(SeriesRow.series_instance_uid).where(
            SeriesRow.study_instance_uid.in_(erased)
        )
        quarantined = (
            select(QuarantineRow)
            .where(
                func.coalesce(QuarantineRow.study_instance_uid, "").not_in(erased),
                func.coalesce(QuarantineRow.disputed_series_uid, "").not_in(of_erased),
            )
            .order_by(QuarantineRow.id)
        )
        with self._database.reading() as session:
            return (
                *(
                    _missing("instance", _inbox(r.sha256), r, r.series_instance_uid)
                    for r in session.scalars(received)
                ),
                *(
                    _missing("quarantine", _inbox(r.sha256), r, r.disputed_series_uid)
                    for r in session.scalars(quarantined)
                ),
                *(
                    _missing("derived_instance", Path("outbox", r.sha256), r, series)
                    for r, series in session.execute(derived)
                ),
            )

    def _damage(self, row: StorageDifference) -> StorageDifference | None:
        path = self._folder / row.path
        if not path.is_file():
            return row
        with path.open("rb") as stream:
            intact = hashlib.file_digest(stream, "sha256").hexdigest() == path.name
        if intact:
            return None
        return StorageDifference(
            kind="altered",
            path=row.path,
            table=row.table,
            sop_instance_uid=row.sop_instance_uid,
            series_instance_uid=row.series_instance_uid,
        )

    def _mark(
        self, found: Sequence[StorageDifference], moved: int, rows: Sequence[RowDifference]
    ) -> None:
        assert self._database is not None  # noqa: S101 - asked before
        now = datetime.now(UTC)
        lost = [each for each in found if each.table is not None]
        with self._database.writing() as session:
            for table in (InstanceRow, DerivedInstanceRow):
                uids = [e.sop_instance_uid for e in lost if e.table == table.__tablename__]
                for uid in uids:
                    session.execute(
                        update(table).where(table.sop_instance_uid == uid).values(purged_at=now)
                    )
            for series in sorted({each.series_instance_uid or "unknown" for each in lost}):
                of_series = [e for e in lost if (e.series_instance_uid or "unknown") == series]
                details = {
                    table: [str(e.sop_instance_uid) for e in of_series if e.table == table]
                    for table in ("instance", "quarantine", "derived_instance")
                }
                append(session, Event.STORAGE_LOST, series, {**details})
            counts = correct_counts(session, rows)
            told = {"moved": moved, "rows": len(lost), "counts": counts}
            append(session, Event.STORAGE_REPAIRED, LOST_FOUND, told)


def _inbox(sha256: str) -> Path:
    return Path("inbox", sha256[:2], sha256)


def _missing(
    table: Table,
    path: Path,
    row: InstanceRow | QuarantineRow | DerivedInstanceRow,
    series_instance_uid: str | None,
) -> StorageDifference:
    return StorageDifference(
        kind="missing",
        path=path,
        table=table,
        sop_instance_uid=row.sop_instance_uid,
        series_instance_uid=series_instance_uid,
    )
