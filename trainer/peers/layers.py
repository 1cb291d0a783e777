"""Networks that several peers are built of, in two or three dimensions.

They work at half the resolution within the slice, on 2 x 2 pixels rearranged into channels, as the
bridge does: on a CPU the full resolution costs more than all other levels together. Slices are
never pooled, so that a stack may have any number of them.
"""

from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Dimensions = Literal[2, 3]

WIDTHS_2D = (32, 64, 96, 128)  #: as the network of `conf/train/flair.toml`
WIDTHS_3D = (16, 32, 48)
_GROUPS = 8
_FINE = 12  # channels at full resolution


def conv(dimensions: Dimensions, inputs: int, outputs: int, size: int = 3) -> nn.Module:
    """Return a convolution that keeps the size."""
    kind = nn.Conv2d if dimensions == 2 else nn.Conv3d
    return kind(inputs, outputs, size, padding=size // 2)


def _within_slices(dimensions: Dimensions, inputs: int, outputs: int) -> nn.Module:
    """Return a convolution of 3 x 3 pixels of each slice."""
    if dimensions == 2:
        return nn.Conv2d(inputs, outputs, 3, padding=1)
    return nn.Conv3d(inputs, outputs, (1, 3, 3), padding=(0, 1, 1))


def halved(image: Tensor) -> Tensor:
    """Average 2 x 2 pixels of every slice."""
    if image.ndim == 4:
        return functional.avg_pool2d(image, 2)
    return functional.avg_pool3d(image, (1, 2, 2))


def doubled(image: Tensor) -> Tensor:
    """Repeat every pixel 2 x 2 times."""
    return image.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)


def unshuffled(image: Tensor, times: int = 2) -> Tensor:
    """Rearrange `times` x `times` pixels of every slice into channels."""
    if image.ndim == 4:
        return functional.pixel_unshuffle(image, times)
    return functional.pixel_unshuffle(image.transpose(1, 2), times).transpose(1, 2)


def shuffled(image: Tensor, times: int = 2) -> Tensor:
    """Undo `unshuffled`."""
    if image.ndim == 4:
        return functional.pixel_shuffle(image, times)
    return functional.pixel_shuffle(image.transpose(1, 2), times).transpose(1, 2)


class FilmBlock(nn.Module):
    """Two convolutions with GroupNorm and a shortcut; scalars scale and shift the features."""

    def __init__(self, dimensions: Dimensions, inputs: int, outputs: int, scalars: int) -> None:
        super().__init__()
        self.first = conv(dimensions, inputs, outputs)
        self.first_norm = nn.GroupNorm(_GROUPS, outputs)
        self.second = conv(dimensions, outputs, outputs)
        self.second_norm = nn.GroupNorm(_GROUPS, outputs)
        self.shortcut = conv(dimensions, inputs, outputs, 1)
        self.film = nn.Linear(scalars, 2 * outputs) if scalars else None

    def forward(self, image: Tensor, scalars: Tensor | None) -> Tensor:
        """Return (batch, outputs, ...)."""
        hidden = self.first_norm(self.first(image))
        if self.film is not None and scalars is not None:
            film = self.film(scalars)
            gain, shift = film[(..., *(None,) * (image.ndim - 2))].chunk(2, dim=1)
            hidden = hidden * (1 + gain) + shift
        hidden = self.second_norm(self.second(functional.silu(hidden)))
        return functional.silu(hidden + self.shortcut(image))


class TranslationUNet(nn.Module):
    """From images to images of the same size, optionally conditioned on scalars.

    Parameters
    ----------
    widths : tuple of int
        Channels per level; rows and columns must be multiples of 2 ** levels.
    scalars : int
        How many scalars condition it; 0: none.
    """

    def __init__(
        self,
        dimensions: Dimensions,
        inputs: int,
        outputs: int,
        widths: tuple[int, ...],
        scalars: int = 0,
    ) -> None:
        super().__init__()
        embedded = 64 if scalars else 0
        self.embed = (
            nn.Sequential(nn.Linear(scalars, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())
            if scalars
            else None
        )
        self.enter = FilmBlock(dimensions, 4 * inputs, widths[0], embedded)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(FilmBlock(dimensions, a, b, embedded) for a, b in pairs)
        self.up = nn.ModuleList(
            FilmBlock(dimensions, a + b, a, embedded) for a, b in reversed(pairs)
        )
        self.unfold = conv(dimensions, widths[0], 4 * _FINE, 1)
        self.fine = _within_slices(dimensions, _FINE + inputs, _FINE)
        self.leave = conv(dimensions, _FINE, outputs, 1)

    def forward(self, image: Tensor, scalars: Tensor | None = None) -> Tensor:
        """Return (batch, outputs, ...) of the size of `image`, (batch, inputs, ...)."""
        given = self.embed(scalars) if self.embed is not None else None
        levels = [self.enter(unshuffled(image), given)]
        for block in self.down:
            levels.append(block(halved(levels[-1]), given))
        hidden = levels.pop()
        for block in self.up:
            hidden = block(torch.cat([doubled(hidden), levels.pop()], dim=1), given)
        fine = torch.cat([shuffled(self.unfold(hidden)), image], dim=1)
        return cast("Tensor", self.leave(functional.silu(self.fine(fine))))


class PatchDiscriminator(nn.Module):
    """Judges patches of a 2-D image: one number for every 8 x 8 pixels."""

    def __init__(self, inputs: int, width: int = 24) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.InstanceNorm2d(2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
            nn.InstanceNorm2d(4 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 3, 1, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return (batch, 1, rows / 8, columns / 8)."""
        return cast("Tensor", self.layers(image))


def weighted_l1(image: Tensor, target: Tensor, head: Tensor) -> Tensor:
    """Return the mean absolute error; outside the head it counts 0.15, as for the bridge."""
    weight = 0.15 + head
    return ((image - target).abs() * weight).sum() / weight.sum().clamp(min=1)


def told_apart(real: Tensor, made: Tensor) -> Tensor:
    """Return the least-squares loss of a discriminator."""
    return ((real - 1) ** 2).mean() + (made**2).mean()


def taken_for_real(made: Tensor) -> Tensor:
    """Return the least-squares loss of a generator against a discriminator."""
    return ((made - 1) ** 2).mean()
