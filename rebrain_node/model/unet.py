"""The network: a small residual U-Net, conditioned on time step and distances by FiLM.

The names of the submodules are the keys of the weights in released bundles
(`weights.safetensors`), so they do not change.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from rebrain_node.model import bridge
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.recipe import CHANNELS, WIDTHS, Recipe

FINE = 16  # channels of the two convolutions at full resolution
EMBEDDING = 96
_GROUPS = 8
_USUAL_RHO = 0.5  # between CT and T1 in [-1, 1]; initial output of the contrast head
# Scalars arrive as m (0 to 1) and millimetres; 8 mm is the thickest slice trained on.
_SCALE = (1.0, 1 / 8, 1 / 8, 1 / 8)
_FREQUENCIES = (0.5, 1.0, 2.0, 4.0)


class ScalarEmbedding(nn.Module):
    """Embed the four raw scalars, (batch, 4) -> (batch, EMBEDDING)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(_SCALE), persistent=False)
        self.register_buffer("frequency", torch.pi * torch.tensor(_FREQUENCIES), persistent=False)
        features = len(_SCALE) * (1 + 2 * len(_FREQUENCIES))
        self.mix = nn.Sequential(
            nn.Linear(features, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU()
        )

    def forward(self, scalars: Tensor) -> Tensor:
        """Return the embedding of m, below_mm, above_mm and gap_mm."""
        unit = scalars * cast("Tensor", self.scale)
        angle = (unit[:, :, None] * cast("Tensor", self.frequency)).flatten(1)
        return cast("Tensor", self.mix(torch.cat([unit, angle.sin(), angle.cos()], dim=1)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with GroupNorm; FiLM between them; 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.first_norm = nn.GroupNorm(_GROUPS, outputs)
        self.film = nn.Linear(EMBEDDING, 2 * outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.second_norm = nn.GroupNorm(_GROUPS, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, image: Tensor, embedding: Tensor) -> Tensor:
        """Return (batch, outputs, rows, columns)."""
        gain, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        hidden = self.first_norm(self.first(image)) * (1 + gain) + shift
        hidden = self.second_norm(self.second(functional.silu(hidden)))
        return functional.silu(hidden + self.shortcut(image))


class BridgeUNet(nn.Module):
    """f(x_m, y, neighbours, scalars), such that x0_hat = x_m - f.

    The U-Net works at half the resolution, on 2 x 2 pixels rearranged into channels (pixel
    unshuffle): on a CPU the full-resolution level of a plain U-Net costs more than all others
    together. Two convolutions at full resolution then take the shuffled features and the input.

    Parameters
    ----------
    widths : tuple of int
        Channels per level; rows and columns must be multiples of 2 ** levels.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        inputs = len(CHANNELS)
        self.embedding = ScalarEmbedding()
        self.enter = ResidualBlock(4 * inputs, widths[0])
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(ResidualBlock(high, low) for high, low in pairs)
        self.up = nn.ModuleList(ResidualBlock(low + high, high) for high, low in reversed(pairs))
        self.unfold = nn.Conv2d(widths[0], 4 * FINE, 1)
        self.fine = nn.Conv2d(FINE + inputs, FINE, 3, padding=1)
        self.leave = nn.Conv2d(FINE, 1, 3, padding=1)

    def forward(self, x: Tensor, s: Tensor, added: Sequence[Tensor] = ()) -> Tensor:
        """Evaluate once.

        Parameters
        ----------
        x : Tensor
            (batch, 5, rows, columns), channels as in `recipe.CHANNELS`.
        s : Tensor
            (batch, 4), raw scalars as in `recipe.SCALARS`.
        added : sequence of Tensor
            Features that a control branch adds to every level; empty without one.

        Returns
        -------
        Tensor
            f, (batch, 1, rows, columns).
        """
        embedding = self.embedding(s)
        levels = self.levels(x, embedding)
        if added:
            levels = [level + more for level, more in zip(levels, added, strict=True)]
        return self.decode(levels, x, embedding)

    def levels(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        """Return the features of every level, finest first, (batch, width, rows, columns)."""
        levels = [self.enter(functional.pixel_unshuffle(x, 2), embedding)]
        for block in self.down:
            levels.append(block(functional.avg_pool2d(levels[-1], 2), embedding))
        return levels

    def decode(self, levels: list[Tensor], x: Tensor, embedding: Tensor) -> Tensor:
        """Return f, (batch, 1, rows, columns), from the features of every level."""
        *finer, image = levels
        for block in self.up:
            enlarged = functional.interpolate(image, scale_factor=2.0, mode="nearest")
            image = block(torch.cat([enlarged, finer.pop()], dim=1), embedding)
        fine = functional.pixel_shuffle(self.unfold(image), 2)
        fine = functional.silu(self.fine(torch.cat([fine, x], dim=1)))
        # The output of the last convolution is the MR slice; f is its difference from the state.
        return x[:, :1] - cast("Tensor", self.leave(fine))


class UnitizedUNet(nn.Module):
    """A U-Net whose output is eq. 6 itself, and a scalar head that estimates the contrast rho.

    `forward` converts the output into f, so that x0_hat = x_m - f as for every other network and
    an engine treats all alike.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.backbone = BridgeUNet(widths)
        self.contrast = nn.Linear(widths[-1], 1)
        nn.init.zeros_(self.contrast.weight)
        nn.init.constant_(self.contrast.bias, math.log(_USUAL_RHO))

    def emission(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Return the direction, (batch, 1, rows, columns), and log rho, (batch, 1, 1, 1)."""
        embedding = self.backbone.embedding(s)
        levels = self.backbone.levels(x, embedding)
        log_rho = self.contrast(levels[-1].mean((2, 3)))
        return self.backbone.decode(levels, x, embedding), log_rho[:, :, None, None]

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Evaluate once, as `BridgeUNet.forward`."""
        direction, log_rho = self.emission(x, s)
        state, y = x[:, :1], x[:, 1:2]
        weight = bridge.directional_weight(s[:, :1, None, None], log_rho.exp())
        return state - cast("Tensor", bridge.estimate_from_direction(direction, y, state, weight))


Network = BridgeUNet | UnitizedUNet


def network_of(recipe: Recipe) -> Network:
    """Return the untrained network that a recipe describes."""
    kind = UnitizedUNet if recipe.objective == "unitized" else BridgeUNet
    return kind(recipe.widths)


def from_bundle(bundle: ModelBundle) -> Network:
    """Return the network of a bundle, ready for evaluation."""
    network = network_of(bundle.recipe)
    network.load_state_dict(load(bundle.read("weights.safetensors")))
    return network.eval()
