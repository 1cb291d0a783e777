"""Prepares a source folder: subject by subject, with resume, split and index.

A subject that was finished before is kept where its inputs and its arrays still have the digests
that its `meta.json` names. Everything is written under another name and renamed; `dataset.json`
comes last: a folder of an interrupted run cannot be opened, and the next run completes it.
"""

import hashlib
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from trainer.data import split as splitting
from trainer.data.dataset import (
    ROLES,
    DatasetError,
    DatasetIndex,
    DatasetRecord,
    Layout,
    Meta,
    Name,
    Reading,
    Role,
    SourceKind,
    SourceSubject,
    digest_of,
    read_index,
    verify_subject,
    write_index,
    write_subject,
)
from trainer.data.layouts import where_instead

_NAME: TypeAdapter[str] = TypeAdapter(Name)


@dataclass(frozen=True)
class Task:
    """What is to be prepared."""

    layout: Layout
    kind: SourceKind  #: what the source is
    source: Path
    out: Path
    #: counts, shares, or the path of a JSON file; None keeps the split written before, or takes the
    #: layout's own
    split: str | None
    seed: int
    licence: str


@dataclass(frozen=True)
class Summary:
    """The outcome for each subject."""

    index: DatasetIndex | None  #: as written; None where every subject was refused
    #: prepared, kept: read now, and found finished
    prepared: tuple[str, ...]
    kept: tuple[str, ...]
    refused: dict[str, str]  #: reason by name


def prepare(task: Task, begun: Callable[[int], None], done: Callable[[str, str], None]) -> Summary:
    """Prepare every subject of the source and write the index.

    Parameters
    ----------
    begun : Callable
        Called with the number of subjects.
    done : Callable
        Called with each subject and its outcome: prepared, kept, or the reason of refusal.

    Raises
    ------
    DatasetError
        The source is no such layout, the folder holds another data set, or the split does not
        fit, or is fixed by the layout. Subjects that are finished stay.
    """
    found = _found(task)
    if task.split is not None and any(subject.role for subject in found):
        raise DatasetError(
            f"the layout {task.layout.name} fixes the role of each subject; omit --split"
        )
    earlier = _earlier(task, found)
    task.out.mkdir(parents=True, exist_ok=True)
    begun(len(found))
    records: dict[str, DatasetRecord] = {}
    outcomes: dict[str, str] = {}
    targets: dict[str, str] = {}
    for subject in found:
        try:
            record, outcome = _one(task, subject)
            _not_twice(record, targets)
            records[subject.name] = record
        except DatasetError as error:
            outcome = str(error)
            _forget(task.out, subject.name)
        outcomes[subject.name] = outcome
        done(subject.name, outcome)
    refused = {name: o for name, o in outcomes.items() if name not in records}
    if not records:
        _leave_nothing(task.out)
        return Summary(None, (), (), refused)
    index = _index(task, list(records.values()), found, earlier, refused)
    write_index(task.out, index)
    return Summary(
        index,
        tuple(name for name in records if outcomes[name] == "prepared"),
        tuple(name for name in records if outcomes[name] == "kept"),
        refused,
    )


def _found(task: Task) -> list[SourceSubject]:
    """List the subjects of the source.

    Raises
    ------
    DatasetError
        There is none, or those of another folder or layout are meant.
    """
    remedy = where_instead(task.layout, task.source)
    try:
        found = [] if remedy else task.layout.find(task.source)
    except DatasetError as error:
        raise DatasetError(f"{error}; expected {task.layout.expects}") from error
    if not found:
        raise DatasetError(
            f"{task.source} holds no subject in the layout {task.layout.name}, expected "
            f"{task.layout.expects}; {remedy or 'give another folder or layout'}"
        )
    return found


def _earlier(task: Task, found: list[SourceSubject]) -> DatasetIndex | None:
    """Return the index that an earlier run wrote, held against what is asked for now.

    Raises
    ------
    DatasetError
        It is of other data, of fewer, or was split in another way.
    """
    if not (task.out / "dataset.json").exists():
        return None
    index = read_index(task.out)
    gone = sorted({r.name for r in index.subjects} - {f.name for f in found})
    if index.origin != _origin(task) or index.source_kind != task.kind or gone:
        raise DatasetError(
            f"{task.out} holds another data set ({index.origin}, {index.source_kind}"
            f"{', with ' + ', '.join(gone) if gone else ''}); choose another --out"
        )
    if task.split is not None and _rule(task.split) != index.split_rule:
        raise DatasetError(
            f"{task.out} was split {index.split_rule}, seed {index.seed}; a split is kept: omit "
            "--split, or choose another --out"
        )
    return index


def _origin(task: Task) -> str:
    return f"{task.layout.name} {task.source.resolve().name}"


