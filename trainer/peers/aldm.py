"""ALDM: diffusion in a latent space, conditioned by normalisation that is switched by modality.

Source: Kim and Park, "Adaptive Latent Diffusion Model for 3D Medical Image to Image Translation:
Multi-modal Magnetic Resonance Imaging Study", WACV 2024.

Kept: an autoencoder of volumes learned first, of every modality; a diffusion model of its latents
from pure noise; switchable spatially adaptive normalisation: the latent of the source scales and
shifts the features place by place, by the parameters of the modality that is asked for; sampling
by DDIM.

Left out: the vector-quantised and adversarial autoencoder (a plain one, 4 x 4 pixels of a slice
to one place); the network estimates the velocity, not the noise, which is stable at few steps;
one target modality, so that the other one of the switch is the source itself.
"""

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rebrain_node.model.sampling import uniform_time_steps
from trainer.data.dataset import Volume
from trainer.peers.fitting import BudgetOptimiser
from trainer.peers.layers import shuffled, unshuffled, weighted_l1
from trainer.peers.volumes import GridCase, TrainingVolumes
from trainer.sample_rng import SampleRng

LATENTS = 8
_WIDTH, _BLOCKS = 64, 4
_SHRINK = 4  # pixels of a slice to one place of the latent, along each axis
_FIRST_STAGE = 0.4  # share of the budget for the autoencoder
SOURCE, TARGET = (1.0, 0.0), (0.0, 1.0)  #: what is asked for, as weights of the modalities


class Autoencoder(nn.Module):
    """From a stack to its latent and back."""

    def __init__(self, width: int = _WIDTH) -> None:
        super().__init__()
        pixels = _SHRINK**2
        self.encoder = nn.Sequential(
            nn.Conv3d(pixels, width, 3, padding=1), nn.SiLU(),
            nn.Conv3d(width, LATENTS, (1, 3, 3), padding=(0, 1, 1)),
            nn.GroupNorm(1, LATENTS, affine=False),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv3d(LATENTS, width, 3, padding=1), nn.SiLU(),
            nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1)), nn.SiLU(),
            nn.Conv3d(width, pixels, (1, 3, 3), padding=(0, 1, 1)),
        )  # fmt: skip

    def encode(self, stack: Tensor) -> Tensor:
        """Return (batch, `LATENTS`, slice, rows / 4, columns / 4) of unit variance."""
        return cast("Tensor", self.encoder(unshuffled(stack, _SHRINK)))

    def decode(self, latent: Tensor) -> Tensor:
        """Return (batch, 1, slice, rows, columns)."""
        return shuffled(self.decoder(latent), _SHRINK)


class SwitchableNormalisation(nn.Module):
    """Spatially adaptive normalisation with one set of parameters for each modality."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width, affine=False)
        self.of_modality = nn.ModuleList(
            nn.Conv3d(LATENTS, 2 * width, (1, 3, 3), padding=(0, 1, 1)) for _ in (SOURCE, TARGET)
        )

    def forward(self, features: Tensor, latent: Tensor, asked: tuple[float, float]) -> Tensor:
        """Return the features, scaled and shifted as the weights `asked` mix the modalities."""
        mixed = sum(
            weight * layer(latent)
            for weight, layer in zip(asked, self.of_modality, strict=True)
            if weight
        )
        gain, shift = cast("Tensor", mixed).chunk(2, dim=1)
        return cast("Tensor", self.norm(features)) * (1 + gain) + shift


class LatentBlock(nn.Module):
    """A residual block under switchable normalisation and the time step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = SwitchableNormalisation(width)
        self.time = nn.Linear(2, width)
        self.first = nn.Conv3d(width, width, (1, 3, 3), padding=(0, 1, 1))
        self.second = nn.Conv3d(width, width, 3, padding=1)

    def forward(
        self, features: Tensor, latent: Tensor, time: Tensor, asked: tuple[float, float]
    ) -> Tensor:
        """Return (batch, width, slice, rows / 4, columns / 4)."""
        hidden = functional.silu(self.norm(features, latent, asked))
        hidden = self.first(hidden) + self.time(time)[..., None, None, None]
        return features + cast("Tensor", self.second(functional.silu(hidden)))


