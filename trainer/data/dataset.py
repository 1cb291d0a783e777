"""The prepared data set on disk: pairs of volumes by subject, with masks, positions and digests.

    folder/
      dataset.json           `DatasetIndex`: kind of source, split by subject, SHA-256 of every file
      <subject>/source.npy   (slice, row, column) int16 HU | float32 arbitrary | uint8 window
      <subject>/target.npy   (slice, row, column) float32, arbitrary units
      <subject>/mask.npy     (slice, row, column) bool, the head
      <subject>/brain.npy    (slice, row, column) bool, inside the skull; may be absent
      <subject>/positions.npy (slice,) float64, mm, rising
      <subject>/meta.json    `Meta`: pixel size, affine, where it came from, what was done to it

Slices rise from inferior to superior, rows run from anterior to posterior, columns from the
patient's right to left. `dataset.json` is written last: a folder without it is unfinished.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from rebrain_node.errors import RebrainError
from rebrain_node.validation import faults_of

SourceKind = Literal["ct", "ct-window", "mr"]
Role = Literal["train", "validation", "test"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Affine = tuple[tuple[float, float, float, float], ...]  # 4 x 4

ROLES: tuple[Role, ...] = ("train", "validation", "test")
ARRAYS = ("source", "target", "mask", "positions")
#: on-disk type of the source: HU are whole numbers, a windowed CT has 256 levels
SOURCE_DTYPE: dict[SourceKind, type[np.generic]] = {
    "ct": np.int16,
    "ct-window": np.uint8,
    "mr": np.float32,
}


class DatasetError(RebrainError):
    """Data cannot be used; the message names the file or subject, the reason and the remedy."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Meta(_Frozen):
    """`meta.json` of one subject."""

    layout: str = ""  #: name of the layout that it was read from
    #: distance between rows and between columns, mm; None where unknown
    pixel_mm: tuple[float, float] | None
    affine: Affine | None  #: LPS mm = affine @ (column, row, slice, 1); None where unknown
    files: dict[str, str]  #: files read, by what they hold, relative to the source folder
    #: SHA-256 of what was read, by file; a change makes the subject unfinished
    inputs: dict[str, str]
    #: what was done beyond copying: axes flipped, resampled, registered, mask computed
    notes: tuple[str, ...]
    sha256: dict[str, str]  #: of each array file of this subject


class DatasetRecord(_Frozen):
    """One subject of `dataset.json`: the SHA-256 of each of its files."""

    name: Name
    sha256: dict[str, str]


class DatasetIndex(_Frozen):
    """`dataset.json`."""

    format: Literal[1] = 1
    source_kind: SourceKind
    #: true where slices of a subject have positions in mm and follow each other in space
    volumetric: bool
    licence: str
    origin: str
    split_rule: str  #: what the split was asked to be, e.g. "14/3/3".
    seed: int  #: of the random split
    split: dict[Role, tuple[Name, ...]]  #: names by role; every subject has exactly one
    subjects: tuple[DatasetRecord, ...]
    refused: dict[str, str] = {}  #: reason by name, of subjects that could not be used


@dataclass(frozen=True)
class Subject:
    """One pair of volumes, all arrays (slice, row, column)."""

    name: str
    #: HU, or window levels 0 to 255, or arbitrary units, as the data set's `source_kind` says
    source: Volume
    target: Volume  #: MR, arbitrary units
    mask: Mask  #: the head
    brain: Mask | None  #: inside the skull
    #: (slice,) rising from inferior to superior; slice numbers where mm are unknown
    positions_mm: NDArray[np.float64]
    pixel_mm: tuple[float, float] | None  #: distance between rows and between columns


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_subject(subject: Subject) -> None:
    """Check what every reader of a subject relies on.

    Raises
    ------
    DatasetError
        Shapes differ, fewer than two slices, values that are not finite, an empty mask, or
        positions that do not rise.
    """
    shape = subject.source.shape
    others = [subject.target, subject.mask]
    others += [] if subject.brain is None else [subject.brain]
    if len(shape) != 3 or any(array.shape != shape for array in others):
        shapes = ", ".join(str(a.shape) for a in [subject.source, *others])
        raise DatasetError(f"{subject.name}: shapes {shapes} differ or are not 3-D")
    if shape[0] < 2:
        raise DatasetError(f"{subject.name}: {shape[0]} slice; a volume needs at least 2")
    for name, volume in (("source", subject.source), ("target", subject.target)):
        bad = int(np.count_nonzero(~np.isfinite(volume)))
        if bad:
            raise DatasetError(f"{subject.name}: {bad} values of the {name} are not finite")
    if not subject.mask.any():
        raise DatasetError(f"{subject.name}: the mask of the head is empty")
    positions = subject.positions_mm
    if positions.shape != shape[:1] or not (np.diff(positions) > 0).all():
        raise DatasetError(
            f"{subject.name}: {positions.shape} positions for {shape[0]} slices, or not rising"
        )


