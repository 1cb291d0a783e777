"""The residual-scale head: how far a drawn slice may be from the truth, voxel by voxel.

It sees what the network saw, what the network drew, how far the nearest measured slice is and how
similar the exemplar was, and answers with the scale b of a Laplace density of the residual. The
node runs the exported graph; this module is the network that the trainer trains and exports.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rebrain_node.model.recipe import CHANNELS

WIDTH = 16
SMALLEST, LARGEST = 0.004, 0.6  # of b, in units of intensity: black to white is 1
_SEEN = 3  # channels of `_seen`
_UNIT_MM = 4.0  # of the distance as the head sees it


class ScaleHead(nn.Module):
    """Drawn slice and conditioning to the scale b of its residual; 6.3 k parameters.

    Half resolution: the scale of an error varies more slowly than the picture does. The mean over
    the slice lets noise and kernel of the CT, which are the same everywhere, widen all of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(len(CHANNELS), WIDTH, 3, stride=2, padding=1)
        self.seen = nn.Conv2d(_SEEN, WIDTH, 3, padding=1)
        self.told = nn.Linear(2, WIDTH)
        self.near = nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2)
        self.whole = nn.Linear(WIDTH, WIDTH)
        self.far = nn.Conv2d(WIDTH, WIDTH, 3, padding=4, dilation=4)
        self.leave = nn.Conv2d(WIDTH, 1, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.constant_(self.leave.bias, math.log(0.07))  # type: ignore[arg-type] # has a bias

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Return b, (batch, 1, rows, columns), in units of intensity.

        Parameters
        ----------
        x : Tensor
            (batch, 5, rows, columns) in [-1, 1], channels as in `recipe.CHANNELS` with the drawn
            slice in the place of the bridge's state.
        s : Tensor
            (batch, 2): mm to the nearest measured slice; similarity of the exemplar that guided,
            0 where none did.
        """
        told = self.told(s / torch.tensor([_UNIT_MM, 1.0]))[:, :, None, None]
        features = functional.relu(self.enter(x) + self.seen(_seen(x)) + told)
        features = functional.relu(self.near(features))
        whole = self.whole(features.mean(dim=(2, 3)))[:, :, None, None]
        features = functional.relu(self.far(features) + whole)
        small = self.leave(features).clamp(math.log(SMALLEST), math.log(LARGEST))
        wide = functional.interpolate(small, scale_factor=2.0, mode="bilinear")
        return wide.exp()


def _seen(x: Tensor) -> Tensor:
    """Return what a few convolutions would be long in learning, at half resolution.

    Local deviation of the drawn slice and of the CT, and how much the neighbours differ,
    (batch, 3, rows / 2, columns / 2).
    """
    pair, apart = x[:, :2], (x[:, 3:4] - x[:, 4:5]).abs()
    small = functional.avg_pool2d(torch.cat([pair, pair * pair, apart], dim=1), 2)
    means = functional.avg_pool2d(small[:, :4], 3, 1, 1)
    deviation = (means[:, 2:] - means[:, :2] ** 2).clamp(min=1e-6).sqrt()
    return torch.cat([4.0 * deviation, small[:, 4:]], dim=1)