class LatentNetwork(nn.Module):
    """The velocity of a noisy latent, given the latent of the source."""

    def __init__(self, width: int = _WIDTH, blocks: int = _BLOCKS) -> None:
        super().__init__()
        self.enter = nn.Conv3d(2 * LATENTS, width, 3, padding=1)
        self.blocks = nn.ModuleList(LatentBlock(width) for _ in range(blocks))
        self.leave = nn.Conv3d(width, LATENTS, (1, 3, 3), padding=(0, 1, 1))
        nn.init.zeros_(self.leave.weight)

    def forward(
        self, state: Tensor, latent: Tensor, angle: Tensor, asked: tuple[float, float]
    ) -> Tensor:
        """Return the velocity; `angle` (batch,) is 0 at the latent and pi / 2 at pure noise."""
        time = torch.stack([angle.cos(), angle.sin()], dim=1)
        features = self.enter(torch.cat([state, latent], dim=1))
        for block in self.blocks:
            features = block(features, latent, time, asked)
        return cast("Tensor", self.leave(features))


class LatentDiffusionPeer:
    """ALDM; knows no sparse sources: it sees a stack with fewer slices."""

    def __init__(self, sampling_steps: int, width: int = _WIDTH, blocks: int = _BLOCKS) -> None:
        self._autoencoder = Autoencoder(width)
        self._denoiser = LatentNetwork(width, blocks)
        self.network = nn.ModuleList([self._autoencoder, self._denoiser])
        self._sampling = uniform_time_steps(sampling_steps)
        self._first, self._second = (
            BudgetOptimiser(self._autoencoder),
            BudgetOptimiser(self._denoiser),
        )

    def step(self, training: TrainingVolumes, rng: SampleRng, share: float) -> float:
        """Train the autoencoder on one block, and after its share of the budget the diffusion."""
        pair = training.block(rng)
        if share < _FIRST_STAGE:
            both = torch.cat([pair.source, pair.target])
            again = self._autoencoder.decode(self._autoencoder.encode(both))
            head = pair.head.expand_as(both)
            return self._first.step(weighted_l1(again, both, head), share / _FIRST_STAGE)
        with torch.no_grad():
            latent = self._autoencoder.encode(pair.source)
            asked, wanted = TARGET, self._autoencoder.encode(pair.target)
            if rng.chance(0.1):
                asked, wanted = SOURCE, latent
        angle = rng.uniform(0, math.pi / 2, 1)
        noise = rng.normal(*latent.shape)
        state = angle.cos() * wanted + angle.sin() * noise
        velocity = angle.cos() * noise - angle.sin() * wanted
        found = self._denoiser(state, latent, angle, asked)
        loss = ((found - velocity) ** 2).mean()
        return self._second.step(loss, (share - _FIRST_STAGE) / (1 - _FIRST_STAGE))

    def synthesise(self, given: GridCase) -> Volume:
        """Sample the latent of the stack given, decode, fill by the mean of neighbours."""
        latent = self._autoencoder.encode(given.source[None, None])
        state = wanted = SampleRng(0, 0).normal(*latent.shape)
        for m, following in zip(self._sampling, (*self._sampling[1:], 0.0), strict=True):
            angle, ahead = math.pi / 2 * m, math.pi / 2 * following
            velocity = self._denoiser(state, latent, torch.tensor([angle]), TARGET)
            wanted = math.cos(angle) * state - math.sin(angle) * velocity
            noise = math.sin(angle) * state + math.cos(angle) * velocity
            state = math.cos(ahead) * wanted + math.sin(ahead) * noise
        made = self._autoencoder.decode(wanted)
        return given.averaged(np.asarray(made[0, 0].clamp(-1, 1).numpy()))
