"""The knowledge base: CT slices of other subjects as ``.npy`` arrays, verified before use.

    exemplars/
      index.json        format, dimension, plane, window, encoder, subjects, tau, digests
      embeddings.npy    (n, d) float32, length 1
      position_mm.npy   (n,) float64, head frame, rising
      subject.npy       (n,) 32 ASCII bytes: keyed hash of a subject, opaque
      ct.npy            (n, rows, columns) uint8: the CT slice in the window of the index; in a
                        bundle ct.npy.z, the same bytes compressed (zlib)
      centroids.npy     (cells, d) float32 } of a large base only: clusters of similar
      cells.npy         (n,) int32         } embeddings

Never a pickle and never an index file of a search library: loading those can run code.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rebrain_node.errors import KnowledgeBaseError
from rebrain_node.model.bundle import FileRecord
from rebrain_node.retrieval.npy import NpyError, npy_bytes, read_npy
from rebrain_node.validation import faults_of

INDEX: Final = "index.json"
#: dtype and number of axes of each array
ARRAYS: Final[Mapping[str, tuple[str, int]]] = {
    "embeddings.npy": ("<f4", 2),
    "position_mm.npy": ("<f8", 1),
    "subject.npy": ("|S32", 1),
    "ct.npy": ("|u1", 3),
}
CELL_ARRAYS: Final[Mapping[str, tuple[str, int]]] = {
    "centroids.npy": ("<f4", 2),
    "cells.npy": ("<i4", 1),
}
#: the slices, and their compressed form: a third of the size
CT: Final = "ct.npy"
PACKED_CT: Final = "ct.npy.z"
_HEADER_BYTES: Final = 1024  #: at most, of a plain array
_MOST_RATIO: Final = 1100  #: no zlib stream expands by more
#: limit of the deviation of an embedding's length from 1: rounding only
LENGTH_LIMIT: Final = 1e-3
LEAST_SUBJECTS: Final = 2

FloatArray = npt.NDArray[np.float32]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SubjectRecord(_Frozen):
    """One subject of the base, named by a keyed hash only."""

    entries: int = Field(ge=1)
    licence: str


class TauRecord(_Frozen):
    """One threshold: mean over queries of the mean of the top `percent` % similarities.

    Attributes
    ----------
    acceptance : float
        Share of the queries, each subject left out in turn, whose best exemplar reaches tau.
    """

    percent: int = Field(gt=0, le=100)
    tau: float = Field(ge=-1, le=1)
    acceptance: float = Field(ge=0, le=1)


class Index(_Frozen):
    """`index.json`."""

    format: Literal[1] = 1
    encoder_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    template_sha256: str = Field(pattern="^[0-9a-f]{64}$")  #: of the head frame
    dimension: int = Field(gt=0)
    plane: tuple[int, int]  #: rows, columns of a slice
    pixel_mm: float = Field(gt=0)
    window_hu: tuple[float, float]  #: stored 0 and 255
    entries: int = Field(ge=0)
    subjects: dict[str, SubjectRecord]
    tau: tuple[TauRecord, ...] = ()  #: empty with fewer than two subjects
    files: dict[str, FileRecord]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Clusters of a large base: each row belongs to the cell of its most similar centroid."""

    centroids: FloatArray  #: (cells, d)
    of_row: npt.NDArray[np.int32]  #: (n,)


