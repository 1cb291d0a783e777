"""The control branch: how an exemplar guides the frozen bridge (section 3.3 of the paper).

As ControlNet does it: a trainable copy of the network's contracting half sees the same input and,
besides, a guide; what it finds is added to the frozen features of every level through 1 x 1
convolutions that begin at zero. Untrained, it changes nothing.
"""

import copy
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from rebrain_node.model.unet import BridgeUNet

_HINT = 24  # channels between the two convolutions that read the guide


class ControlBranch(nn.Module):
    """What a guide adds to every level of a `BridgeUNet`.

    Parameters
    ----------
    backbone : BridgeUNet
        Its contracting half is copied; it is not changed.
    """

    def __init__(self, backbone: BridgeUNet) -> None:
        super().__init__()
        self.embedding = copy.deepcopy(backbone.embedding)
        self.enter = copy.deepcopy(backbone.enter)
        self.down = copy.deepcopy(backbone.down)
        widths = [block.second.out_channels for block in (self.enter, *self.down)]  # type: ignore[union-attr]
        self.hint = nn.Sequential(
            nn.Conv2d(1, _HINT, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_HINT, widths[0], 3, padding=1),
        )
        self.zero = nn.ModuleList(nn.Conv2d(width, width, 1) for width in widths)
        for convolution in self.zero:
            nn.init.zeros_(cast("nn.Conv2d", convolution).weight)
            nn.init.zeros_(cast("Tensor", cast("nn.Conv2d", convolution).bias))

    def forward(self, x: Tensor, s: Tensor, guide: Tensor) -> tuple[Tensor, ...]:
        """Return the residual of every level, finest first.

        Parameters
        ----------
        x, s : Tensor
            As of `BridgeUNet.forward`.
        guide : Tensor
            (batch, 1, rows / 2, columns / 2): a CT slice in the brain window, [-1, 1].

        Returns
        -------
        tuple of Tensor
            One for each level, (batch, width, rows / 2 ** (level + 1), ...).
        """
        embedding = self.embedding(s)
        image = self.enter(functional.pixel_unshuffle(x, 2), embedding) + self.hint(guide)
        levels = [image]
        for block in self.down:
            levels.append(block(functional.avg_pool2d(levels[-1], 2), embedding))
        return tuple(
            convolution(level) for convolution, level in zip(self.zero, levels, strict=True)
        )


class GuidedUNet(nn.Module):
    """The frozen backbone with its control branch: f(x, s, guide)."""

    def __init__(self, backbone: BridgeUNet, control: ControlBranch) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(requires_grad=False)
        self.control = control

    def forward(self, x: Tensor, s: Tensor, guide: Tensor) -> Tensor:
        """Evaluate once with a guide, as `BridgeUNet.forward`."""
        return cast("Tensor", self.backbone(x, s, self.control(x, s, guide)))
