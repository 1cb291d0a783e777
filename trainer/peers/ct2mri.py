"""CT2MRI: a 2-D Brownian bridge whose slices are kept alike by a style key and by alignment.

Source: Choo et al., "Slice-Consistent 3D Volumetric Brain CT-to-MRI Translation with 2D Brownian
Bridge Diffusion Model", MICCAI 2024.

Kept: the bridge in pixel space with BBDM's objective; the style key, a histogram of the target
volume, conditions every slice, and the mean key of the training subjects is used in synthesis;
the network sees a slice with its two neighbours and estimates all three, and inter-slice
trajectory alignment averages the estimates that overlap at every time step, with one noise field
for all slices, so that the trajectories of neighbours are tied and the result is deterministic.

Left out: 254 M parameters (about 1.2 M here); the further correction of the aligned state by a
score-based corrector; the key is taken inside the head mask in 16 bins.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from rebrain_node.model import bridge
from rebrain_node.model.sampling import noise_field, uniform_time_steps
from trainer.data.dataset import Volume
from trainer.peers.fitting import BudgetOptimiser
from trainer.peers.layers import WIDTHS_2D, TranslationUNet, weighted_l1
from trainer.peers.volumes import GridCase, TrainingVolumes
from trainer.sample_rng import SampleRng

BINS = 16  #: of the style key
_BATCH = 4
_STEPS = 1000  # time steps of training


def style_key(target: Tensor, head: Tensor) -> Tensor:
    """Return the histogram of a volume in its head, (`BINS`,), its mean 1."""
    counts = torch.histc(target[head > 0.5], BINS, -1, 1)
    return counts / counts.sum().clamp(min=1) * BINS


def aligned(windows: Tensor) -> Tensor:
    """Average the estimates of each slice by the windows around it and its neighbours (ISTA).

    Parameters
    ----------
    windows : Tensor
        (n, 3, rows, columns): window k estimates slices k - 1, k, k + 1; beyond the ends of the
        stack its estimates are not used.

    Returns
    -------
    Tensor
        (n, rows, columns).
    """
    count = len(windows)
    total, hits = windows[:, 1].clone(), torch.ones(count, 1, 1)
    total[:-1] += windows[1:, 0]
    total[1:] += windows[:-1, 2]
    hits[:-1] += 1
    hits[1:] += 1
    return total / hits


def in_windows(stack: Tensor) -> Tensor:
    """Put each slice of (n, rows, columns) between its neighbours, (n, 3, rows, columns)."""
    return torch.stack(
        [torch.cat([stack[:1], stack[:-1]]), stack, torch.cat([stack[1:], stack[-1:]])], dim=1
    )


class StyledNetwork(nn.Module):
    """The bridge network of a window of three slices, and the style key of synthesis."""

    key: Tensor  #: (`BINS`,), the mean over the training subjects

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.body = TranslationUNet(2, 6, 3, widths, scalars=1 + BINS)
        self.register_buffer("key", torch.ones(BINS))

    def forward(self, state: Tensor, source: Tensor, m: Tensor, keys: Tensor) -> Tensor:
        """Return the estimate of the targets, (batch, 3, rows, columns)."""
        scalars = torch.cat([m.flatten(1), keys], dim=1)
        flow = self.body(torch.cat([state, source], dim=1), scalars)
        return cast("Tensor", bridge.estimate(state, flow))


class Ct2MriPeer:
    """The bridge with style key and alignment; knows no sparse sources."""

    def __init__(self, sampling_steps: int, widths: tuple[int, ...] = WIDTHS_2D) -> None:
        self.network = StyledNetwork(widths)
        self._keys: Tensor | None = None
        self._sampling = uniform_time_steps(sampling_steps)
        self._descent = BudgetOptimiser(self.network)

    def step(self, training: TrainingVolumes, rng: SampleRng, share: float) -> float:
        """Train on four windows, each with a time step and noise of its own."""
        if self._keys is None:
            pairs = zip(training.targets, training.heads, strict=True)
            self._keys = torch.stack([style_key(target, head) for target, head in pairs])
            self.network.key.copy_(self._keys.mean(dim=0))
        pair = training.slices(rng, _BATCH, reach=1)
        m = (torch.floor(rng.uniform(0, 1, _BATCH, 1, 1, 1) * _STEPS) + 1) / _STEPS
        # one field for the window, as in synthesis: else its average would lose the noise
        noise = rng.normal(_BATCH, 1, *pair.target.shape[2:])
        state = bridge.marginal(pair.target, pair.source, m, noise)
        keys = self._keys[[subject for subject, _ in pair.rows]]
        estimate = self.network(state, pair.source, m, keys)
        return self._descent.step(weighted_l1(estimate, pair.target, pair.head), share)

    def synthesise(self, given: GridCase) -> Volume:
        """Step all slices given together; fill by the mean of neighbours."""
        stack = given.source
        noise = torch.from_numpy(noise_field((stack.shape[1], stack.shape[2]), 0))
        source = in_windows(stack)
        keys = self.network.key.expand(len(stack), -1)
        state = estimate = stack
        for m, following in zip(self._sampling, (*self._sampling[1:], 0.0), strict=True):
            times = torch.full((len(stack), 1, 1, 1), m)
            windows = self.network(in_windows(state), source, times, keys)
            estimate = aligned(windows).clamp(-1, 1)
            if following > 0:
                state = bridge.Step(m, following, 0.0).back(state, estimate, stack, noise)
        return given.averaged(np.asarray(estimate.numpy()))