@dataclass(frozen=True, kw_only=True)
class KnowledgeBase:
    """A verified knowledge base; make one with `parse` or `read`."""

    index: Index
    embeddings: FloatArray  #: (n, d), length 1
    position_mm: npt.NDArray[np.float64]  #: (n,), rising
    subject: npt.NDArray[np.bytes_]  #: (n,), keyed hash
    ct: npt.NDArray[np.uint8]  #: (n, rows, columns)
    cells: Cells | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the index, which contains the SHA-256 of every other file."""
        return hashlib.sha256(_index_bytes(self.index)).hexdigest()

    def key(self, row: int) -> str:
        """Key of a slice: 32 digits of its subject, 16 of its pixels; the same after a rebuild."""
        pixels = hashlib.sha256(self.ct[row].tobytes()).hexdigest()[:16]
        return f"{self.subject[row].decode('ascii')}{pixels}"

    def hu(self, row: int) -> FloatArray:
        """One slice in HU, clipped to the window, (rows, columns)."""
        low, high = self.index.window_hu
        return np.asarray(low + self.ct[row] * np.float32((high - low) / 255), dtype=np.float32)

    def tau(self, percent: int) -> float:
        """Find the threshold of a percentage.

        Raises
        ------
        KnowledgeBaseError
            The base has none for it.
        """
        for record in self.index.tau:
            if record.percent == percent:
                return record.tau
        available = ", ".join(str(record.percent) for record in self.index.tau) or "none"
        raise KnowledgeBaseError(
            "KB-TAU",
            INDEX,
            f"has no tau for p = {percent} %, only {available}; build the knowledge base again",
        )


def read(folder: Path) -> KnowledgeBase:
    """Read a knowledge base from its folder.

    Raises
    ------
    KnowledgeBaseError
        It differs from its index.
    """
    if not folder.is_dir() or folder.is_symlink():
        raise KnowledgeBaseError(
            "KB-FILES", folder, "is not a folder; name the folder of a knowledge base"
        )
    contents: dict[str, bytes] = {}
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            raise KnowledgeBaseError("KB-FILES", path, "is not a regular file; remove it")
        contents[path.name] = path.read_bytes()
    return parse(contents, str(folder))


def parse(contents: Mapping[str, bytes], where: str) -> KnowledgeBase:
    """Verify the bytes of a knowledge base and view them as arrays, without a copy.

    Parameters
    ----------
    contents : mapping of str to bytes
        Every file of the folder by its name.
    where : str
        The folder, for messages.

    Raises
    ------
    KnowledgeBaseError
        A file is missing, altered or unexpected, or the values cannot be searched.
    """
    index = _index(contents, where)
    _check_files(contents, index, where)
    plain = dict(contents)
    if PACKED_CT in plain:
        plain[CT] = _unpacked(plain[PACKED_CT], index, f"{where}/{PACKED_CT}")
    arrays = {
        name: _array(plain[name], kind, f"{where}/{name}")
        for name, kind in {**ARRAYS, **CELL_ARRAYS}.items()
        if name in plain
    }
    _check_shapes(arrays, index, where)
    base = KnowledgeBase(
        index=index,
        embeddings=arrays["embeddings.npy"],
        position_mm=arrays["position_mm.npy"],
        subject=arrays["subject.npy"],
        ct=arrays["ct.npy"],
        cells=_cells(arrays),
    )
    _check_values(base, where)
    return base


def check_usable(base: KnowledgeBase, where: str) -> None:
    """Check that a base has slices of at least two subjects, as retrieval requires.

    Raises
    ------
    KnowledgeBaseError
        It is empty, or contains one subject only: no threshold can be computed.
    """
    if base.index.entries == 0:
        raise KnowledgeBaseError(
            "KB-EMPTY", where, "contains no slice; build it from at least two subjects"
        )
    subjects = len(base.index.subjects)
    if subjects < LEAST_SUBJECTS:
        raise KnowledgeBaseError(
            "KB-ONE-SUBJECT",
            where,
            f"contains {subjects} subject, {LEAST_SUBJECTS} or more are needed; add others, or use "
            "a bundle whose recipe does not retrieve",
        )


def contents_of(base: KnowledgeBase, *, packed: bool = False) -> dict[str, bytes]:
    """Serialise a base to the files of its folder; the index contains their digests.

    `packed` compresses the slices, as in a bundle.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        "embeddings.npy": base.embeddings.astype("<f4", copy=False),
        "position_mm.npy": base.position_mm.astype("<f8", copy=False),
        "subject.npy": base.subject.astype("|S32", copy=False),
        "ct.npy": base.ct,
    }
    if base.cells is not None:
        arrays["centroids.npy"] = base.cells.centroids.astype("<f4", copy=False)
        arrays["cells.npy"] = base.cells.of_row.astype("<i4", copy=False)
    contents = {name: npy_bytes(array) for name, array in arrays.items()}
    if packed:
        contents[PACKED_CT] = zlib.compress(contents.pop(CT), 9)
    records = {name: FileRecord.of(content) for name, content in sorted(contents.items())}
    return contents | {INDEX: _index_bytes(base.index.model_copy(update={"files": records}))}


