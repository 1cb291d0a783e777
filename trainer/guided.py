"""Training samples with a guide: what the control branch learns from.

At a missing position the guide is what the node would show: the slice of another person that the
knowledge base finds, or, where none is similar enough, the SLERP of the two neighbours. The truth
stays the person's own T1 (`target: self`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rebrain_node.domain.volume import FloatArray
from rebrain_node.model.directions import between
from rebrain_node.model.half import doubled, halved
from rebrain_node.model.recipe import Recipe
from rebrain_node.ports import Encoder, Exemplars
from trainer.dice import Dice
from trainer.pool import Pool
from trainer.samples import Batch, augmented, locate, sample_weights

#: the pool does not say where in the head a sample lies; the encoder alone decides
_EVERYWHERE_MM = 1000.0
#: where an exemplar was found, how often the SLERP is shown all the same
_SLERP_SHARE = 0.2


@dataclass(frozen=True)
class Guides:
    """Finds the guide of a position between two slices, as the node does.

    Attributes
    ----------
    hash_of : callable
        A person's name to the keyed hash of the knowledge base: nobody guides themselves.
    """

    encoder: Encoder
    exemplars: Exemplars
    recipe: Recipe
    hash_of: Callable[[str], str]

    def exemplar(
        self, below: FloatArray, above: FloatArray, alpha: float, person: str
    ) -> FloatArray | None:
        """Return the CT slice of another person in the brain window, (rows, columns), or None."""
        ends = [self.encoder.embed(halved(image)[None, None]) for image in (below, above)]
        direction = between(ends[0], ends[1], alpha)
        if direction is None:
            return None
        found = self.exemplars.nearest(direction, 0.0, _EVERYWHERE_MM, self.hash_of(person))
        if found is None or not found.similarity >= self.exemplars.tau:
            return None
        return self.recipe.brain_window.apply(doubled(found.hu))


@dataclass(frozen=True)
class GuidedSource:
    """The missing positions of a pool, each with its guide as the last conditioning channel."""

    pool: Pool
    weights: Tensor
    guides: Guides

    @classmethod
    def of(cls, pool: Pool, guides: Guides) -> "GuidedSource":
        """Draw the missing positions as often as their heads deserve, the measured ones never."""
        missing = np.concatenate([np.asarray(arrays["missing"]) for arrays in pool.arrays])
        return cls(
            pool, sample_weights(pool) * torch.from_numpy(missing.astype(np.float32)), guides
        )

    def draw(self, dice: Dice) -> Batch:
        """Draw, place, scan and condition one sample, and find its guide."""
        subject, row = locate(self.pool, int(dice.choice(self.weights, 1)))
        record = self.pool.records[subject]
        parts = augmented(self.pool.sample(subject, row), record, self.guides.recipe, dice)
        batch = Batch(*(part[None] for part in parts))
        source, _, below, above = batch.conditioning[0].numpy()
        below_mm, above_mm, _ = batch.distances_mm[0].tolist()
        alpha = below_mm / (below_mm + above_mm)
        found = self.guides.exemplar(below, above, alpha, record.name)
        guide = source if found is None or dice.chance(_SLERP_SHARE) else found
        channels = torch.cat([batch.conditioning, torch.from_numpy(guide)[None, None]], dim=1)
        return replace(batch, conditioning=channels)
