"""Dual-approximator Bridge: a Brownian bridge walked back without drawing noise.

Source: Xiao et al., "Deterministic image-to-image translation via denoising Brownian bridge models
with dual approximators", CVPR 2025.

Kept: two networks, one that estimates the target from a state of the bridge and one that estimates
the noise in that state; a step back puts both estimates in the place of the target and of fresh
noise, so that the same source always gives the same target.

Left out: the authors' networks (two small U-Nets here) and their weighting of the time steps. The
paper's description does not settle the first step, where the state is the source and holds no
noise: the estimate there is what its network learned for it, the mean of all noise.
"""

import numpy as np
import torch
from torch import Tensor, nn

from rebrain_node.model import bridge
from rebrain_node.model.sampling import uniform_time_steps
from trainer.data.dataset import Volume
from trainer.peers.fitting import BudgetOptimiser
from trainer.peers.layers import TranslationUNet, weighted_l1
from trainer.peers.volumes import GridCase, TrainingVolumes
from trainer.sample_rng import SampleRng

WIDTHS = (24, 48, 72, 96)  #: of each of the two networks: together as large as one of the others
_BATCH = 4
_NOISE_WEIGHT = 0.1  # of the second network's loss in the sum


class DualBridgePeer:
    """The bridge with two approximators; knows no sparse sources."""

    def __init__(self, sampling_steps: int, widths: tuple[int, ...] = WIDTHS) -> None:
        self.network = nn.ModuleDict(
            {
                "target": TranslationUNet(2, 2, 1, widths, scalars=1),
                "noise": TranslationUNet(2, 2, 1, widths, scalars=1),
            }
        )
        self._sampling = uniform_time_steps(sampling_steps)
        self._descent = BudgetOptimiser(self.network)

    def step(self, training: TrainingVolumes, rng: SampleRng, share: float) -> float:
        """Train both networks on the same states of four slices; returns the loss of the target."""
        pair = training.slices(rng, _BATCH)
        m = rng.uniform(0, 1, _BATCH, 1, 1, 1)
        noise = rng.normal(*pair.target.shape)
        state = bridge.marginal(pair.target, pair.source, m, noise)
        target, estimated_noise = self._estimates(state, pair.source, m)
        of_target = weighted_l1(target, pair.target, pair.head)
        of_noise = ((estimated_noise - noise) ** 2).mean()
        self._descent.step(of_target + _NOISE_WEIGHT * of_noise, share)
        return float(of_target.detach())

    def _estimates(self, state: Tensor, source: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        images, scalars = torch.cat([state, source], dim=1), m.flatten(1)
        return (
            bridge.estimate(state, self.network["target"](images, scalars)),
            self.network["noise"](images, scalars),
        )

    def synthesise(self, given: GridCase) -> Volume:
        """Step the slices given back; fill by the mean of neighbours."""
        source = given.source[:, None]
        state = estimate = source
        for m, following in zip(self._sampling, (*self._sampling[1:], 0.0), strict=True):
            times = torch.full((len(source), 1, 1, 1), m)
            estimate, noise = self._estimates(state, source, times)
            estimate = estimate.clamp(-1, 1)
            state = bridge.marginal(estimate, source, following, noise)
        return given.averaged(np.asarray(estimate[:, 0].numpy()))
