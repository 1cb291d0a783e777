"""Our own bridge as a method of the comparison: the default recipe, and the one-step regression.

Both are trained by `trainer.train.bridge` on the samples of `trainer.train.prepared`: sparse as
clinical series are, with both measured neighbours of a missing position.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from rebrain_node.model.recipe import Image, Objective, Recipe
from rebrain_node.model.sampling import noise_field, sample_slices
from rebrain_node.model.source import Conditioning, conditioning_at
from rebrain_node.model.unet import Network, network_of
from trainer.config import TrainConfig, Training
from trainer.data.dataset import Volume
from trainer.peers.fitting import BudgetOptimiser
from trainer.peers.volumes import GridCase, TrainingVolumes
from trainer.sample_rng import SampleRng
from trainer.train.bridge import Draws, Loss, draw_time_step
from trainer.train.samples import draw_batch

_AT_ONCE = 16  # slices evaluated together


def evaluated(network: torch.nn.Module, x: Image, s: Image, *guide: Tensor) -> Image:
    """Evaluate a bridge network, numpy in and out."""
    flow: Tensor = network(torch.from_numpy(x), torch.from_numpy(s), *guide)
    return np.asarray(flow.numpy())


class OwnPeer:
    """The bridge of a configuration; made for sparse sources."""

    def __init__(self, config: TrainConfig, objective: Objective) -> None:
        self._recipe: Recipe = config.recipe.model_copy(update={"objective": objective})
        self._training: Training = config.train.model_copy(update={"objective": objective})
        self.network: Network = network_of(self._recipe)
        self._loss = Loss(self.network, self._training)
        self._descent = BudgetOptimiser(self.network, rate=config.train.learning_rate)

    def step(self, training: TrainingVolumes, rng: SampleRng, share: float) -> float:
        """Train on one batch of the configuration's size."""
        samples = range(self._training.batch)
        batch = draw_batch(training.prepared, [rng] * len(samples))
        frame = self._recipe.grid.shape
        times = [draw_time_step(self._training, rng) for _ in samples]
        draws = Draws(torch.cat(times), rng.normal(len(samples), 1, *frame))
        loss = self._loss(batch, draws, batch.weight.sum().clamp(min=1))
        return self._descent.step(loss, share)

    def synthesise(self, given: GridCase) -> Volume:
        """Synthesise every position by the recipe's time steps; 1.0 alone for the regression."""
        regression = self._recipe.objective == "regression"
        steps = (1.0,) if regression else self._recipe.sampling
        found: list[Image] = []
        for first in range(0, len(given.case.targets_mm), _AT_ONCE):
            conditionings: list[Conditioning] = [
                conditioning_at(given.slices, float(position))
                for position in given.case.targets_mm[first : first + _AT_ONCE]
            ]
            found += sample_slices(
                partial(evaluated, self.network),
                conditionings,
                steps,
                eta=self._recipe.eta,
                noise=noise_field(self._recipe.grid.shape, 0),
            )
        return np.stack(found)
