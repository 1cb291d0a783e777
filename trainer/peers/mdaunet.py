"""3D-mDAUNet: a 3-D generator guided at several resolutions, against a judge of every voxel.

Source: Ha et al., "Multi-resolution guided 3D GANs for medical image translation", 2024.

Kept: a 3-D U-Net of densely connected blocks whose skip connections pass attention gates; an
output at every resolution of the decoder, each held to the target at that resolution; a U-Net
discriminator that judges every voxel.

Left out: the perceptual loss of a network trained on other images; the sizes of the authors.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data.dataset import Volume
from trainer.peers.fitting import ADVERSARIAL_RATE, BudgetOptimiser
from trainer.peers.layers import (
    TranslationUNet,
    doubled,
    halved,
    shuffled,
    taken_for_real,
    told_apart,
    unshuffled,
    weighted_l1,
)
from trainer.peers.volumes import GridCase, TrainingVolumes
from trainer.sample_rng import SampleRng

WIDTHS = (16, 32, 48)
_GROWTH = 8  # channels that a dense layer adds
_ADVERSARIAL = 0.02
_GUIDANCE = (1.0, 0.5, 0.25)  # weight of each resolution, finest first


class DenseBlock(nn.Module):
    """Two convolutions, each of everything before it, and their mixture."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, _GROWTH, 3, padding=1)
        self.second = nn.Conv3d(inputs + _GROWTH, _GROWTH, 3, padding=1)
        self.mix = nn.Conv3d(inputs + 2 * _GROWTH, outputs, 1)
        self.norm = nn.GroupNorm(8, outputs)

    def forward(self, image: Tensor) -> Tensor:
        """Return (batch, outputs, slice, rows, columns)."""
        for layer in (self.first, self.second):
            image = torch.cat([image, functional.silu(layer(image))], dim=1)
        return functional.silu(self.norm(self.mix(image)))


class AttentionGate(nn.Module):
    """Lets through what the coarser level asks for."""

    def __init__(self, skip: int, coarse: int) -> None:
        super().__init__()
        self.of_skip = nn.Conv3d(skip, skip // 2, 1)
        self.of_coarse = nn.Conv3d(coarse, skip // 2, 1)
        self.weight = nn.Conv3d(skip // 2, 1, 1)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """Return the skip connection times a weight of every place, 0 to 1."""
        asked = functional.silu(self.of_skip(skip) + self.of_coarse(coarse))
        return skip * cast("Tensor", self.weight(asked)).sigmoid()


class GuidedGenerator(nn.Module):
    """Gives the target at every resolution of its decoder."""

    def __init__(self, widths: tuple[int, int, int] = WIDTHS) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.enter = DenseBlock(4, fine)
        self.down = nn.ModuleList([DenseBlock(fine, middle), DenseBlock(middle, coarse)])
        self.gates = nn.ModuleList([AttentionGate(middle, coarse), AttentionGate(fine, middle)])
        self.up = nn.ModuleList(
            [DenseBlock(middle + coarse, middle), DenseBlock(fine + middle, fine)]
        )
        self.leave = nn.ModuleList([nn.Conv3d(fine, 4, 1), nn.Conv3d(middle, 1, 1),
                                    nn.Conv3d(coarse, 1, 1)])  # fmt: skip

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the target at full, a quarter and an eighth of the resolution within slices."""
        fine = self.enter(unshuffled(image))
        middle = self.down[0](halved(fine))
        hidden = self.down[1](halved(middle))
        outputs = [self.leave[2](hidden)]
        for gate, block, skip in zip(self.gates, self.up, (middle, fine), strict=True):
            enlarged = doubled(hidden)
            hidden = block(torch.cat([enlarged, gate(skip, enlarged)], dim=1))
            outputs.append(hidden)
        return image + shuffled(self.leave[0](outputs[2])), self.leave[1](outputs[1]), outputs[0]


def guidance(outputs: tuple[Tensor, ...], target: Tensor, head: Tensor) -> tuple[Tensor, ...]:
    """Return the weighted error at each resolution, finest first."""
    errors = []
    for output, weight in zip(outputs, _GUIDANCE, strict=True):
        while target.shape[-1] > output.shape[-1]:
            target, head = halved(target), halved(head)
        errors.append(weight * weighted_l1(output, target, head))
    return tuple(errors)


class MultiResolutionPeer:
    """The 3-D GAN; knows no sparse sources: it sees a stack with fewer slices."""

    def __init__(
        self, widths: tuple[int, int, int] = WIDTHS, judge_widths: tuple[int, ...] = (8, 16)
    ) -> None:
        self.network = GuidedGenerator(widths)
        self._judge = TranslationUNet(3, 2, 1, judge_widths)
        self._generate = BudgetOptimiser(self.network)
        self._learn_to_judge = BudgetOptimiser(self._judge, rate=ADVERSARIAL_RATE)

    def step(self, training: TrainingVolumes, rng: SampleRng, share: float) -> float:
        """Train the generator, then the discriminator, on one block."""
        pair = training.block(rng)
        outputs = self.network(pair.source)
        errors = torch.stack(guidance(outputs, pair.target, pair.head)).sum()
        made = torch.cat([outputs[0], pair.source], dim=1)
        value = float(errors.detach())
        self._generate.step(errors + _ADVERSARIAL * taken_for_real(self._judge(made)), share)
        real = torch.cat([pair.target, pair.source], dim=1)
        judged = told_apart(self._judge(real), self._judge(made.detach()))
        self._learn_to_judge.step(judged, share)
        return value

    def synthesise(self, given: GridCase) -> Volume:
        """Translate the stack given; fill by the mean of neighbours."""
        made, _, _ = self.network(given.source[None, None])
        return given.averaged(np.asarray(made[0, 0].clamp(-1, 1).numpy()))