def _one(task: Task, subject: SourceSubject) -> tuple[DatasetRecord, str]:
    if subject.problem is not None:
        raise DatasetError(subject.problem)
    try:
        _NAME.validate_python(subject.name)
    except ValidationError as error:
        raise DatasetError(
            f"{subject.name!r} is no name for a subject: letters, digits, '.', '_' and '-', "
            "at most 64; rename it"
        ) from error
    inputs = {what: _input_digest(path) for what, path in subject.files.items()}
    kept = _finished(task, subject.name, inputs)
    if kept is not None:
        return kept, "kept"
    _forget(task.out, subject.name)
    reading = _read(task, subject)
    meta = _meta(task, subject, reading, inputs)
    return write_subject(task.out, reading.subject, task.kind, meta), "prepared"


#: what libraries raise on a damaged file, beside what this software refuses in its own words
_DAMAGES = (
    ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError,
    ValueError, struct.error, zlib.error,
)  # fmt: skip


def _read(task: Task, subject: SourceSubject) -> Reading:
    """Read one subject.

    Raises
    ------
    DatasetError
        It cannot be used: one damaged subject does not end the work on the others.
    """
    try:
        return task.layout.read(subject, task.kind)
    except _DAMAGES as error:
        files = ", ".join(map(str, subject.files.values()))
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"{files} cannot be read: {type(error).__name__}: {reason}; copy the subject again"
        ) from error


def _meta(task: Task, subject: SourceSubject, reading: Reading, inputs: dict[str, str]) -> Meta:
    root = task.source if task.source.is_dir() else task.source.parent
    return Meta(
        layout=task.layout.name,
        pixel_mm=reading.subject.pixel_mm,
        affine=reading.affine,
        files={
            what: path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
            for what, path in subject.files.items()
        },
        inputs=inputs,
        notes=reading.notes,
        sha256={},
    )


def _input_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files of a folder with their names.

    Raises
    ------
    DatasetError
        There is neither.
    """
    if path.is_file():
        return digest_of(path)
    if not path.is_dir():
        raise DatasetError(f"{path} is missing")
    whole = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        whole.update(f"{file.relative_to(path).as_posix()}\0{digest_of(file)}\n".encode())
    return whole.hexdigest()


def _finished(task: Task, name: str, inputs: dict[str, str]) -> DatasetRecord | None:
    """Return the record of a subject that was finished from these inputs and is unaltered."""
    path = task.out / name / "meta.json"
    if not path.is_file():
        return None
    try:
        meta = Meta.model_validate_json(path.read_bytes())
        record = DatasetRecord(name=name, sha256={**meta.sha256, "meta.json": digest_of(path)})
        verify_subject(task.out, record)
    except (ValidationError, DatasetError):
        return None
    same = meta.inputs == inputs and meta.layout == task.layout.name
    return record if same else None


def _not_twice(record: DatasetRecord, targets: dict[str, str]) -> None:
    """Refuse the same head under a second name: it could both train and test.

    Raises
    ------
    DatasetError
        The target was seen before.
    """
    first = targets.setdefault(record.sha256["target.npy"], record.name)
    if first != record.name:
        raise DatasetError(f"{record.name} has the same target, voxel by voxel, as {first}")


def _forget(out: Path, name: str) -> None:
    """Remove what an earlier or interrupted run left of a subject."""
    if name and "/" not in name and not name.startswith("."):
        for path in (out / name, out / f".{name}.part"):
            if path.is_dir():
                shutil.rmtree(path)


def _leave_nothing(out: Path) -> None:
    (out / "dataset.json").unlink(missing_ok=True)
    if not any(out.iterdir()):
        out.rmdir()


def _rule(split: str) -> str:
    """Return what is written of a split: a rule as it is, of a file the name alone."""
    return Path(split).name if split.endswith(".json") else split


def _index(
    task: Task,
    records: list[DatasetRecord],
    found: list[SourceSubject],
    earlier: DatasetIndex | None,
    refused: dict[str, str],
) -> DatasetIndex:
    names = [record.name for record in records]
    rule = task.split or task.layout.default_split
    kept: dict[str, Role] = {f.name: f.role for f in found if f.role is not None}
    seed = task.seed
    if earlier is not None:
        kept |= {name: role for role in ROLES for name in earlier.split.get(role, ())}
        seed = earlier.seed
        rule = task.split or earlier.split_rule
    if rule.endswith(".json"):
        split = splitting.from_file(Path(rule), names, [f.name for f in found])
        splitting.check_kept(split, kept)
    else:
        split = splitting.assign(names, rule, seed, kept)
    return DatasetIndex(
        source_kind=task.kind,
        volumetric=task.layout.volumetric,
        licence=task.licence,
        origin=_origin(task),
        split_rule=_rule(rule),
        seed=seed,
        split=split,
        subjects=tuple(records),
        refused=refused,
    )
