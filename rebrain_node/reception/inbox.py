"""The inbox: instances as received, durable on disk before anybody is told so.

Order of an acceptance: temporary file in the same folder, fsync, rename to the SHA-256 of its
content, fsync of the folder, one transaction of the ledger, answer. A crash between two of them
leaves a file the ledger does not know, which is harmless, or an instance the sender will send
again. No name is ever taken from the instance.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from io import BytesIO
from pathlib import Path
from typing import Final, Protocol

from pydicom import dcmread
from pydicom.dataset import Dataset

from rebrain_node.domain.job import Job
from rebrain_node.domain.ledger import ReceivedInstance, Reception, StoredInstance
from rebrain_node.errors import BytesAltered, OutOfResources
from rebrain_node.instance.codecs import register
from rebrain_node.instance.scan import ScannedInstance

_TEMPORARY: Final = ".receiving"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class ReceptionLedger(Protocol):
    """What the spool needs of the ledger."""

    def record_received(self, received: ReceivedInstance) -> Reception:
        """Write the instance down, or raise InstanceConflict or OutOfResources."""


class InstanceLedger(Protocol):
    """What reading needs of the ledger."""

    def instances(
        self, *, study: str | None = None, series: str | None = None
    ) -> tuple[StoredInstance, ...]:
        """Read the instances of a study or a series, in the order of their arrival."""


class Spool:
    """Takes instances in."""

    def __init__(self, folder: Path, ledger: ReceptionLedger, *, hard_mark_bytes: int) -> None:
        """Open the folder; temporary files of a receiver that died are removed.

        One receiver per folder: it removes what another one is writing.
        """
        self._folder = folder
        self._ledger = ledger
        self._hard_mark_bytes = hard_mark_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(256):
            (folder / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
        _sync_folder(folder)
        _sync_folder(folder.parent)
        for left in folder.glob(f"??/*{_TEMPORARY}"):
            left.unlink()

    def take(self, content: bytes, scanned: ScannedInstance, *, calling_ae_title: str) -> Reception:
        """Keep one DICOM file for ever; when this returns, a power cut loses nothing of it.

        Raises
        ------
        OutOfResources
            Disk or database cannot take it; nothing is acknowledged. An error of fsync is never
            tried again: the kernel may have dropped the pages (the file is removed).
        InstanceConflict
            The UID is known with other bytes; these are kept in quarantine.
        """
        self.require_room(len(content))
        digest = hashlib.sha256(content).hexdigest()
        path = self._folder / digest[:2] / digest
        try:
            self._write(path, content)
        except OSError as error:
            raise OutOfResources(
                f"inbox {self._folder}: {error.strerror}; free or replace the disk",
                status=0xA700,
                reason="DISK",
            ) from error
        return self._ledger.record_received(
            ReceivedInstance(
                sop_instance_uid=scanned.sop_instance_uid,
                sop_class_uid=scanned.sop_class_uid,
                series_instance_uid=scanned.series_instance_uid,
                study_instance_uid=scanned.study_instance_uid,
                transfer_syntax_uid=scanned.transfer_syntax_uid,
                sha256=digest,
                size_bytes=len(content),
                path=str(path.relative_to(self._folder)),
                calling_ae_title=calling_ae_title,
            )
        )

    def require_room(self, size_bytes: int = 0) -> None:
        """Hold the free space of the disk against the hard mark.

        Raises
        ------
        OutOfResources
            Less would be left than the mark reserves for audit log and outbox.
        """
        free = os.statvfs(self._folder)
        left = free.f_bavail * free.f_frsize - size_bytes
        if left < self._hard_mark_bytes:
            raise OutOfResources(
                f"{left} bytes would be left on the disk, hard_mark_bytes reserves "
                f"{self._hard_mark_bytes}; free space",
                status=0xA700,
                reason="DISK-HARD-MARK",
            )

    def _write(self, path: Path, content: bytes) -> None:
        """Write durably; the same content again replaces itself, which heals a damaged file."""
        temporary = path.with_name(f"{uuid.uuid4().hex}{_TEMPORARY}")
        try:
            _write_durably(temporary, content)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


class InboxFolder:
    """Reads what was taken in (port ``Inbox``)."""

    def __init__(self, folder: Path, ledger: InstanceLedger) -> None:
        register()
        self._folder = folder
        self._ledger = ledger

    def read(self, job: Job) -> tuple[Dataset, ...]:
        """Read all instances of the job's series, in the order of their arrival.

        Raises
        ------
        BytesAltered
            A file is missing or not what was received.
        """
        return self._read(self._ledger.instances(series=job.series_instance_uid))

    def read_study(self, study_instance_uid: str) -> tuple[Dataset, ...]:
        """Read all instances of a study, in the order of their arrival.

        Raises
        ------
        BytesAltered
            A file is missing or not what was received.
        """
        return self._read(self._ledger.instances(study=study_instance_uid))

    def input_digest(self, job: Job) -> str:
        """SHA-256 over the sorted SHA-256 of the series' instances, hexadecimal."""
        held = self._ledger.instances(series=job.series_instance_uid)
        return hashlib.sha256("".join(sorted(each.sha256 for each in held)).encode()).hexdigest()

    def _read(self, held: tuple[StoredInstance, ...]) -> tuple[Dataset, ...]:
        return tuple(dcmread(BytesIO(self._content(each))) for each in held)

    def _content(self, stored: StoredInstance) -> bytes:
        path = self._folder / stored.path
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BytesAltered(
                f"{path}: {error.strerror}; restore it from a backup, or send the study again"
            ) from error
        if hashlib.sha256(content).hexdigest() != stored.sha256:
            raise BytesAltered(
                f"{path} is not what was received; restore it from a backup, "
                "or remove it and send the study again"
            )
        return content


def _write_durably(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, _DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
