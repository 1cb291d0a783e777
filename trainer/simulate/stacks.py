"""Simulated CT stacks of a head with the true position of every slice, for training the encoder.

    stacks/
      index.json            format, seed, one record per subject
      <subject>.npz         slices (n, 128, 104) uint8, brain window at 1.8 mm;
                            mr (n, 128, 104) uint8, the T1 there, canonical, black to white;
                            position_mm (n,) float64, head frame; stack (n,) int32, which stack;
                            rank (n,) int32, place within it, rising from inferior to superior

Each head is drawn in HU anew for every stack, nods, and passes a scanner of its own. Most stacks
step by their thickness, as a hospital's do; the last one of a head steps by 1 mm, so that what
lies between measured slices is learned too.
"""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from rebrain_node.domain.headframe import plane_position_mm
from rebrain_node.domain.volume import FloatArray, MillimetreArray
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.resample import halved
from trainer.heads import Head
from trainer.simulate.hounsfield import (
    MOST_STRETCH,
    Tissues,
    mni_from_voxel,
    stretch,
)
from trainer.simulate.labels import LabelHead, read_maps
from trainer.simulate.pool import SimulationIndex
from trainer.simulate.slabs import scanned_series

THICK_STACKS = 4


@dataclass(frozen=True)
class Slices:
    """Slices of several subjects with their embeddings."""

    embedding: FloatArray  #: (n, d), of length 1
    subject: NDArray[np.integer]  #: (n,)
    position_mm: MillimetreArray  #: (n,), head frame

    def __getitem__(self, chosen: NDArray[np.generic]) -> "Slices":
        """Return the slices at these indices, or where this mask is true."""
        return Slices(self.embedding[chosen], self.subject[chosen], self.position_mm[chosen])


@dataclass(frozen=True)
class Stack:
    """One simulated series as the encoder sees it."""

    slices: NDArray[np.uint8]  #: (n, 128, 104), brain window 0 to 255, 1.8 mm
    mr: NDArray[np.uint8]  #: (n, 128, 104), canonical T1 0 to 255, 1.8 mm
    position_mm: MillimetreArray  #: (n,), head frame, rising
    #: (n,) number of the slice in the series; a gap where a slice was left out
    rank: NDArray[np.int32]


class StackRecord(BaseModel):
    """One subject of a folder of stacks."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    role: str
    licence: str
    slices: int
    sha256: str


class StackIndex(SimulationIndex):
    """`index.json` of a folder of stacks."""

    subjects: tuple[StackRecord, ...]


def draw_stacks(head: Tissues | LabelHead, name: str, seed: int, recipe: Recipe) -> Iterator[Stack]:
    """Draw `THICK_STACKS` stacks in steps of their thickness and one in steps of 1 mm."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    for _ in range(THICK_STACKS):
        thickness = float(rng.uniform(4, 6))
        yield draw_stack(head, rng, thickness, thickness, recipe)
    yield draw_stack(head, rng, float(rng.uniform(3, 5)), 1.0, recipe)


def draw_stack(
    head: Tissues | LabelHead, rng: Generator, thickness_mm: float, step_mm: float, recipe: Recipe
) -> Stack:
    """Draw one series: a new HU volume, a nod of -22 to +12 degrees, one scanner."""
    affine = mni_from_voxel(head)
    series = scanned_series(head, affine, rng, thickness_mm, step_mm)
    turn, centre = series.plan.rotation, series.plan.centre[::-1]
    inside, _, t1 = series.truth.swapaxes(0, 1)
    window = _centred((inside > 0.5).any(axis=0), recipe.grid.shape)
    brain = halved(recipe.brain_window.apply(series.hu[:, *window]))
    return Stack(
        slices=np.rint((brain + 1) * 127.5).astype(np.uint8),
        mr=np.rint(np.clip(halved(t1[:, *window]), 0, 1) * 255).astype(np.uint8),
        position_mm=np.array(
            [
                plane_position_mm(affine, centre + turn[:, 2] * offset, turn[:, 0], turn[:, 1])
                for offset in series.offsets_mm
            ]
        ),
        rank=series.rank,
    )