def _index_bytes(index: Index) -> bytes:
    return (json.dumps(index.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode()


def _index(contents: Mapping[str, bytes], where: str) -> Index:
    if INDEX not in contents:
        raise KnowledgeBaseError(
            "KB-FILES", where, f"has no {INDEX}; copy the knowledge base again"
        )
    try:
        return Index.model_validate_json(contents[INDEX])
    except ValidationError as error:
        raise KnowledgeBaseError("KB-FORMAT", f"{where}/{INDEX}", faults_of(error)) from error


def _check_files(contents: Mapping[str, bytes], index: Index, where: str) -> None:
    named = set(index.files)
    arrays = (named - {PACKED_CT}) | {CT} if PACKED_CT in named and CT not in named else named
    if arrays not in (set(ARRAYS), set(ARRAYS) | set(CELL_ARRAYS)):
        raise KnowledgeBaseError(
            "KB-FILES", f"{where}/{INDEX}", f"names {sorted(named)}, expected {sorted(ARRAYS)}"
        )
    if set(contents) != named | {INDEX}:
        raise KnowledgeBaseError(
            "KB-FILES",
            where,
            f"contains {sorted(contents)}, its index names {sorted(named)}; copy it again",
        )
    for name, expected in index.files.items():
        found = FileRecord.of(contents[name])
        if found != expected:
            raise KnowledgeBaseError(
                "KB-DIGEST",
                f"{where}/{name}",
                f"expected {expected.size} bytes of SHA-256 {expected.sha256}, found "
                f"{found.size} of {found.sha256}; copy the knowledge base again",
            )


def _unpacked(content: bytes, index: Index, where: str) -> bytes:
    """Expand the slices, to no more bytes than the index says.

    Raises
    ------
    KnowledgeBaseError
        They are no zlib stream, or one of another length.
    """
    expected = index.entries * index.plane[0] * index.plane[1] + _HEADER_BYTES
    limit = max(1, min(expected, _MOST_RATIO * len(content)))
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(content, limit)
    except zlib.error as error:
        raise KnowledgeBaseError("KB-FORMAT", where, f"is no zlib stream: {error}") from error
    if not stream.eof or stream.unused_data:
        raise KnowledgeBaseError(
            "KB-FORMAT",
            where,
            f"does not end after {limit} bytes, as its index says; copy it again",
        )
    return plain


def _array(content: bytes, kind: tuple[str, int], where: str) -> npt.NDArray[Any]:
    try:
        return read_npy(content, *kind)
    except NpyError as error:
        raise KnowledgeBaseError("KB-FORMAT", where, str(error)) from error


def _check_shapes(arrays: Mapping[str, npt.NDArray[Any]], index: Index, where: str) -> None:
    expected: dict[str, tuple[int, ...]] = {
        "embeddings.npy": (index.entries, index.dimension),
        "position_mm.npy": (index.entries,),
        "subject.npy": (index.entries,),
        "ct.npy": (index.entries, *index.plane),
    }
    if "cells.npy" in arrays:
        expected["cells.npy"] = (index.entries,)
        expected["centroids.npy"] = (len(arrays["centroids.npy"]), index.dimension)
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise KnowledgeBaseError(
                "KB-DIMENSION",
                f"{where}/{name}",
                f"has the shape {arrays[name].shape}, its index says {shape}",
            )


def _cells(arrays: Mapping[str, npt.NDArray[Any]]) -> Cells | None:
    if "cells.npy" not in arrays:
        return None
    return Cells(centroids=arrays["centroids.npy"], of_row=arrays["cells.npy"])


def _check_values(base: KnowledgeBase, where: str) -> None:
    columns = base.position_mm[:, None]
    for name, values in (("embeddings", base.embeddings), ("position_mm", columns)):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if bad.size:
            raise KnowledgeBaseError(
                "KB-NAN",
                f"{where}/{name}.npy",
                f"{bad.size} rows contain values that are not finite, 0 are allowed; "
                f"the first is row {bad[0]}",
            )
    lengths = np.linalg.norm(base.embeddings, axis=1)
    if base.index.entries and float(np.abs(lengths - 1).max()) > LENGTH_LIMIT:
        row = int(np.abs(lengths - 1).argmax())
        raise KnowledgeBaseError(
            "KB-LENGTH",
            f"{where}/embeddings.npy",
            f"row {row} has the length {lengths[row]:.4f}, expected 1 within {LENGTH_LIMIT:g}",
        )
    falls = np.flatnonzero(np.diff(base.position_mm) < 0)
    if falls.size:
        raise KnowledgeBaseError(
            "KB-ORDER",
            f"{where}/position_mm.npy",
            f"falls after row {falls[0]}; rows must rise in position",
        )
    _check_subjects(base, where)
    _check_cells(base, where)


def _check_subjects(base: KnowledgeBase, where: str) -> None:
    names, counts = np.unique(base.subject, return_counts=True)
    found = {name.decode("latin-1"): int(n) for name, n in zip(names, counts, strict=True)}
    indexed = {name: record.entries for name, record in base.index.subjects.items()}
    if found != indexed:
        raise KnowledgeBaseError(
            "KB-SUBJECTS",
            f"{where}/subject.npy",
            f"contains {len(found)} subjects with {sum(found.values())} slices, its index names "
            f"{len(indexed)} with {sum(indexed.values())}, or others; build it again",
        )
    if any(len(name) != 32 or set(name) - set("0123456789abcdef") for name in found):
        raise KnowledgeBaseError(
            "KB-SUBJECTS",
            f"{where}/subject.npy",
            "names a subject by something else than a keyed hash",
        )


def _check_cells(base: KnowledgeBase, where: str) -> None:
    if base.cells is None:
        return
    centroids, of_row = base.cells.centroids, base.cells.of_row
    if not np.isfinite(centroids).all():
        raise KnowledgeBaseError(
            "KB-NAN", f"{where}/centroids.npy", "contains values that are not finite"
        )
    if len(of_row) and not (of_row.min() >= 0 and of_row.max() < len(centroids)):
        raise KnowledgeBaseError(
            "KB-DIMENSION", f"{where}/cells.npy", f"names a cell outside the {len(centroids)}"
        )
