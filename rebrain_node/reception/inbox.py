"""The inbox: instances as received, durable on disk before they are acknowledged.

Order of an acceptance: durable blob, one transaction of the ledger, answer to the sender. A crash
between two of them leaves a blob the ledger does not know, which is harmless, or an instance the
sender will send again. No file name is ever taken from the instance.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from mmap import mmap
from pathlib import Path
from typing import Final, Protocol

from pydicom.dataset import Dataset

from rebrain_node.blobs import BlobFile, BlobStore, inbox_blobs
from rebrain_node.domain.job import Job
from rebrain_node.domain.ledger import ReceivedInstance, Reception, Rival, StoredInstance
from rebrain_node.errors import AlteredBytesError, OutOfResourcesError, StateError
from rebrain_node.instance.codecs import register
from rebrain_node.instance.content import different_elements, same_content
from rebrain_node.instance.read import read_instance
from rebrain_node.instance.scan import ScannedInstance

#: unfinished instances of all associations together, bytes
MAXIMUM_PENDING_BYTES: Final = 1 << 30


class ReceptionLedger(Protocol):
    """What the spool needs of the ledger."""

    def record_received(
        self, received: ReceivedInstance, same_content: Callable[[str], bool]
    ) -> Reception:
        """Write the instance down, or raise InstanceConflictError or OutOfResourcesError.

        ``same_content`` is called where the UID is known with other bytes.
        """


class InstanceLedger(Protocol):
    """What reading needs of the ledger."""

    def instances(
        self, *, study: str | None = None, series: str | None = None
    ) -> tuple[StoredInstance, ...]:
        """Read the instances of a study or a series, in the order of their arrival."""


class Spool:
    """Takes instances in."""

    def __init__(
        self,
        folder: Path,
        ledger: ReceptionLedger,
        *,
        hard_mark_bytes: int,
        maximum_pending_bytes: int = MAXIMUM_PENDING_BYTES,
    ) -> None:
        """Open the folder and remove the temporary files of a receiver that died."""
        self._blobs = inbox_blobs(folder)
        self._ledger = ledger
        self._hard_mark_bytes = hard_mark_bytes
        self._maximum_pending_bytes = maximum_pending_bytes
        self._pending_bytes = 0
        self._counting = threading.Lock()
        self._opened: BlobFile | None = None  # ahead, for whichever instance comes next
        self._opening = threading.Lock()
        self._blobs.prepare()

    def begin(self, header: bytes) -> IncomingInstance:
        """Open the file of an instance that is about to come, and write its header.

        Raises
        ------
        OutOfResourcesError
            The disk cannot take it.
        """
        self.require_room(len(header))
        with self._opening:
            opened, self._opened = self._opened, None
        return IncomingInstance(self, self._blobs, header, opened)

    def open_ahead(self) -> None:
        """Open the file of the next instance while its sender prepares it."""
        with self._opening, contextlib.suppress(OSError):  # ``begin`` tries again, and says why not
            if self._opened is None:
                self._opened = self._blobs.begin()

    def close(self) -> None:
        """Remove the file that was opened ahead; may be called again."""
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def take(
        self, arrival: IncomingInstance, scanned: ScannedInstance, *, calling_ae_title: str
    ) -> Reception:
        """Keep one instance permanently; once this returns, a power cut loses nothing of it.

        Raises
        ------
        OutOfResourcesError
            Disk or database cannot take it; nothing is acknowledged.
        InstanceConflictError
            The UID is known with other content; these bytes are kept in quarantine.
        """
        self.require_room()
        digest = arrival.keep()
        return self._ledger.record_received(
            ReceivedInstance(
                sop_instance_uid=scanned.sop_instance_uid,
                sop_class_uid=scanned.sop_class_uid,
                series_instance_uid=scanned.series_instance_uid,
                study_instance_uid=scanned.study_instance_uid,
                transfer_syntax_uid=scanned.transfer_syntax_uid,
                sha256=digest,
                size_bytes=arrival.size,
                path=str(self._blobs.path(digest)),
                calling_ae_title=calling_ae_title,
            ),
            lambda known: self._same_content(known, digest),
        )

    def count_pending(self, size_bytes: int) -> None:
        """Count bytes of unfinished instances of all associations; negative ones are finished.

        Raises
        ------
        OutOfResourcesError
            All together would be more than ``maximum_pending_bytes``; nothing was counted.
        """
        with self._counting:
            pending = self._pending_bytes + size_bytes
            if size_bytes > 0 and pending > self._maximum_pending_bytes:
                raise OutOfResourcesError(
                    f"{pending} bytes of unfinished instances, at most "
                    f"{self._maximum_pending_bytes} are held; send less at a time",
                    status=0xA700,
                    reason="PENDING-BYTES",
                )
            self._pending_bytes = pending

    def _same_content(self, known_sha256: str, sha256: str) -> bool:
        """Whether the instance that is held and the one that came differ in encoding only."""
        try:
            return same_content(self._blobs.get(known_sha256), self._blobs.get(sha256))
        except AlteredBytesError:
            return False

    def require_room(self, size_bytes: int = 0) -> None:
        """Hold the free space of the disk against the hard mark.

        Raises
        ------
        OutOfResourcesError
            Less would be left than the mark reserves for audit log and outbox.
        """
        free = os.statvfs(self._blobs.folder)
        left = free.f_bavail * free.f_frsize - size_bytes
        if left < self._hard_mark_bytes:
            raise OutOfResourcesError(
                f"{left} bytes would be left on the disk, hard_mark_bytes reserves "
                f"{self._hard_mark_bytes}; free space",
                status=0xA700,
                reason="DISK-HARD-MARK",
            )


class IncomingInstance:
    """An instance that is arriving, in a temporary file; to be closed."""

    def __init__(
        self, spool: Spool, blobs: BlobStore, header: bytes, opened: BlobFile | None
    ) -> None:
        self._spool = spool
        self._folder = blobs.folder
        self._start = len(header)
        self._counted = 0
        try:
            self._writer = opened or blobs.begin()
        except OSError as error:
            raise self._refusal(error) from error
        try:
            self.write(header)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes so far, header included."""
        return self._writer.size

    def write(self, content: bytes | memoryview) -> None:
        """Append bytes.

        Raises
        ------
        OutOfResourcesError
            The disk cannot take them, or too much is unfinished.
        """
        self._spool.count_pending(len(content))
        self._counted += len(content)
        try:
            self._writer.write(content)
        except OSError as error:
            raise self._refusal(error) from error

    @contextlib.contextmanager
    def data_set(self) -> Iterator[tuple[mmap, int]]:
        """Map the file, and say at which offset the data set begins.

        Raises
        ------
        OutOfResourcesError
            The disk cannot give it.
        """
        try:
            view = self._writer.read()
        except OSError as error:
            raise self._refusal(error) from error
        with view:
            yield view, self._start

    def keep(self) -> str:
        """Make the file permanent; return its SHA-256, hexadecimal.

        Raises
        ------
        OutOfResourcesError
            The disk gave an error, which is never tried again.
        """
        try:
            return self._writer.keep()
        except OSError as error:
            raise self._refusal(error) from error

    def close(self) -> None:
        """Remove the file, unless it was kept; may be called again."""
        counted, self._counted = self._counted, 0
        self._spool.count_pending(-counted)
        self._writer.close()

    def _refusal(self, error: OSError) -> OutOfResourcesError:
        return OutOfResourcesError(
            f"inbox {self._folder}: {error.strerror}; free or replace the disk",
            status=0xA700,
            reason="DISK",
        )


