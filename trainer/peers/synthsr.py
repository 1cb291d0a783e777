"""SynthSR-style regression: a 3-D U-Net from an interpolated stack of any gap to the target.

Source: Iglesias et al., "Joint super-resolution and synthesis of 1 mm isotropic MP-RAGE volumes
from clinical MRI exams with scans of different orientation, resolution and contrast", NeuroImage
237, 2021; "SynthSR", Science Advances 9, 2023.

Kept: the source is interpolated to the spacing of the target first; a 3-D U-Net regresses the
target with an L1; slice distance, slice thickness, brightness and a smooth field over the image
are drawn anew for each sample.

Left out: contrasts synthesised from label maps (the source of the data set is used), drawn
deformations, 13 M parameters.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.data.dataset import Volume
from trainer.peers.fitting import BudgetOptimiser
from trainer.peers.layers import WIDTHS_3D, TranslationUNet, weighted_l1
from trainer.peers.volumes import GridCase, TrainingVolumes, sparse_block
from trainer.sample_rng import SampleRng

_FIELD, _GAMMA = 0.1, 0.15  # largest change of brightness by the field; of the exponent


def disturbed(source: Tensor, rng: SampleRng) -> Tensor:
    """Change the brightness of a block by an exponent and by a smooth field; in [-1, 1]."""
    field = functional.interpolate(
        rng.uniform(1 - _FIELD, 1 + _FIELD, 1, 1, 2, 3, 3),
        size=source.shape[2:],
        mode="trilinear",
        align_corners=True,
    )
    bright = ((source + 1) / 2).clamp(0, 1) ** rng.between(1 - _GAMMA, 1 + _GAMMA)
    return (bright * field).clamp(0, 1) * 2 - 1


class SynthSrPeer:
    """The regression; made for sparse sources."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS_3D) -> None:
        self.network = TranslationUNet(3, 2, 1, widths)
        self._descent = BudgetOptimiser(self.network)

    def step(self, training: TrainingVolumes, rng: SampleRng, share: float) -> float:
        """Train on one block at a gap and a brightness drawn."""
        pair = training.block(rng)
        made = self.network(sparse_block(disturbed(pair.source, rng), rng))
        return self._descent.step(weighted_l1(made, pair.target, pair.head), share)

    def synthesise(self, given: GridCase) -> Volume:
        """Synthesise every position at once."""
        made: Tensor = self.network(given.interpolated())
        return np.asarray(torch.clamp(made[0, 0], -1, 1).numpy())
