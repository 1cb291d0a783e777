"""Two safety tests of guidance: a lesion that leaks, and one that is erased.

A disc of blood (65 HU) or of an infarct (14 HU) is planted in the brain.

    leak      in the exemplar alone: nothing of it may be seen in the drawing
    erasure   in the query alone: guidance may not take it away

Both compare drawings of the same position that differ by the disc and nothing else, so whatever
differs comes from it. "Seen" is a mean difference within the disc of at least `VISIBLE` of the
display range; "erased" is a disc that keeps less than half of the contrast it has without guidance.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from rebrain_node.domain.volume import Guide
from rebrain_node.model.recipe import Image, Recipe
from rebrain_node.model.source import Conditioning
from rebrain_node.steps.synthesise import shown
from trainer.evaluate.variants import Sampler

VISIBLE = 0.05
BLOOD_HU, INFARCT_HU = 65.0, 14.0
RADIUS_MM = 6.0
_BRAIN_HU = (18.0, 50.0)  # a disc is planted where query and exemplar both lie in between
_SOFT_PIXELS = 1.0
_KEPT = 0.5


@dataclass(frozen=True)
class PlantedLesion:
    """One position drawn with and without a disc.

    Attributes
    ----------
    leak : float
        Mean absolute difference within the disc, of 1, that a disc in the exemplar makes.
    unguided, guided : float
        Mean difference within the disc, of 1, that a disc in the query makes.
    """

    leak: float
    unguided: float
    guided: float

    @property
    def leaked(self) -> bool:
        """Whether the exemplar's disc can be seen."""
        return self.leak >= VISIBLE

    @property
    def drawn(self) -> bool:
        """Whether the query's disc can be seen without guidance, so that it could be erased."""
        return abs(self.unguided) >= VISIBLE

    @property
    def erased(self) -> bool:
        """Whether guidance took the query's disc away."""
        return self.drawn and self.guided / self.unguided < _KEPT


@dataclass(frozen=True)
class Disc:
    """A lesion: how much each pixel belongs to it, (rows, columns) 0 to 1, and its HU."""

    share: Image
    hu: float

    def in_window(self, plane: Image, low_hu: float, high_hu: float) -> Image:
        """Plant the disc in a slice that a window mapped to [-1, 1]."""
        level = np.clip((self.hu - low_hu) / (high_hu - low_hu), 0, 1) * 2 - 1
        return np.asarray(plane + self.share * (level - plane), dtype=np.float32)

    def within(self, difference: Image) -> float:
        """Return the mean of a difference of images over the disc."""
        return float((difference * self.share).sum() / self.share.sum())


def plant(
    conditionings: Sequence[tuple[Conditioning, Guide]], drawing: Sampler, seed: int
) -> Iterator[PlantedLesion]:
    """Plant a disc in every position that an exemplar guides and that has room for one.

    Blood and infarct take turns.
    """
    rng, recipe = np.random.default_rng(seed), drawing.network.recipe
    hu = BLOOD_HU
    for conditioning, guide in conditionings:
        exemplar = shown(guide, conditioning, recipe)
        if guide.kind != "retrieved" or exemplar is None:
            continue
        share = room(conditioning.source, exemplar[0, 0], recipe, rng)
        if share is None:
            continue
        yield _planted(conditioning, exemplar, Disc(share, hu), drawing)
        hu = INFARCT_HU if hu == BLOOD_HU else BLOOD_HU


def room(query: Image, exemplar: Image, recipe: Recipe, rng: Generator) -> Image | None:
    """Draw where a disc lies within the brain of both slices; None where neither has room."""
    low, high = recipe.brain_window.apply(np.array(_BRAIN_HU))
    brain = np.ones(query.shape, bool)
    for plane in (query, exemplar):
        smooth = ndimage.gaussian_filter(plane, 2.0)
        brain &= (smooth > low) & (smooth < high)
    radius = RADIUS_MM / recipe.grid.pixel_mm
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(brain, 1)))[1:-1, 1:-1]
    centres: NDArray[np.int64] = np.argwhere(depth >= radius)
    if not len(centres):
        return None
    row, column = centres[rng.integers(len(centres))]
    rows, columns = np.indices(query.shape)
    disc = np.hypot(rows - row, columns - column) <= radius
    return np.asarray(ndimage.gaussian_filter(disc.astype(np.float32), _SOFT_PIXELS))


def _planted(
    conditioning: Conditioning, exemplar: Image, disc: Disc, drawing: Sampler
) -> PlantedLesion:
    brain, wide = drawing.network.recipe.brain_window, drawing.network.recipe.wide_window
    source, far, below, above = conditioning.channels
    channels = np.stack(
        [
            disc.in_window(source, brain.low_hu, brain.high_hu),
            disc.in_window(far, wide.low_hu, wide.high_hu),
            disc.in_window(below, brain.low_hu, brain.high_hu),
            disc.in_window(above, brain.low_hu, brain.high_hu),
        ]
    )
    with_disc = replace(conditioning, channels=channels)
    donor = disc.in_window(exemplar[0, 0], brain.low_hu, brain.high_hu)[None, None]
    plain = drawing.at(conditioning, exemplar)
    return PlantedLesion(
        leak=disc.within(np.abs(drawing.at(conditioning, donor) - plain)),
        unguided=disc.within(drawing.at(with_disc) - drawing.at(conditioning)),
        guided=disc.within(drawing.at(with_disc, exemplar) - plain),
    )
