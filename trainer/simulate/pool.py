"""The pool of simulated samples on disk.

    pool/
      index.json              format, seed, one record per subject
      <subject>/hu.npy        (n, 3, 288, 240) int16, HU of the slabs below, at and above
      <subject>/t1.npy        (n, 288, 240) uint8, canonical T1 x 255
      <subject>/brain.npy     (n, 288, 240) uint8, membership x 255
      <subject>/head.npy      (n, 288, 240) uint8, membership x 255
      <subject>/known.npy     (n, 288, 240) uint8, 255 where truth exists
      <subject>/distances.npy (n, 2) float32, mm to the slab below and above
      <subject>/missing.npy   (n,) bool, nothing was measured at the target
    <subject>/position.npy  (n,) float32, mm in the head frame; NaN where it is not known

Rows run from anterior to posterior, columns from right to left, 0.9 mm. The arrays are read by
memory map: a pool may be larger than memory.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from trainer.heads import Kind
from trainer.simulate.hounsfield import Tissues
from trainer.simulate.labels import LabelHead
from trainer.simulate.slabs import Block, Sample, draw_plan

SAMPLES_PER_DRAW: dict[Kind, int] = {"t1": 12, "labels": 8}
IMAGES = ("hu", "t1", "brain", "head", "known")
ARRAYS = (*IMAGES, "distances", "missing", "position")
_LEAST_HEAD = 0.002  # share of the plane; emptier samples are kept one time in four


class PoolRecord(BaseModel):
    """One subject of a pool: its role and the SHA-256 of each of its arrays."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    role: str
    sharp: bool
    whole_head_truth: bool
    kind: Kind = "t1"
    samples: int
    sha256: dict[str, str]


class SimulationIndex(BaseModel):
    """`index.json` of a folder of simulated subjects."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = 1
    seed: int

    @property
    def digest(self) -> str:
        """SHA-256 of the index, which names every byte of the folder."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class PoolIndex(SimulationIndex):
    """`index.json` of a pool."""

    subjects: tuple[PoolRecord, ...]


def write_index(folder: Path, index: SimulationIndex) -> None:
    """Write `index.json` last, so that a folder without it is known to be unfinished."""
    text = json.dumps(index.model_dump(mode="json"), indent=1)
    (folder / "index.json").write_text(text + "\n")


def draw_samples(
    head: Tissues | LabelHead,
    name: str,
    count: int,
    seed: int,
    gap_mm: tuple[float, float] | None = None,
    tissue_level_hu: float | None = None,
) -> Iterator[Sample]:
    """Draw `count` samples of one head; a new person after every `SAMPLES_PER_DRAW`.

    Parameters
    ----------
    gap_mm : tuple of float, optional
        As of `slabs.draw_plan`.
    tissue_level_hu : float, optional
        Shift the HU of every person so that its brain tissue has this level.
    """
    each = SAMPLES_PER_DRAW["labels" if isinstance(head, LabelHead) else "t1"]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    drawn = 0
    while drawn < count:
        person = head.drawn(rng)
        if tissue_level_hu is not None:
            person = person.levelled(tissue_level_hu)
        block = Block.of(person.anatomy, person.hu)
        for _ in range(min(each, count - drawn)):
            sample = block.cut(draw_plan(person.anatomy, rng, gap_mm))
            while (sample.head > 127).mean() < _LEAST_HEAD and rng.random() < 0.75:
                sample = block.cut(draw_plan(person.anatomy, rng, gap_mm))
            drawn += 1
            yield sample


def write_subject(folder: Path, samples: Iterator[Sample], count: int) -> dict[str, str]:
    """Write the samples of one subject and return the SHA-256 of each array file."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.memmap[tuple[int, ...], np.dtype[np.generic]]] = {}
    for row, sample in enumerate(samples):
        rows: dict[str, NDArray[np.generic]] = {name: getattr(sample, name) for name in IMAGES}
        rows["distances"] = np.array(sample.distances_mm, dtype=np.float32)
        rows["missing"] = np.array(sample.missing)
        rows["position"] = np.array(sample.position_mm, dtype=np.float32)
        for name, values in rows.items():
            if name not in arrays:
                arrays[name] = np.lib.format.open_memmap(
                    folder / f"{name}.npy", "w+", dtype=values.dtype, shape=(count, *values.shape)
                )
            arrays[name][row] = values
    for array in arrays.values():
        array.flush()
    return {
        name: hashlib.sha256((folder / f"{name}.npy").read_bytes()).hexdigest() for name in ARRAYS
    }


@dataclass(frozen=True)
class Pool:
    """A pool opened for reading; samples are numbered through all subjects chosen."""

    index: PoolIndex
    records: tuple[PoolRecord, ...]  #: subjects with the chosen role
    arrays: tuple[dict[str, NDArray[np.generic]], ...]

    @classmethod
    def open(cls, folder: Path, role: str) -> "Pool":
        """Open the subjects of `role`.

        Raises
        ------
        FileNotFoundError
            The pool has no index: `rebrain-train simulate` has not ended.
        ValueError
            No subject has this role.
        """
        index = PoolIndex.model_validate_json((folder / "index.json").read_bytes())
        records = tuple(record for record in index.subjects if record.role == role)
        if not records:
            raise ValueError(f"{folder} has no subject with the role {role}")
        arrays = tuple(
            {name: np.load(folder / r.name / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
            for r in records
        )
        return cls(index, records, arrays)

    def sample(self, subject: int, row: int) -> Sample:
        """Return one sample, copied out of the memory map."""
        rows = {name: np.array(array[row]) for name, array in self.arrays[subject].items()}
        below_mm, above_mm = rows["distances"].tolist()
        return Sample(
            **{name: rows[name] for name in IMAGES},
            distances_mm=(below_mm, above_mm),
            missing=bool(rows["missing"]),
            position_mm=float(rows["position"]),
        )
