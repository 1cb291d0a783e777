"""I3Net: slices between slices, from the stack and from within the slices.

Source: Song et al., "I3Net: Inter-Intra-Slice Interpolation Network for Medical Slice Synthesis",
IEEE Transactions on Medical Imaging 43(9), 2024.

Kept: an inter-slice branch that convolves along the stack (in coronal and sagittal planes) and an
intra-slice branch that convolves within the axial slices; a cross-view block after each pair that
fuses both by weights of the place; a residual on the interpolated stack.

Left out: the network of each factor alone (one network takes every gap, on the interpolated stack
with the distance to the next slice given); the branch in the frequency domain. The paper
interpolates within one kind of image, and the ReBrain paper scores its interpolated source against
the MR, which no method could survive; here it is trained from the sparse source to the dense
target.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data.dataset import Volume
from trainer.peers.fitting import BudgetOptimiser
from trainer.peers.layers import shuffled, unshuffled, weighted_l1
from trainer.peers.volumes import GridCase, TrainingVolumes, sparse_block
from trainer.sample_rng import SampleRng

_WIDTH, _BLOCKS = 32, 3


class CrossViewBlock(nn.Module):
    """One pair of branches and their fusion."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.intra = nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1))
        self.coronal = nn.Conv3d(width, width, (3, 1, 3), padding=(1, 0, 1))
        self.sagittal = nn.Conv3d(width, width, (3, 3, 1), padding=(1, 1, 0))
        self.choose = nn.Conv3d(2 * width, 2 * width, 1)
        self.leave = nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1))

    def fused(self, intra: Tensor, inter: Tensor) -> Tensor:
        """Return the sum of both views by weights that add up to 1 at every place."""
        weights = self.choose(torch.cat([intra, inter], dim=1)).unflatten(1, (2, -1)).softmax(1)
        return cast("Tensor", weights[:, 0] * intra + weights[:, 1] * inter)

    def forward(self, features: Tensor) -> Tensor:
        """Return (batch, width, slice, rows, columns)."""
        intra = functional.silu(self.intra(features))
        inter = functional.silu(self.coronal(features) + self.sagittal(features))
        return features + cast("Tensor", self.leave(self.fused(intra, inter)))


class InterIntraNetwork(nn.Module):
    """From the interpolated stack and its distances to the dense target."""

    def __init__(self, width: int = _WIDTH, blocks: int = _BLOCKS) -> None:
        super().__init__()
        self.enter = nn.Conv3d(2 * 4, width, (1, 3, 3), padding=(0, 1, 1))
        self.blocks = nn.ModuleList(CrossViewBlock(width) for _ in range(blocks))
        self.leave = nn.Conv3d(width, 4, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, stack: Tensor) -> Tensor:
        """Return (batch, 1, slice, rows, columns) from (batch, 2, slice, rows, columns)."""
        features = self.enter(unshuffled(stack))
        for block in self.blocks:
            features = block(features)
        return stack[:, :1] + shuffled(self.leave(features))


class I3NetPeer:
    """The interpolation network; made for sparse sources."""

    def __init__(self, width: int = _WIDTH, blocks: int = _BLOCKS) -> None:
        self.network = InterIntraNetwork(width, blocks)
        self._descent = BudgetOptimiser(self.network)

    def step(self, training: TrainingVolumes, rng: SampleRng, share: float) -> float:
        """Train on one block at a gap drawn."""
        pair = training.block(rng)
        made = self.network(sparse_block(pair.source, rng))
        return self._descent.step(weighted_l1(made, pair.target, pair.head), share)

    def synthesise(self, given: GridCase) -> Volume:
        """Synthesise every position at once."""
        made = self.network(given.interpolated())
        return np.asarray(made[0, 0].clamp(-1, 1).numpy())