def write_subject(folder: Path, subject: Subject, kind: SourceKind, meta: Meta) -> DatasetRecord:
    """Write a subject under another name, then rename: a folder with its name is complete.

    Parameters
    ----------
    meta : Meta
        Without digests of the arrays; they are filled in here.

    Raises
    ------
    DatasetError
        The subject is not fit to be read back (`check_subject`), or is there already.
    """
    check_subject(subject)
    part, whole = folder / f".{subject.name}.part", folder / subject.name
    if whole.exists():
        raise DatasetError(f"{whole} exists; a finished subject is never overwritten")
    try:
        part.mkdir(parents=True)
        record = _write_arrays(part, subject, kind, meta)
        part.rename(whole)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return record


def _write_arrays(part: Path, subject: Subject, kind: SourceKind, meta: Meta) -> DatasetRecord:
    arrays: dict[str, NDArray[np.generic]] = {
        "source": subject.source.astype(SOURCE_DTYPE[kind]),
        "target": subject.target.astype(np.float32),
        "mask": subject.mask,
        "positions": subject.positions_mm,
    }
    if subject.brain is not None:
        arrays["brain"] = subject.brain
    for name, array in arrays.items():
        np.save(part / f"{name}.npy", np.ascontiguousarray(array))
    sha256 = {f"{name}.npy": digest_of(part / f"{name}.npy") for name in arrays}
    (part / "meta.json").write_text(
        meta.model_copy(update={"sha256": sha256}).model_dump_json(indent=1) + "\n"
    )
    sha256["meta.json"] = digest_of(part / "meta.json")
    return DatasetRecord(name=subject.name, sha256=sha256)


