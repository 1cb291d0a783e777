"""Where training samples come from: every source draws one sample from one set of rng."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from rebrain_node.model.recipe import Recipe
from trainer.sample_rng import SampleRng
from trainer.simulate.pool import Pool
from trainer.train.samples import Batch, augmented, locate, sample_weights


class Source(Protocol):
    """Training samples without end."""

    def draw(self, rng: SampleRng) -> Batch:
        """Draw and augment one sample, a batch of one; the same rng give the same sample."""
        ...


def draw_batch(source: Source, rng: Sequence[SampleRng]) -> Batch:
    """Draw one sample from each of `rng`."""
    return joined([source.draw(d) for d in rng])


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on `device`."""
    return Batch(*(getattr(batch, field.name).to(device) for field in fields(batch)))


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

    @classmethod
    def of(cls, pool: Pool, recipe: Recipe) -> "PoolSource":
        """Draw every sample of the pool as often as its head deserves."""
        return cls(pool, sample_weights(pool), recipe)

    def draw(self, rng: SampleRng) -> Batch:
        """Draw, place, scan and condition one sample."""
        subject, row = locate(self.pool, int(rng.choice(self.weights, 1)))
        record = self.pool.records[subject]
        parts = augmented(self.pool.sample(subject, row), record, self.recipe, rng)
        return Batch(*(part[None] for part in parts))


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
