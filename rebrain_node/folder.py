"""A folder of instances in, a folder of derived objects out, no network: `rebrain-node process`.

The same path as in the node, over a folder instead of the inbox. Nothing half-done is left: the
objects are written into a hidden folder beside their place and moved once all are there, and a
file that exists with other bytes is never overwritten.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydicom.dataset import Dataset

from rebrain_node.blobs import sync_folder, write_file
from rebrain_node.domain.audit import Event
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.job import DerivedSet, Job, Receipt
from rebrain_node.domain.limits import Limits
from rebrain_node.domain.ood import OodScore
from rebrain_node.domain.selection import Candidate
from rebrain_node.domain.set_manifest import SetManifest
from rebrain_node.engine.loaded import LoadedModel
from rebrain_node.errors import (
    GateError,
    InstanceError,
    SeriesRejectedError,
    StateError,
)
from rebrain_node.instance.codecs import register
from rebrain_node.instance.content import same_content
from rebrain_node.instance.read import read_instance
from rebrain_node.instance.scan import scan
from rebrain_node.pipeline import Configuration, Ports, judge_study, process
from rebrain_node.ports import JsonValue
from rebrain_node.steps.sign import NodeSigner

Progress = Callable[[str, int, int], None]  #: (what is done, done, in all)


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
    #: files that hold an instance of another file with other content, by Series Instance UID
    disputed: Mapping[str, int] = field(default_factory=dict)

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
    ood: OodScore | None = None  #: None where it was not computed
    unfit: bool = False  #: accepted by its headers and refused on the way

    @property
    def decision(self) -> Literal["accepted", "refused"]:
        """``accepted`` only if a result was made."""
        return "refused" if self.receipt is None else "accepted"

    @property
    def sentence(self) -> str:
        """Why, in one sentence: that of the deciding finding."""
        return self.findings[0].sentence if self.findings else self.candidate.sentence


class NoAuditLog:
    """The audit log of a command that keeps none (port ``AuditLog``): every row is dropped."""

    def record(self, event: Event, subject: str, details: Mapping[str, JsonValue]) -> None:
        """Drop the row."""

    def head(self) -> None:
        """Return None: there is no hash chain."""

    def checkpoint(self) -> None:
        """Return None: nothing is signed."""


def read_folder(folder: Path, progress: Progress | None = None) -> Folder:
    """Read every file below ``folder``; files that are no DICOM instances are listed as refused.

    Hidden files and DICOMDIR are not instances and are left out. An instance twice, in
    whatever encoding, counts once.

    Raises
    ------
    OSError
        The folder or a file cannot be read.
    """
    register()
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and _may_be_instance(path))
    first = dict[str, Path]()  #: by SOP Instance UID
    instances, refused, sha256 = dict[str, Dataset](), [], dict[str, str]()
    disputed: Counter[str] = Counter()
    for done, path in enumerate(paths, 1):
        content = path.read_bytes()
        try:
            uid = scan(content).sop_instance_uid
            if uid not in first:
                first[uid], sha256[uid] = path, hashlib.sha256(content).hexdigest()
                instances[uid] = read_instance(content)
            elif not _is_same(first[uid].read_bytes(), content):
                disputed[str(instances[uid].SeriesInstanceUID)] += 1
                refused.append(_refused(path.relative_to(folder), "CONFLICT", _twice(uid)))
        except InstanceError as error:
            refused.append(_refused(path.relative_to(folder), error.reason, str(error)))
        if progress is not None:
            progress("read", done, len(paths))
    return Folder(
        instances=tuple(instances.values()),
        sha256=sha256,
        refused=tuple(refused),
        disputed=disputed,
    )


def _may_be_instance(path: Path) -> bool:
    return not path.name.startswith(".") and path.name != "DICOMDIR"


def _is_same(first: bytes, content: bytes) -> bool:
    return content == first or same_content(first, content)


def _refused(path: Path, code: str, sentence: str) -> RefusedFile:
    return RefusedFile(path=str(path), code=code, sentence=sentence)


def _twice(uid: str) -> str:
    return (
        f"SOP Instance UID {uid} stands in the folder twice with different content; "
        "keep the right one"
    )


def judge_folder(
    folder: Folder, limits: Limits, unfit: Mapping[str, Sequence[Finding]] | None = None
) -> tuple[Candidate, ...]:
    """Judge every study of the folder; a series in dispute is refused whatever else it is.

    `unfit` holds what was found of series that were tried and refused on the way.
    """
    return tuple(
        _refuse_disputed(candidate, folder.disputed.get(candidate.series_instance_uid, 0))
        for candidate in judge_study(folder.instances, limits, unfit).candidates
    )


def _refuse_disputed(candidate: Candidate, files: int) -> Candidate:
    if not files:
        return candidate
    finding = Finding(
        code="ID-DISPUTED",
        sentence=(
            f"{'1 file' if files == 1 else f'{files} files'} of the folder repeat an instance of "
            "this series with other content, e.g. another name or Patient ID; leave only the right "
            "ones in the folder"
        ),
        value=float(files),
        limit=0.0,
    )
    return replace(candidate, decision="refused", findings=(finding, *candidate.findings))


def process_studies(
    folder: Folder,
    configuration: Configuration,
    model: Callable[[], LoadedModel],
    signer: NodeSigner,
    progress: Progress | None = None,
) -> Iterator[SeriesResult]:
    """Judge every study of the folder and process the accepted series.

    A series that is refused on the way makes way for the next of its study that will do.

    Parameters
    ----------
    model : callable
        Called once a series is accepted and not before: opening a model takes seconds.
    signer : NodeSigner
        In whose name the manifests are signed.
    progress : callable, optional
        Called with the number of slices that are synthesised.
    """
    candidates = judge_folder(folder, configuration.limits)
    results: dict[str, SeriesResult] = {}
    unfit: dict[str, tuple[Finding, ...]] = {}
    while due := [c for c in candidates if _is_due(c, results)]:
        ports = Ports(
            inbox=folder,
            audit=NoAuditLog(),
            model=model(),
            signer=signer,
            progress=None if progress is None else partial(progress, "synthesise"),
        )
        result = _process(due[0], ports, configuration)
        results[due[0].series_instance_uid] = result
        if result.unfit:
            unfit[due[0].series_instance_uid] = result.findings
            candidates = judge_folder(folder, configuration.limits, unfit)
    for candidate in candidates:
        judged = SeriesResult(candidate=candidate, findings=candidate.findings)
        yield results.get(candidate.series_instance_uid, judged)


def _is_due(candidate: Candidate, results: Mapping[str, SeriesResult]) -> bool:
    return candidate.decision == "accepted" and candidate.series_instance_uid not in results


def _process(candidate: Candidate, ports: Ports, configuration: Configuration) -> SeriesResult:
    job = Job(
        study_instance_uid=candidate.study_instance_uid,
        series_instance_uid=candidate.series_instance_uid,
        findings=candidate.findings,
    )
    try:
        receipt = process(job, ports, configuration)
    except (SeriesRejectedError, GateError) as error:
        return SeriesResult(
            candidate=candidate,
            findings=error.findings,
            ood=error.ood,
            unfit=isinstance(error, SeriesRejectedError),
        )
    return SeriesResult(
        candidate=candidate, findings=receipt.findings, receipt=receipt, ood=receipt.ood
    )


def write_out(
    derived: DerivedSet, manifest: SetManifest, out: Path
) -> tuple[tuple[Path, ...], Path]:
    """Write a set's objects and manifest into ``out``, durably.

    They are moved into place once the bytes of all are on disk.

    Returns
    -------
    objects : tuple of Path
        In order of sending.
    manifest : Path

    Raises
    ------
    StateError
        A file of that name exists with other bytes.
    OSError
        The folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    objects = {
        out / f"{instance.kind}-{place:04}-{instance.sop_instance_uid[-8:]}.dcm": instance.content
        for place, instance in enumerate(derived.instances, 1)
    }
    beside = out / manifest.file_name
    named = {**objects, beside: manifest.text.encode("ascii")}
    for path, content in named.items():
        if path.exists() and path.read_bytes() != content:
            raise StateError(
                f"{path} exists with other bytes and is never overwritten; choose another --out"
            )
    staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=out))
    try:
        for path, content in named.items():
            write_file(staging / path.name, content, mode=0o666)  # less the umask
        for path in named:
            (staging / path.name).rename(path)
        sync_folder(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return tuple(objects), beside