def write_index(folder: Path, index: DatasetIndex) -> None:
    """Write `dataset.json` as a whole, last of all.

    Raises
    ------
    DatasetError
        A subject has no role, or more than one.
    """
    check_split(index, folder / "dataset.json")
    part = folder / ".dataset.json.part"
    part.write_text(json.dumps(index.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    part.replace(folder / "dataset.json")


def check_split(index: DatasetIndex, path: Path) -> None:
    """Check that every subject has exactly one role.

    Raises
    ------
    DatasetError
        A subject has two roles or none, is listed twice, or is not in the data set.
    """
    names = [record.name for record in index.subjects]
    listed = [name for role in ROLES for name in index.split.get(role, ())]
    for name in sorted({*names, *listed}):
        roles = [role for role in ROLES for other in index.split.get(role, ()) if other == name]
        if names.count(name) != 1 or len(roles) != 1:
            raise DatasetError(
                f"{path}: subject {name} is listed {names.count(name)} times and has "
                f"{' and '.join(roles) or 'no role'}; every subject has exactly one role"
            )


def read_index(folder: Path) -> DatasetIndex:
    """Read and check `dataset.json`.

    Raises
    ------
    DatasetError
        There is none, or it is not what this version writes.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        places = [*sorted(folder.glob("*/dataset.json")), folder.parent / path.name]
        near = [place for place in places if place.is_file()]
        remedy = f"; {near[0].parent} is one: give that" if near else "; `prepare` makes it"
        raise DatasetError(f"{path} is missing: not a prepared data set, or not finished{remedy}")
    try:
        index = DatasetIndex.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DatasetError(f"{path}: {faults_of(error)}") from error
    check_split(index, path)
    return index


def verify_subject(folder: Path, record: DatasetRecord) -> None:
    """Check every file of a subject against its digest.

    Raises
    ------
    DatasetError
        A file is missing or has other bytes.
    """
    for name, expected in record.sha256.items():
        path = folder / record.name / name
        if not path.is_file():
            raise DatasetError(f"{path} is missing; prepare the data again")
        if digest_of(path) != expected:
            raise DatasetError(f"{path} differs from its SHA-256; prepare the data again")


@dataclass(frozen=True)
class PreparedData:
    """A data set opened for reading."""

    source_kind: SourceKind  #: HU, brain window C40 W80 as 0 to 255, or arbitrary units
    #: true where positions are millimetres and slices of a subject are neighbours in space
    volumetric: bool
    split: Mapping[str, tuple[str, ...]]  #: names of subjects by role "train", "validation", "test"
    #: licence, origin: of the data, for reports and model cards
    licence: str
    origin: str
    digest: str  #: SHA-256 of `dataset.json` (which names every byte), or of the archive
    load: Callable[[str], Subject]  #: reads one subject by its name

    @classmethod
    def open(cls, folder: Path, verify: bool = True) -> "PreparedData":
        """Open a prepared folder and check every file against its digest.

        Raises
        ------
        DatasetError
            The folder is unfinished, was altered, or its split is not one.
        """
        index = read_index(folder)
        if verify:
            for record in index.subjects:
                verify_subject(folder, record)
        return cls(
            source_kind=index.source_kind,
            volumetric=index.volumetric,
            split={role: index.split.get(role, ()) for role in ROLES},
            licence=index.licence,
            origin=index.origin,
            digest=digest_of(folder / "dataset.json"),
            load=partial(_load, folder),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All subjects, role by role."""
        return tuple(name for role in ROLES for name in self.split[role])

    def subject(self, name: str) -> Subject:
        """Read one subject.

        Raises
        ------
        DatasetError
            There is no such subject, or the arrays do not fit each other.
        """
        if name not in self.names:
            raise DatasetError(f"no subject {name}; there are {', '.join(self.names)}")
        subject = self.load(name)
        check_subject(subject)
        return subject


def _load(folder: Path, name: str) -> Subject:
    stored = folder / name
    meta = Meta.model_validate_json((stored / "meta.json").read_bytes())
    arrays = {key: np.load(stored / f"{key}.npy") for key in ARRAYS}
    return Subject(
        name=name,
        source=arrays["source"].astype(np.float32),
        target=arrays["target"].astype(np.float32),
        mask=arrays["mask"].astype(np.bool_),
        brain=(
            np.load(stored / "brain.npy").astype(np.bool_) if "brain.npy" in meta.sha256 else None
        ),
        positions_mm=arrays["positions"].astype(np.float64),
        pixel_mm=meta.pixel_mm,
    )


@dataclass(frozen=True)
class SourceSubject:
    """One subject of a source folder, not yet read."""

    name: str
    files: dict[str, Path]  #: file or folder by what it holds: source, target, mask
    #: why the subject cannot be used, where that is known without reading it
    problem: str | None = None
    role: Role | None = None  #: fixed by the source; None where the split is random


@dataclass(frozen=True)
class Reading:
    """One subject, read."""

    subject: Subject
    #: 4 x 4: LPS mm = affine @ (column, row, slice, 1); None where there is none
    affine: Affine | None
    notes: tuple[str, ...]  #: what was done to the voxels beyond copying them


@dataclass(frozen=True)
class Layout:
    """One layout of source data in folders."""

    name: str
    kind: SourceKind | None  #: what the source is; None where the user must state it
    find: Callable[[Path], list[SourceSubject]]  #: lists the subjects of a source folder
    read: Callable[[SourceSubject, SourceKind], Reading]  #: reads one of them
    expects: str  #: how the files of a subject lie in SOURCE
    licence: str = "not stated"
    volumetric: bool = True
    default_split: str = "0.7/0.15/0.15"  #: shares of the roles train/validation/test
