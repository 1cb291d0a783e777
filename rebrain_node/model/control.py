"""The control branch: how an exemplar guides the frozen bridge (section 3.3 of the paper).

As in ControlNet: a trainable copy of the network's encoder half has the same input and a guide;
its features are added to the frozen features of every level through 1 x 1 convolutions that are
zero at first, so the untrained branch changes nothing. The names of the submodules are the keys of
the weights in released bundles (`control.safetensors`), so they do not change.
"""

import copy
from typing import cast

from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.unet import BridgeUNet, from_bundle

_HINT = 32  # channels between the two convolutions that read the guide


class ControlBranch(nn.Module):
    """Computes the features that a guide adds to every level of a `BridgeUNet`.

    Parameters
    ----------
    backbone : BridgeUNet
        Its encoder half is copied; it is not changed.
    """

    def __init__(self, backbone: BridgeUNet) -> None:
        super().__init__()
        self.embedding = copy.deepcopy(backbone.embedding)
        self.enter = copy.deepcopy(backbone.enter)
        self.down = copy.deepcopy(backbone.down)
        widths = [self.enter.second.out_channels]
        widths += [cast("nn.Conv2d", block.second).out_channels for block in self.down]
        self.hint = nn.Sequential(
            nn.Conv2d(4, _HINT, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_HINT, widths[0], 3, padding=1),
        )
        self.zero = nn.ModuleList(_zero(width) for width in widths)

    def forward(self, x: Tensor, s: Tensor, guide: Tensor) -> tuple[Tensor, ...]:
        """Return the features added to every level, finest first.

        Parameters
        ----------
        x, s : Tensor
            As of `BridgeUNet.forward`.
        guide : Tensor
            (batch, 1, rows, columns): a CT slice in the brain window, [-1, 1].

        Returns
        -------
        tuple of Tensor
            One for each level k = 0, 1, ..: (batch, width, rows / 2 ** (k + 1), ...).
        """
        embedding = self.embedding(s)
        image = self.enter(functional.pixel_unshuffle(x, 2), embedding)
        levels = [image + self.hint(functional.pixel_unshuffle(guide, 2))]
        for block in self.down:
            levels.append(block(functional.avg_pool2d(levels[-1], 2), embedding))
        return tuple(mix(level) for mix, level in zip(self.zero, levels, strict=True))


class GuidedUNet(nn.Module):
    """A frozen network and its control branch, as one network to train.

    Parameters
    ----------
    backbone : BridgeUNet
        Frozen: its weights take no gradient.
    """

    def __init__(self, backbone: BridgeUNet) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(requires_grad=False)
        self.control = ControlBranch(backbone).requires_grad_()

    def forward(self, x: Tensor, s: Tensor, guide: Tensor) -> Tensor:
        """Evaluate once; arguments as of `ControlBranch.forward`, result as of `BridgeUNet`."""
        return cast("Tensor", self.backbone(x, s, self.control(x, s, guide)))


class SteeredUNet(nn.Module):
    """The network as an engine runs it with a control branch: f(x, s, added features)."""

    def __init__(self, backbone: BridgeUNet) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor, s: Tensor, *added: Tensor) -> Tensor:
        """Evaluate once; without added features, or with zeros, it is the unguided network."""
        return cast("Tensor", self.backbone(x, s, added))


def _zero(width: int) -> nn.Conv2d:
    mix = nn.Conv2d(width, width, 1)
    nn.init.zeros_(mix.weight)
    nn.init.zeros_(cast("Tensor", mix.bias))
    return mix


def control_of(bundle: ModelBundle) -> ControlBranch:
    """Return the control branch of a bundle, ready for evaluation.

    Raises
    ------
    TypeError
        The bundle's network takes no control branch.
    """
    backbone = from_bundle(bundle)
    if not isinstance(backbone, BridgeUNet):
        raise TypeError(f"{type(backbone).__name__} takes no control branch")
    control = ControlBranch(backbone)
    control.load_state_dict(load(bundle.read("control.safetensors")))
    return control.eval()
