"""MaskGAN: two generators that say where the body is and keep its shape.

Source: Phan et al., "Structure-preserving synthesis: MaskGAN for unpaired MR-CT translation",
MICCAI 2023.

Kept: each generator gives a content image and a mask, and leaves its input outside the mask; the
mask is held to a coarse mask of the input (mask loss); the mask of an image and the mask of its
translation by the other generator are alike (shape consistency); cycle consistency; a
least-squares discriminator of each kind of image.

Left out: the training is paired, as in the ReBrain paper (an L1 to the true target is added); one
mask in place of ten attention maps; the coarse mask is the head mask of the data set, not
thresholds of its own; no pool of earlier images.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.dataset import Volume
from trainer.peers.fitting import ADVERSARIAL_RATE, BudgetOptimiser
from trainer.peers.layers import (
    WIDTHS_2D,
    PatchDiscriminator,
    TranslationUNet,
    taken_for_real,
    told_apart,
    weighted_l1,
)
from trainer.peers.volumes import GridCase, Pair, TrainingVolumes
from trainer.sample_rng import SampleRng

_BATCH = 4
_PAIRED, _CYCLE, _MASK, _SHAPE, _ADVERSARIAL = 10.0, 5.0, 1.0, 0.5, 0.1


class MaskGenerator(nn.Module):
    """Translates a slice inside a mask that it finds itself."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS_2D) -> None:
        super().__init__()
        self.body = TranslationUNet(2, 1, 2, widths)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the translation and the mask, (batch, 1, rows, columns) each."""
        content, mask = self.body(image).chunk(2, dim=1)
        mask = mask.sigmoid()
        return mask * content + (1 - mask) * image, mask


@dataclass(frozen=True)
class MaskTerms:
    """The two terms of the loss that masks have."""

    mask: Tensor  #: distance of the mask of the input from the coarse mask
    shape: Tensor  #: distance of the mask of the translation from the mask of the input


def mask_terms(mask: Tensor, mask_of_translation: Tensor, coarse: Tensor) -> MaskTerms:
    """Return mask loss and shape consistency, mean absolute differences."""
    return MaskTerms((mask - coarse).abs().mean(), (mask_of_translation - mask).abs().mean())


class MaskGanPeer:
    """MaskGAN with paired training; knows no sparse sources."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS_2D) -> None:
        self.network = MaskGenerator(widths)
        self._back = MaskGenerator(widths)
        self._judges = nn.ModuleList([PatchDiscriminator(1), PatchDiscriminator(1)])
        self._generate = BudgetOptimiser(self.network, self._back, rate=2 * ADVERSARIAL_RATE)
        self._judge = BudgetOptimiser(self._judges, rate=ADVERSARIAL_RATE)

    def step(self, training: TrainingVolumes, rng: SampleRng, share: float) -> float:
        """Train both generators, then both discriminators, on four slices."""
        pair = training.slices(rng, _BATCH)
        loss, made = self._generator_loss(pair)
        value = self._generate.step(loss, share)
        real = (pair.target, pair.source)
        judged = [
            told_apart(judge(image), judge(false.detach()))
            for judge, image, false in zip(self._judges, real, made, strict=True)
        ]
        self._judge.step(judged[0] + judged[1], share)
        return value

    def _generator_loss(self, pair: Pair) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        loss = torch.zeros(())
        made = []
        ways = (
            (self.network, self._back, self._judges[0], pair.source, pair.target),
            (self._back, self.network, self._judges[1], pair.target, pair.source),
        )
        for there, back, judge, image, truth in ways:
            translated, mask = there(image)
            again, mask_again = back(translated)
            masks = mask_terms(mask, mask_again, pair.head)
            loss = loss + (
                _PAIRED * weighted_l1(translated, truth, pair.head)
                + _CYCLE * weighted_l1(again, image, pair.head)
                + _MASK * masks.mask
                + _SHAPE * masks.shape
                + _ADVERSARIAL * taken_for_real(judge(translated))
            )
            made.append(translated)
        return loss, (made[0], made[1])

    def synthesise(self, given: GridCase) -> Volume:
        """Translate the slices given; fill by the mean of neighbours."""
        image, _ = self.network(given.source[:, None])
        return given.averaged(np.asarray(image[:, 0].clamp(-1, 1).numpy()))