def _centred(head: NDArray[np.bool_], shape: tuple[int, int]) -> tuple[slice, slice]:
    """Return the window of `shape` about the middle of the head, as the node centres it."""
    spans = []
    for axis, size in enumerate(shape):
        found = np.flatnonzero(head.any(axis=1 - axis))
        first = int(np.clip((found[0] + found[-1] + 1 - size) // 2, 0, head.shape[axis] - size))
        spans.append(slice(first, first + size))
    return spans[0], spans[1]


def write_subject(path: Path, stacks: Iterator[Stack]) -> tuple[int, str]:
    """Write the stacks of one subject; returns the number of slices and the SHA-256."""
    drawn = list(stacks)
    arrays = {
        "slices": np.concatenate([s.slices for s in drawn]),
        "mr": np.concatenate([s.mr for s in drawn]),
        "position_mm": np.concatenate([s.position_mm for s in drawn]),
        "stack": np.repeat(np.arange(len(drawn), dtype=np.int32), [len(s.rank) for s in drawn]),
        "rank": np.concatenate([s.rank for s in drawn]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type] # arrays only
    return len(arrays["rank"]), hashlib.sha256(path.read_bytes()).hexdigest()


def stack_head(
    head: Head, maps: Path, folder: Path, seed: int, recipe: Recipe
) -> StackRecord | None:
    """Draw and write the stacks of one head, unless the folder has them; return its record.

    Returns
    -------
    StackRecord or None
        None where the head's own positions cannot be trusted (`hounsfield.stretch`).

    Raises
    ------
    FileNotFoundError
        The head has no maps: run `rebrain-train tissue-maps` first.
    """
    torch.set_num_threads(1)
    finished = folder / f"{head.name}.json"
    if finished.exists():
        return StackRecord.model_validate_json(finished.read_bytes())
    anatomy = read_maps(maps / f"{head.name}.npz")
    if stretch(mni_from_voxel(anatomy)) > MOST_STRETCH:
        return None
    count, digest = write_subject(
        folder / f"{head.name}.npz", draw_stacks(anatomy, head.name, seed, recipe)
    )
    record = StackRecord(
        name=head.name, role=head.role, licence=head.licence, slices=count, sha256=digest
    )
    finished.write_text(record.model_dump_json(indent=1) + "\n")
    return record


@dataclass(frozen=True)
class Stacks:
    """All slices of the subjects of some roles, in order of subject, stack and rank."""

    #: slices, mr: (n, 128, 104)
    slices: NDArray[np.uint8]
    mr: NDArray[np.uint8]
    position_mm: MillimetreArray  #: (n,)
    #: subject, stack, rank: (n,) each; `stack` numbers the series through all subjects
    subject: NDArray[np.int32]
    stack: NDArray[np.int32]
    rank: NDArray[np.int32]
    names: tuple[str, ...]  #: of the subjects
    digest: str  #: of the index

    def thick(self) -> "Stacks":
        """Return the series in steps of their thickness alone, as hospitals acquire them."""
        last = {int(s): int(self.stack[self.subject == s].max()) for s in np.unique(self.subject)}
        kept = self.stack != np.array([last[int(s)] for s in self.subject])
        return replace(
            self,
            slices=self.slices[kept],
            mr=self.mr[kept],
            position_mm=self.position_mm[kept],
            subject=self.subject[kept],
            stack=self.stack[kept],
            rank=self.rank[kept],
        )

    def embedded(self, embedding: NDArray[np.float32], after: int = 0) -> Slices:
        """Return the slices as the retrieval report takes them; subjects count from `after`."""
        return Slices(embedding, self.subject + after, self.position_mm)

    @classmethod
    def open(cls, folder: Path, *roles: str) -> "Stacks":
        """Read the subjects of `roles`.

        Raises
        ------
        FileNotFoundError
            The folder has no index.
        ValueError
            No subject has one of these roles, or a file is not what the index says.
        """
        index = StackIndex.model_validate_json((folder / "index.json").read_bytes())
        records = [record for record in index.subjects if record.role in roles]
        if not records:
            raise ValueError(f"{folder} has no subject with a role of {', '.join(roles)}")
        read = []
        for record in records:
            path = folder / f"{record.name}.npz"
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found != record.sha256:
                raise ValueError(f"{path}: expected SHA-256 {record.sha256}, found {found}")
            with np.load(path, allow_pickle=False) as arrays:
                read.append(dict(arrays))
        counts = [int(arrays["stack"].max()) + 1 for arrays in read]
        before = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32)
        return cls(
            slices=np.concatenate([a["slices"] for a in read]),
            mr=np.concatenate([a["mr"] for a in read]),
            position_mm=np.concatenate([a["position_mm"] for a in read]),
            subject=np.repeat(np.arange(len(read), dtype=np.int32), [len(a["rank"]) for a in read]),
            stack=np.concatenate([a["stack"] + b for a, b in zip(read, before, strict=True)]),
            rank=np.concatenate([a["rank"] for a in read]),
            names=tuple(record.name for record in records),
            digest=index.digest,
        )
