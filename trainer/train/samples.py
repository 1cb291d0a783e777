"""From samples of a pool to a training batch, placed at random and conditioned as in the node."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rebrain_node.model.recipe import Recipe
from rebrain_node.model.source import Conditioning, SourceSlice, at_measured, between
from trainer.config import SampleDraws
from trainer.sample_rng import SampleRng
from trainer.simulate.pool import Pool
from trainer.simulate.scanner import scan, with_leukoaraiosis, with_pathology
from trainer.simulate.slabs import Sample

Scalar = TypeVar("Scalar", bound=np.generic)
_SMALLEST_BOX = 90.0  # pixels; a vertex slice must not be blown up to a whole head


def head_box(head: Tensor) -> tuple[float, float, float, float]:
    """Return centre (y, x) and size (y, x) in pixels of the head; the frame where there is none."""
    rows = torch.nonzero((head > 0.5).sum(1) > 2).flatten()
    columns = torch.nonzero((head > 0.5).sum(0) > 2).flatten()
    if len(rows) < 6 or len(columns) < 6:
        height, width = head.shape
        return (height - 1) / 2, (width - 1) / 2, 0.8 * height, 0.8 * width
    (top, bottom), (left, right) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
    return (top + bottom) / 2, (left + right) / 2, bottom - top, right - left


def _scales(
    size: tuple[float, float], frame: tuple[int, int], rng: SampleRng
) -> tuple[float, float]:
    """Return pool pixels per grid pixel along y and x, the head box fitted to 80-100 % of it."""
    height, width = (max(side, _SMALLEST_BOX) for side in size)
    along_y = height / (frame[0] * rng.between(0.80, 1.0))
    return along_y, max(along_y * rng.between(0.72, 1.15), width / frame[1])


def placement(head: Tensor, frame: tuple[int, int], fit_share: float, rng: SampleRng) -> Tensor:
    """Draw the sampling grid that places one sample on `frame`.

    Parameters
    ----------
    head : Tensor
        (rows, columns) membership in the pool's pixels.
    frame : tuple of int
        Rows and columns of the model grid.
    fit_share : float
        Chance that the head is stretched to the frame, as data without a pixel size arrive.

    Returns
    -------
    Tensor
        (1, rows, columns, 2) for `grid_sample`.
    """
    height, width = head.shape
    if rng.chance(fit_share):
        centre_y, centre_x, *size = head_box(head)
        along_y, along_x = _scales((size[0], size[1]), frame, rng)
        reach = 5.0
    else:
        centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
        along_y = rng.between(0.88, 1.12)
        along_x = along_y * rng.between(0.94, 1.06)
        reach = 12.0
    bend = functional.interpolate(
        rng.normal(1, 2, 6, 6), size=frame, mode="bicubic", align_corners=True
    )[0] * rng.between(0, 3.5)
    y = (torch.arange(frame[0])[:, None] - (frame[0] - 1) / 2 + bend[0]) * along_y
    x = (torch.arange(frame[1])[None, :] - (frame[1] - 1) / 2 + bend[1]) * along_x
    if rng.chance(0.5):
        x = -x
    angle = math.radians(rng.between(-14, 14))
    turned_x = math.cos(angle) * x - math.sin(angle) * y + centre_x + rng.between(-reach, reach)
    turned_y = math.sin(angle) * x + math.cos(angle) * y + centre_y + rng.between(-reach, reach)
    return torch.stack([2 * turned_x / (width - 1) - 1, 2 * turned_y / (height - 1) - 1], -1)[None]


def place(planes: Tensor, grid: Tensor) -> Tensor:
    """Sample `planes` (channels, rows, columns) on a grid of `placement`; 0 outside."""
    return functional.grid_sample(planes[None], grid, align_corners=True)[0]


_SHARP_WEIGHT = 1.5  # of a sample of a 1 mm head against one of a 2 mm head
_BRAIN_ONLY_WEIGHT = 0.7  # of that, where truth exists in the brain alone
# Of the samples with a measured slice: nothing but that slice is known, windowed, in 8 bits and
# stretched to the frame, as pictures without a header arrive.
_PICTURE_ALONE = 0.4
_STRETCHED = 0.2
_DROP_WIDE = 0.2
_LITTLE_BRAIN = 0.06  # share of the plane
_THIN, _HALF = 6, 127  # every sixth pixel along each axis shows how much brain there is
_DROP_BOTH_NEIGHBOURS = 0.1
_DROP_ONE_NEIGHBOUR = 0.15
_EIGHT_BIT = 0.5


@dataclass(frozen=True)
class Batch:
    """One training batch, all float32."""

    conditioning: Tensor  #: (batch, 4, rows, columns) in [-1, 1]; channel 0 is y
    distances_mm: Tensor  #: (batch, 3)
    x0: Tensor  #: (batch, 1, rows, columns) in [-1, 1], the truth
    weight: Tensor  #: (batch, 1, rows, columns), how much each pixel counts in the loss
    head: Tensor  #: (batch, 1, rows, columns), 0 or 1

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


def sample_weights(pool: Pool, samples: SampleDraws | None = None) -> Tensor:
    """Return the relative frequency of every sample of the pool, in order of its subjects."""
    samples = samples or SampleDraws()
    weights, labels = [], []
    for record, arrays in zip(pool.records, pool.arrays, strict=True):
        weight = _SHARP_WEIGHT if record.sharp else 1.0
        weight *= 1.0 if record.whole_head_truth else _BRAIN_ONLY_WEIGHT
        each = torch.full((record.samples,), weight)
        if samples.little_brain < 1:
            thin = np.asarray(arrays["brain"][:, ::_THIN, ::_THIN], np.uint8) > _HALF
            little = torch.from_numpy(thin.mean(axis=(1, 2)) < _LITTLE_BRAIN)
            each = torch.where(little, samples.little_brain * each, each)
        weights.append(each)
        labels.append(torch.full((record.samples,), record.kind == "labels"))
    return _shared(torch.cat(weights), torch.cat(labels), samples.label_share)


def _shared(weights: Tensor, labels: Tensor, share: float | None) -> Tensor:
    """Scale the weights of label maps to their share, where the pool has heads of both kinds."""
    if share is None or labels.all() or not labels.any():
        return weights
    of_labels, of_others = weights[labels].sum(), weights[~labels].sum()
    return torch.where(labels, share * weights / of_labels, (1 - share) * weights / of_others)


def locate(pool: Pool, number: int) -> tuple[int, int]:
    """Return subject and row of the sample `number`, counted through all subjects.

    Raises
    ------
    IndexError
        The pool is smaller.
    """
    for subject, record in enumerate(pool.records):
        if number < record.samples:
            return subject, number
        number -= record.samples
    raise IndexError(f"the pool has {sum(r.samples for r in pool.records)} samples")


def centred(planes: NDArray[Scalar], recipe: Recipe) -> NDArray[Scalar]:
    """Cut planes of the pool, (..., rows, columns), to the model grid about their middle."""
    rows, columns = recipe.grid.shape
    top, left = (planes.shape[-2] - rows) // 2, (planes.shape[-1] - columns) // 2
    return planes[..., top : top + rows, left : left + columns]


def _source(hu: np.ndarray, position_mm: float, recipe: Recipe, *, wide: bool) -> SourceSlice:
    far = recipe.wide_window.apply(hu) if wide else np.full(hu.shape, -1, np.float32)
    return SourceSlice(recipe.brain_window.apply(hu), far, position_mm)


def _eight_bit(source: SourceSlice) -> SourceSlice:
    rounded = np.rint((source.brain + 1) * np.float32(127.5)) / np.float32(127.5) - 1
    return SourceSlice(rounded, source.wide, source.position_mm)


def picture_alone(hu: np.ndarray, recipe: Recipe) -> Conditioning:
    """Condition on a slice of which only the 8-bit picture in the brain window is known.

    Parameters
    ----------
    hu : ndarray
        (rows, columns).
    """
    return at_measured(_eight_bit(_source(hu, 0.0, recipe, wide=False)))


def condition(hu: np.ndarray, sample: Sample, recipe: Recipe, rng: SampleRng) -> Conditioning:
    """Window the slabs, drop at random what may be unknown, and condition as the node does.

    Parameters
    ----------
    hu : ndarray
        (3, rows, columns): below, at, above.
    """
    wide = not rng.chance(_DROP_WIDE)
    below_mm, above_mm = sample.distances_mm
    slices = [
        _source(plane, z, recipe, wide=wide)
        for plane, z in zip(hu, (-below_mm, 0.0, above_mm), strict=True)
    ]
    if rng.chance(_EIGHT_BIT):
        slices = [_eight_bit(piece) for piece in slices]
    below, at, above = slices
    if sample.missing:
        return between(below, above, 0.0)
    neither = rng.chance(_DROP_BOTH_NEIGHBOURS)
    return at_measured(
        at,
        None if neither or rng.chance(_DROP_ONE_NEIGHBOUR) else below,
        None if neither or rng.chance(_DROP_ONE_NEIGHBOUR) else above,
    )


def augmented(pool: Pool, number: int, recipe: Recipe, rng: SampleRng, draws: SampleDraws) -> Batch:
    """Place, scan and condition the sample `number` of a pool; return a batch of one.

    The error of the level is doubled for a picture, which the node cannot level as well.
    """
    subject, row = locate(pool, number)
    sample = pool.sample(subject, row)
    masks = torch.from_numpy(np.stack([sample.t1, sample.brain, sample.head, sample.known]))
    planes = torch.cat([torch.from_numpy(sample.hu).float() + 1000, masks.float() / 255])
    alone = not sample.missing and rng.chance(_PICTURE_ALONE)
    fit_share = 1.0 if alone else _STRETCHED
    planes = place(planes, placement(planes[5], recipe.grid.shape, fit_share, rng))
    hu, t1, brain, head, known = planes[:3] - 1000, planes[3], planes[4], planes[5], planes[6]
    hu, t1 = with_pathology(hu, t1, brain, rng)
    if draws.leukoaraiosis > 0 and rng.chance(draws.leukoaraiosis):
        hu, t1 = with_leukoaraiosis(hu, t1, brain, rng)
    level_sd_hu = draws.level_sd_hu
    if level_sd_hu is not None and alone:
        level_sd_hu *= 2
    scanned = scan(hu, rng, level_sd_hu, brain).numpy()
    conditioning = (
        picture_alone(scanned[1], recipe) if alone else condition(scanned, sample, recipe, rng)
    )
    weight = (0.15 + (head > 0.3).float()) * (known > 0.99)
    if not pool.records[subject].whole_head_truth:
        weight = weight * torch.where(brain > 0.5, 1.0, 0.02)
    return Batch(
        conditioning=torch.from_numpy(conditioning.channels)[None],
        distances_mm=torch.tensor([conditioning.distances_mm]),
        x0=(t1.clamp(0, 1) * 2 - 1)[None, None],
        weight=weight[None, None],
        head=(head > 0.5).float()[None, None],
    )


class Source(Protocol):
    """Training samples without end."""

    def draw(self, rng: SampleRng) -> Batch:
        """Draw and augment one sample, a batch of one; the same rng give the same sample."""


def draw_batch(source: Source, rng: Sequence[SampleRng]) -> Batch:
    """Draw one sample from each of `rng`."""
    return joined([source.draw(d) for d in rng])


def joined(samples: Sequence[Batch]) -> Batch:
    """Put batches together, one after the other."""
    return Batch(
        *(torch.cat([getattr(sample, f.name) for sample in samples]) for f in fields(Batch))
    )


@dataclass(frozen=True)
class PoolSource:
    """Simulated CT with its T1, from a pool."""

    pool: Pool
    weights: Tensor
    recipe: Recipe
    draws: SampleDraws

    @classmethod
    def of(cls, pool: Pool, recipe: Recipe, samples: SampleDraws | None = None) -> "PoolSource":
        """Draw every sample of the pool as often as its head deserves and `samples` says."""
        samples = samples or SampleDraws()
        return cls(pool, sample_weights(pool, samples), recipe, samples)

    def draw(self, rng: SampleRng) -> Batch:
        """Draw, place, scan and condition one sample."""
        number = int(rng.choice(self.weights, 1))
        return augmented(self.pool, number, self.recipe, rng, self.draws)


@dataclass(frozen=True)
class SampleCache:
    """Samples drawn once and kept in memory, so that several runs learn from the same ones."""

    samples: Batch

    @classmethod
    def of(cls, source: Source, count: int, shrink: int = 1) -> "SampleCache":
        """Keep `count` samples of `source`, means over `shrink` x `shrink` pixels."""
        return cls(joined([_shrunk(source.draw(SampleRng(0, k)), shrink) for k in range(count)]))

    def draw(self, rng: SampleRng) -> Batch:
        """Draw one of the samples kept."""
        row = rng.integer(len(self.samples.x0))
        return Batch(*(getattr(self.samples, f.name)[row : row + 1] for f in fields(Batch)))


def _shrunk(batch: Batch, times: int) -> Batch:
    return Batch(
        conditioning=functional.avg_pool2d(batch.conditioning, times),
        distances_mm=batch.distances_mm,
        x0=functional.avg_pool2d(batch.x0, times),
        weight=functional.avg_pool2d(batch.weight, times),
        head=(functional.avg_pool2d(batch.head, times) > 0.5).float(),
    )