class InboxFolder:
    """Reads what was taken in (port ``Inbox``)."""

    def __init__(self, folder: Path, ledger: InstanceLedger) -> None:
        register()
        self._blobs = inbox_blobs(folder)
        self._ledger = ledger

    def read(self, job: Job) -> tuple[Dataset, ...]:
        """Read all instances of the job's series, in the order of their arrival.

        Raises
        ------
        AlteredBytesError
            A file is missing or not what was received.
        """
        return self._read(self._ledger.instances(series=job.series_instance_uid))

    def read_study(self, study_instance_uid: str) -> tuple[Dataset, ...]:
        """Read all instances of a study, in the order of their arrival.

        Raises
        ------
        AlteredBytesError
            A file is missing or not what was received.
        """
        return self._read(self._ledger.instances(study=study_instance_uid))

    def different_elements(self, rival: Rival) -> tuple[str, ...]:
        """Name the elements in which a quarantined instance differs from the one that is held.

        Empty where none of that UID is held, or where only the pixels differ; no value is told.

        Raises
        ------
        AlteredBytesError
            A file is missing or not what was received.
        """
        if rival.first_sha256 is None:
            return ()
        return different_elements(
            self._blobs.get(rival.first_sha256), self._blobs.get(rival.sha256)
        )

    def input_digest(self, job: Job) -> str:
        """SHA-256 over the sorted SHA-256 of the series' instances, hexadecimal."""
        held = self._ledger.instances(series=job.series_instance_uid)
        return hashlib.sha256("".join(sorted(each.sha256 for each in held)).encode()).hexdigest()

    def _read(self, held: tuple[StoredInstance, ...]) -> tuple[Dataset, ...]:
        for each in held:
            if each.purged_at is not None:
                raise StateError(
                    f"the bytes of series {each.series_instance_uid} are gone since "
                    f"{each.purged_at:%Y-%m-%d} (retention, or `storage fsck --repair`); send the "
                    "whole study again"
                )
        return tuple(read_instance(self._blobs.get(each.sha256)) for each in held)
