"""From pool samples to a training batch, through the node's own conditioning."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rebrain_node.model.recipe import Recipe
from rebrain_node.model.source import Conditioning, SourceSlice, at_measured, between
from trainer.sample_rng import SampleRng
from trainer.simulate.pool import Pool, SubjectRecord
from trainer.simulate.scanner import scan, with_pathology
from trainer.simulate.slabs import Sample
from trainer.train.placement import place, placement

_SHARP_WEIGHT = 1.5  # of a sample of a 1 mm head against one of a 2 mm head
_BRAIN_ONLY_WEIGHT = 0.7  # of that, where truth exists in the brain alone
# Of the samples with a measured slice: nothing but that slice is known, windowed, in 8 bits and
# stretched to the frame, as pictures without a header arrive.
_PICTURE_ALONE = 0.4
_STRETCHED = 0.2
_DROP_WIDE = 0.2
_DROP_BOTH_NEIGHBOURS = 0.1
_DROP_ONE_NEIGHBOUR = 0.15
_EIGHT_BIT = 0.5


@dataclass(frozen=True)
class Batch:
    """One training batch, all float32.

    Attributes
    ----------
    conditioning : Tensor
        (batch, 4, rows, columns) in [-1, 1]; channel 0 is y.
    distances_mm : Tensor
        (batch, 3).
    x0 : Tensor
        (batch, 1, rows, columns) in [-1, 1], the truth.
    weight : Tensor
        (batch, 1, rows, columns), how much each pixel counts in the loss.
    head : Tensor
        (batch, 1, rows, columns), 0 or 1.
    """

    conditioning: Tensor
    distances_mm: Tensor
    x0: Tensor
    weight: Tensor
    head: Tensor


def sample_weights(pool: Pool) -> Tensor:
    """Return the relative frequency of every sample of the pool, in order of its subjects."""
    weights = []
    for record in pool.records:
        weight = _SHARP_WEIGHT if record.sharp else 1.0
        weight *= 1.0 if record.whole_head_truth else _BRAIN_ONLY_WEIGHT
        weights.append(torch.full((record.samples,), weight))
    return torch.cat(weights)


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


def augmented(
    sample: Sample, record: SubjectRecord, recipe: Recipe, rng: SampleRng
) -> list[Tensor]:
    """Place and scan one sample; return the parts of a `Batch` without their first axis."""
    masks = torch.from_numpy(np.stack([sample.t1, sample.brain, sample.head, sample.known]))
    planes = torch.cat([torch.from_numpy(sample.hu).float() + 1000, masks.float() / 255])
    alone = not sample.missing and rng.chance(_PICTURE_ALONE)
    fit_share = 1.0 if alone else _STRETCHED
    planes = place(planes, placement(planes[5], recipe.grid.shape, fit_share, rng))
    hu, t1, brain, head, known = planes[:3] - 1000, planes[3], planes[4], planes[5], planes[6]
    hu, t1 = with_pathology(hu, t1, brain, rng)
    scanned = scan(hu, rng).numpy()
    conditioning = (
        picture_alone(scanned[1], recipe) if alone else condition(scanned, sample, recipe, rng)
    )
    weight = (0.15 + (head > 0.3).float()) * (known > 0.99)
    if not record.whole_head_truth:
        weight = weight * torch.where(brain > 0.5, 1.0, 0.02)
    return [
        torch.from_numpy(conditioning.channels),
        torch.tensor(conditioning.distances_mm),
        (t1.clamp(0, 1) * 2 - 1)[None],
        weight[None],
        (head > 0.5).float()[None],
    ]
