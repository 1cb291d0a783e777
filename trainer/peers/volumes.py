"""What every method learns from and what it is given: volumes on the model grid in [-1, 1]."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rebrain_node.model.recipe import Recipe
from rebrain_node.model.source import SourceSlice
from trainer.data.dataset import SourceKind, Volume
from trainer.data.placing import Placement, source_slices
from trainer.data.protocols import Case
from trainer.sample_rng import SampleRng
from trainer.train.prepared import GAPS, GridSubject, PreparedSource

BLOCK = 13  #: slices of a block: its first and last are given at every gap of 1, 2, 3, 4 and 6
CROP = 64  #: rows and columns of a block, where the grid has more
_THICK = 0.3  # share of blocks with slices as thick as their distance


@dataclass(frozen=True)
class Pair:
    """Source and target of the same places, float32 in [-1, 1]."""

    #: slices: (batch, 2 reach + 1, rows, columns); a block: (1, 1, slice, rows, columns)
    source: Tensor
    target: Tensor
    head: Tensor  #: 1 in the head, else 0
    #: of each sample: the subject's number and the number of its middle or first slice
    rows: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TrainingVolumes:
    """The training subjects, dense, (slice, rows, columns) each."""

    prepared: PreparedSource
    sources: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]
    heads: tuple[Tensor, ...]

    @classmethod
    def of(cls, prepared: PreparedSource) -> "TrainingVolumes":
        """Window the sources as the network of the recipe sees them."""
        subjects = prepared.subjects
        return cls(
            prepared,
            tuple(torch.from_numpy(_windowed(each, prepared)) for each in subjects),
            tuple(torch.from_numpy(each.target.astype(np.float32)) for each in subjects),
            tuple(torch.from_numpy(each.mask.astype(np.float32)) for each in subjects),
        )

    def slices(self, rng: SampleRng, count: int, reach: int = 0) -> Pair:
        """Draw slices that show the head, each with `reach` neighbours on both sides.

        Beyond the ends of a volume its last slice is repeated.
        """
        rows = []
        for _ in range(count):
            subject = rng.integer(len(self.sources))
            shown = torch.nonzero(self.heads[subject].any(2).any(1)).flatten()
            rows.append((subject, int(shown[rng.integer(len(shown))])))
        around = torch.arange(-reach, reach + 1)

        def taken(volumes: tuple[Tensor, ...]) -> Tensor:
            return torch.stack([volumes[s][(k + around).clamp(0, len(volumes[s]) - 1)]
                                for s, k in rows])  # fmt: skip

        return _mirrored(taken(self.sources), taken(self.targets), taken(self.heads), rows, rng)

    def block(self, rng: SampleRng) -> Pair:
        """Draw a block of `BLOCK` successive slices, `CROP` x `CROP` pixels of each.

        Raises
        ------
        ValueError
            A training volume has fewer slices.
        """
        subject = rng.integer(len(self.sources))
        count = len(self.sources[subject])
        if count < BLOCK:
            raise ValueError(f"a training volume has {count} slices; 3-D methods need {BLOCK}")
        first = rng.integer(count - BLOCK + 1)
        window = [slice(first, first + BLOCK)]
        for size in self.sources[subject].shape[1:]:
            start = rng.integer(max(0, size - CROP) + 1)
            window.append(slice(start, start + CROP))
        source, target, head = (
            volumes[subject][None, None, *window]
            for volumes in (self.sources, self.targets, self.heads)
        )
        return _mirrored(source, target, head, [(subject, first)], rng)


def _windowed(subject: GridSubject, prepared: PreparedSource) -> Volume:
    raw = subject.raw.astype(np.float32)
    if prepared.kind == "ct":
        return np.asarray(prepared.recipe.brain_window.apply(raw), dtype=np.float32)
    return np.clip(raw, -1, 1)


def _mirrored(
    source: Tensor, target: Tensor, head: Tensor, rows: list[tuple[int, int]], rng: SampleRng
) -> Pair:
    """Exchange left and right one time in two."""
    planes = [source, target, head]
    if rng.chance(0.5):
        planes = [each.flip(-1) for each in planes]
    return Pair(planes[0], planes[1], planes[2], tuple(rows))


def sparse_block(source: Tensor, rng: SampleRng) -> Tensor:
    """Leave out slices of a block and interpolate them, as `interpolated` does a whole case.

    Parameters
    ----------
    source : Tensor
        (1, 1, `BLOCK`, rows, columns).

    Returns
    -------
    Tensor
        (1, 2, `BLOCK`, rows, columns): the interpolation, and how far the next slice given is.
    """
    gap = GAPS[rng.integer(len(GAPS))]
    volume = source[0, 0].numpy()
    if rng.chance(_THICK):
        slabs = len(volume) // gap
        given = volume[: slabs * gap].reshape(slabs, gap, *volume.shape[1:]).mean(axis=1)
        places = np.arange(slabs) * gap + (gap - 1) / 2
    else:
        given, places = volume[::gap], np.arange(0, len(volume), gap, dtype=np.float64)
    targets = np.arange(len(volume), dtype=np.float64)
    at = np.interp(targets, places, np.arange(len(places)))
    below = np.minimum(at.astype(np.int64), max(len(places) - 2, 0))
    share = (at - below).astype(np.float32)[:, None, None]
    above = np.minimum(below + 1, len(places) - 1)
    dense = (1 - share) * given[below] + share * given[above]
    return _with_distance(dense, np.abs(targets[:, None] - places).min(axis=1))


def _with_distance(dense: Volume, slices: np.ndarray) -> Tensor:
    """Put the distance to the next slice given, in slices, beside an interpolated volume."""
    far = np.broadcast_to(np.minimum(slices / 2, 1)[:, None, None], dense.shape)
    return torch.from_numpy(np.stack([dense, far]).astype(np.float32))[None]


@dataclass(frozen=True)
class GridCase:
    """One subject under a sparse protocol, on the model grid."""

    case: Case
    slices: tuple[SourceSlice, ...]  #: the slices given, rising

    @classmethod
    def of(cls, case: Case, kind: SourceKind, recipe: Recipe, placement: Placement) -> "GridCase":
        """Place the slices given as the evaluation of the bridge does."""
        return cls(case, tuple(source_slices(case, kind, recipe, placement)))

    @property
    def source(self) -> Tensor:
        """Return the slices given, (given, rows, columns)."""
        return torch.from_numpy(np.stack([each.brain for each in self.slices]))

    def interpolated(self) -> Tensor:
        """Return the source at every position synthesised, as of `sparse_block`."""
        dense = self.case.linear(self.source.numpy())
        step_mm = float(np.median(np.diff(self.case.targets_mm)))
        apart_mm = np.abs(self.case.targets_mm[:, None] - self.case.positions_mm).min(axis=1)
        return _with_distance(dense, apart_mm / step_mm)

    def averaged(self, given: Volume) -> Volume:
        """Fill positions between the slices given by the mean of both neighbours.

        The paper fills so for every method that knows no sparse sources; it prints "summing".
        """
        volume = self.case.linear(given)
        below, _ = self.case.bracket()
        missing = ~self.case.measured
        volume[missing] = (given[below[missing]] + given[below[missing] + 1]) / 2
        return volume
