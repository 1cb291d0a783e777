"""The residual-scale head: the expected error of a synthetic slice, voxel by voxel.

Its input is the network's conditioning, the synthetic slice, the distance of the nearest measured
slice and the similarity of the exemplar; its output is the scale b of a Laplace density of the
residual. Where the network is unsure of what the CT shows, e.g. whether dark white matter is fluid,
what it draws dark rises when the input is shifted. A second output of the head predicts this spread
(`trainer.calibrate.residuals.upward_spread`), so that nothing is drawn twice; the two are combined.
The node runs the exported graph; this module is the network that the trainer trains and exports.
The names of its submodules are the keys of the weights in released bundles (`scale.safetensors`),
so they do not change.
"""

import math
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from rebrain_node.model.recipe import CHANNELS

WIDTH = 16
SMALLEST, LARGEST = 0.004, 0.6  # of b, in units of intensity: black to white is 1
_FEATURES = 3  # channels of `_local_features`
_UNIT_MM = 4.0  # the distance is divided by it


class ResidualScaleHead(nn.Module):
    """Estimates the scale b of the residual of a synthetic slice; 6.3 k parameters.

    It works at half resolution: the scale of an error varies more slowly than the image. The mean
    over the slice lets noise and kernel of the CT, the same everywhere, raise b everywhere.

    Parameters
    ----------
    spreads : bool
        Whether it predicts the spread of drawings at shifted input; the heads of bundles before
        2.0 do not.
    """

    def __init__(self, *, spreads: bool = False) -> None:
        super().__init__()
        self.spreads = spreads
        self.enter = nn.Conv2d(len(CHANNELS), WIDTH, 3, stride=2, padding=1)
        self.seen = nn.Conv2d(_FEATURES, WIDTH, 3, padding=1)
        self.told = nn.Linear(2, WIDTH)
        self.near = nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2)
        self.whole = nn.Linear(WIDTH, WIDTH)
        self.far = nn.Conv2d(WIDTH, WIDTH, 3, padding=4, dilation=4)
        self.leave = nn.Conv2d(WIDTH, 1, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.constant_(self.leave.bias, math.log(0.07))  # type: ignore[arg-type] # has a bias
        if spreads:
            self.spread = nn.Conv2d(WIDTH, 1, 3, padding=1)
            self.factor = nn.Parameter(torch.zeros(()), requires_grad=False)
            nn.init.zeros_(self.spread.weight)
            nn.init.constant_(self.spread.bias, math.log(0.02))  # type: ignore[arg-type]

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Self:
        """Fill a head with weights of any precision; raises `RuntimeError` if they do not fit."""
        head = cls(spreads="spread.weight" in weights)
        head.load_state_dict({name: value.float() for name, value in weights.items()})
        return head.eval()

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Return sqrt(b^2 + (factor spread)^2), (batch, 1, rows, columns), in units of intensity.

        Parameters
        ----------
        x : Tensor
            (batch, 5, rows, columns) in [-1, 1], channels as in `recipe.CHANNELS` with the
            synthetic slice instead of the bridge's state.
        s : Tensor
            (batch, 2): mm to the nearest measured slice; similarity of the exemplar, 0 without
            one.
        """
        scale, spread = self.parts(x, s)
        return self.combined(scale, spread, self.factor if self.spreads else 0.0)

    @staticmethod
    def combined(scale: Tensor, spread: Tensor | None, factor: Tensor | float) -> Tensor:
        """Add the predicted spread to b, any shape; without one it is b."""
        return scale if spread is None else (scale**2 + (factor * spread) ** 2).sqrt()

    def parts(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return b and the predicted spread, None without; shapes and inputs as of `forward`."""
        scalars = self.told(s / torch.tensor([_UNIT_MM, 1.0]))[:, :, None, None]
        features = functional.relu(self.enter(x) + self.seen(_local_features(x)) + scalars)
        features = functional.relu(self.near(features))
        slice_mean = self.whole(features.mean(dim=(2, 3)))[:, :, None, None]
        features = functional.relu(self.far(features) + slice_mean)
        return self._exp(self.leave(features)), (
            self._exp(self.spread(features)) if self.spreads else None
        )

    @staticmethod
    def _exp(logarithm: Tensor) -> Tensor:
        bounded = logarithm.clamp(math.log(SMALLEST), math.log(LARGEST))
        return functional.interpolate(bounded, scale_factor=2.0, mode="bilinear").exp()


def _local_features(x: Tensor) -> Tensor:
    """Return features that few convolutions learn slowly, (batch, 3, rows / 2, columns / 2).

    Local standard deviation of the synthetic slice and of the CT, and the absolute difference of
    the neighbouring measured slices.
    """
    pair, difference = x[:, :2], (x[:, 3:4] - x[:, 4:5]).abs()
    small = functional.avg_pool2d(torch.cat([pair, pair * pair, difference], dim=1), 2)
    means = functional.avg_pool2d(small[:, :4], 3, 1, 1)
    deviation = (means[:, 2:] - means[:, :2] ** 2).clamp(min=1e-6).sqrt()
    return torch.cat([4.0 * deviation, small[:, 4:]], dim=1)
