"""A folder of instances in, a folder of derived objects out, no network: `rebrain-node process`.

The same path as in the node, over a folder instead of the inbox. Nothing half-done is left: the
objects are written into a hidden folder beside their place and moved once all are there, and a
file that exists with other bytes is never overwritten.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import DerivedSet, Job, Receipt
from rebrain_node.errors import (
    GateRefused,
    InstanceConflict,
    InstanceRefused,
    SeriesRejected,
    StateRefused,
)
from rebrain_node.instance.scan import scan
from rebrain_node.pipeline import Configuration, Ports, process
from rebrain_node.steps.select import Candidate, select

Progress = Callable[[int, int], None]  #: (done, in all)


@dataclass(frozen=True, kw_only=True)
class RefusedFile:
    """A file of the folder that is not taken as an instance."""

    path: str  #: relative to the folder
    code: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What a folder holds; the inbox of its series (port ``Inbox``)."""

    instances: tuple[Dataset, ...]
    sha256: Mapping[str, str]  #: of the bytes, by SOP Instance UID
    refused: tuple[RefusedFile, ...]

    @property
    def studies(self) -> tuple[tuple[Dataset, ...], ...]:
        """The instances by study, in the order of their Study Instance UIDs."""
        uids = sorted({str(instance.StudyInstanceUID) for instance in self.instances})
        return tuple(
            tuple(i for i in self.instances if str(i.StudyInstanceUID) == uid) for uid in uids
        )

    def read(self, job: Job) -> tuple[Dataset, ...]:
        """All instances of the job's series."""
        return tuple(
            i for i in self.instances if str(i.SeriesInstanceUID) == job.series_instance_uid
        )

    def input_digest(self, job: Job) -> str:
        """SHA-256 over the sorted SHA-256 of the series' instances, as the ledger computes it."""
        digests = sorted(self.sha256[str(i.SOPInstanceUID)] for i in self.read(job))
        return hashlib.sha256("".join(digests).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class SeriesResult:
    """What came of one series of the folder."""

    candidate: Candidate
    findings: tuple[Finding, ...]  #: the first decides
    receipt: Receipt | None = None  #: None if the series was refused


def read_folder(folder: Path, progress: Progress | None = None) -> Folder:
    """Read every file below ``folder``; what is no sound DICOM instance is refused by name.

    Hidden files and DICOMDIR are no instances and are left out. The same bytes twice count once.

    Raises
    ------
    OSError
        The folder or a file cannot be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and _may_be_one(path))
    instances, refused, sha256 = [], [], dict[str, str]()
    for done, path in enumerate(paths, 1):
        content = path.read_bytes()
        try:
            if _is_news(content, sha256):
                instances.append(dcmread(BytesIO(content)))
        except InstanceRefused as error:
            name = str(path.relative_to(folder))
            refused.append(RefusedFile(path=name, code=error.reason, sentence=str(error)))
        if progress is not None:
            progress(done, len(paths))
    return Folder(instances=tuple(instances), sha256=sha256, refused=tuple(refused))


def _may_be_one(path: Path) -> bool:
    return not path.name.startswith(".") and path.name != "DICOMDIR"


def _is_news(content: bytes, sha256: dict[str, str]) -> bool:
    """Note the bytes under their UID; false if the same bytes are known already."""
    uid = scan(content).sop_instance_uid
    digest = hashlib.sha256(content).hexdigest()
    if uid not in sha256:
        sha256[uid] = digest
        return True
    if sha256[uid] != digest:
        raise InstanceConflict(
            f"SOP Instance UID {uid} stands in the folder twice with different bytes; "
            "keep the right one",
            status=0x0117,  # PS3.7 C.5.16, as the receiver answers
            reason="CONFLICT",
        )
    return False


def judge(
    study: Sequence[Dataset], ports: Callable[[], Ports], configuration: Configuration
) -> Iterator[SeriesResult]:
    """Judge the series of one study and take the accepted one down the path.

    Parameters
    ----------
    study : sequence of Dataset
        All instances of one study.
    ports : callable
        Called once a series is accepted and not before: an engine costs seconds.
    configuration : Configuration
        What shapes the result.
    """
    for candidate in select(study, configuration.limits).candidates:
        if candidate.decision == "refused":
            yield SeriesResult(candidate=candidate, findings=candidate.findings)
            continue
        job = Job(
            study_instance_uid=str(study[0].StudyInstanceUID),
            series_instance_uid=candidate.series_instance_uid,
            findings=candidate.findings,
        )
        try:
            receipt = process(job, ports(), configuration)
        except (SeriesRejected, GateRefused) as error:
            findings = tuple(f for f in error.findings if isinstance(f, Finding))
            yield SeriesResult(candidate=candidate, findings=findings)
        else:
            yield SeriesResult(candidate=candidate, findings=receipt.findings, receipt=receipt)


def write_out(derived: DerivedSet, out: Path) -> tuple[Path, ...]:
    """Write a set's objects into ``out``: all of them or none; the paths in order of sending.

    Raises
    ------
    StateRefused
        A file of that name exists with other bytes.
    OSError
        The folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    named = {
        out / f"{instance.kind}-{place:04}-{instance.sop_instance_uid[-8:]}.dcm": instance
        for place, instance in enumerate(derived.instances, 1)
    }
    for path, instance in named.items():
        if path.exists() and path.read_bytes() != instance.content:
            raise StateRefused(
                f"{path} exists with other bytes and is never overwritten; choose another --out"
            )
    staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=out))
    try:
        for path, instance in named.items():
            (staging / path.name).write_bytes(instance.content)
        for path in named:
            (staging / path.name).rename(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return tuple(named)
