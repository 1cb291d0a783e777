"""One missing position synthesised by every variant of guidance (Tables 4 and 5 of the paper).

    full            guided by the exemplar where it reaches tau, else by the SLERP: the recipe
    full-registered the same, the exemplar registered in its plane before it guides
    control-slerp   the control branch, guided by the SLERP everywhere
    slerp           the bridge alone
    as-source       the exemplar itself as the source image of the bridge, where it reaches tau
    linear          no network: between the synthetic slices at measured positions

Every position is synthesised once by each variant, and once guided by its best exemplar whatever
its similarity: any threshold is then a choice between images that exist.

Two safety tests plant a disc of blood (65 HU) or of an infarct (14 HU) in the brain.

    leak      in the exemplar alone: nothing of it may be visible in the result
    erasure   in the query alone: guidance may not remove it

Both compare results at the same position that differ by the disc and nothing else, so whatever
differs comes from it. "Visible" is a mean difference within the disc of at least `VISIBLE` of the
display range; "erased" is a disc that keeps less than half of the contrast it has without guidance.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from rebrain_node.domain.volume import Guide
from rebrain_node.model.recipe import Image, Recipe
from rebrain_node.model.sampling import noise_field, sample_slice
from rebrain_node.model.similarity import IntensityScale, ssim_map
from rebrain_node.model.source import Conditioning, conditioning_at
from rebrain_node.steps.synthesise import shown
from trainer.data.dataset import Volume
from trainer.data.placing import placements, source_slices
from trainer.data.protocols import Case
from trainer.evaluate.networks import Network

VARIANTS = ("full", "full-registered", "control-slerp", "slerp", "as-source", "linear")
_GUIDED = {"full": "retrieved", "full-registered": "registered"}


@dataclass(frozen=True)
class FilledSlice:
    """One missing position, its best exemplar, and how each variant synthesised it."""

    subject: str
    guide: Guide  #: of the recipe's knowledge base at tau -1: the best exemplar, if there is any
    #: by variant (all but the "full" ones), within the head of the slice; "retrieved" and
    #: "registered": guided by the best exemplar
    ssim: dict[str, float]
    mae: dict[str, float]
    #: the same within the brain of the slice; empty where it has none
    brain_ssim: dict[str, float] = field(default_factory=dict)
    brain_mae: dict[str, float] = field(default_factory=dict)

    def by(self, variant: str, tau: float) -> str:
        """Name the image that a variant takes where `tau` is the threshold."""
        reached = self.guide.kind == "retrieved" and (self.guide.similarity or -1.0) >= tau
        if variant in _GUIDED:
            return _GUIDED[variant] if reached else "control-slerp"
        if variant == "as-source" and not reached:
            return "slerp"
        return variant


@dataclass(frozen=True)
class Sampler:
    """Synthesises positions of one case on the model grid."""

    network: Network
    noise: Image  #: (rows, columns), shared by all positions

    @classmethod
    def of(cls, network: Network, seed: int) -> "Sampler":
        """Use one noise field, of `seed`."""
        return cls(network, noise_field(network.recipe.grid.shape, seed))

    def at(self, conditioning: Conditioning, guide: Image | None = None) -> Image:
        """Synthesise one position, (rows, columns) in [0, 1]; `guide` (1, 1, rows, columns)."""
        recipe = self.network.recipe

        def evaluate(x: Image, s: Image) -> Image:
            return self.network.evaluate(x, s, guide)

        image = sample_slice(
            evaluate, conditioning, recipe.sampling, eta=recipe.eta, noise=self.noise
        )
        return np.asarray((image + 1) / 2, dtype=np.float32)

    def variants(
        self,
        conditioning: Conditioning,
        guide: Guide,
        registered: Guide | None = None,
        wanted: Sequence[str] = VARIANTS,
    ) -> dict[str, Image]:
        """Synthesise one missing position by every wanted variant that evaluates a network.

        `registered` is the same guide with its exemplar registered.
        """
        images = {"control-slerp": self.at(conditioning, conditioning.source[None, None])}
        if "slerp" in wanted:
            images["slerp"] = self.at(conditioning)
        if guide.kind != "retrieved":
            return images
        exemplar = self._shown(guide, conditioning)
        images["retrieved"] = self.at(conditioning, exemplar)
        if "as-source" in wanted:
            images["as-source"] = self.at(_with_source(conditioning, exemplar[0, 0]))
        if registered is not None and "full-registered" in wanted:
            images["registered"] = self.at(conditioning, self._shown(registered, conditioning))
        return images

    def _shown(self, guide: Guide, conditioning: Conditioning) -> Image:
        exemplar = shown(guide, conditioning, self.network.recipe)
        assert exemplar is not None  # noqa: S101 - retrieved by a retrieving recipe
        return exemplar


def _with_source(conditioning: Conditioning, source: Image) -> Conditioning:
    """Make another slice the source image of the bridge; its wide window is not known."""
    channels = conditioning.channels.copy()
    channels[0], channels[1] = source, -1.0
    return replace(conditioning, channels=channels)


@dataclass(frozen=True)
class FillRequest:
    """Which positions of a case are filled, and by which variants."""

    variants: Sequence[str] = VARIANTS
    most: int | None = None  #: positions of a case, evenly spread; None fills all
    #: the guides with their exemplars registered; None where the recipe registers them itself
    registered: Mapping[int, Guide] | None = None

    def rows(self, case: Case) -> list[int]:
        """Return the positions that are filled, of all that the case synthesises."""
        missing = np.flatnonzero(~case.measured)
        if self.most is not None and len(missing) > self.most:
            missing = missing[((np.arange(self.most) + 0.5) * len(missing) / self.most).astype(int)]
        return missing.tolist()


def fill(
    case: Case,
    guides: Sequence[Guide] | Mapping[int, Guide],
    sampler: Sampler,
    progress: Callable[[], None],
    request: FillRequest | None = None,
) -> list[FilledSlice]:
    """Synthesise missing positions of a case by every variant and score them.

    Parameters
    ----------
    guides : sequence or mapping of Guide
        Of each position that is filled, at tau -1.
    """
    request = request or FillRequest()
    recipe = sampler.network.recipe
    (placement,) = placements(case.head, case.subject.pixel_mm, recipe)
    slices = source_slices(case, "ct", recipe, placement)
    below, share = case.bracket()

    @cache
    def given(k: int) -> Volume:
        position = float(case.positions_mm[k])
        return placement.back(sampler.at(conditioning_at(slices, position)), 0.0)

    truth = SliceReference.of(case)
    found = []
    for k in request.rows(case):
        progress()
        if not truth.head[k].any():
            continue
        conditioning = conditioning_at(slices, float(case.targets_mm[k]))
        registered = None if request.registered is None else request.registered[k]
        images = sampler.variants(conditioning, guides[k], registered, request.variants)
        pictures = {name: placement.back(image, 0.0) for name, image in images.items()}
        if "linear" in request.variants:
            first = given(int(below[k]))
            pictures["linear"] = first + share[k] * (given(int(below[k]) + 1) - first)
        found.append(truth.scored(k, guides[k], pictures))
    return found


@dataclass(frozen=True)
class SliceReference:
    """The true slices at the positions synthesised, in the unit of the scores."""

    subject: str
    reference: Volume
    head: NDArray[np.bool_]
    brain: NDArray[np.bool_]  #: nothing where the data set has no mask of the brain

    @classmethod
    def of(cls, case: Case) -> "SliceReference":
        """Take the truth of a case."""
        subject = case.subject
        head = subject.mask[case.rows]
        brain = np.zeros_like(head) if subject.brain is None else subject.brain[case.rows]
        target = subject.target[case.rows]
        return cls(subject.name, IntensityScale.of(target, head).map(target), head, brain)

    def scored(self, k: int, guide: Guide, pictures: Mapping[str, Image]) -> FilledSlice:
        """Score every picture of position `k`: SSIM in the plane and mean absolute error."""
        head, brain, reference = self.head[k], self.brain[k], self.reference[k]
        filled = FilledSlice(self.subject, guide, {}, {})
        for variant, picture in pictures.items():
            similarity, error = ssim_map(picture, reference), np.abs(picture - reference)
            filled.ssim[variant] = float(similarity[head].mean())
            filled.mae[variant] = float(error[head].mean())
            if brain.any():
                filled.brain_ssim[variant] = float(similarity[brain].mean())
                filled.brain_mae[variant] = float(error[brain].mean())
        return filled


VISIBLE = 0.05
BLOOD_HU, INFARCT_HU = 65.0, 14.0
RADIUS_MM = 6.0
_BRAIN_HU = (18.0, 50.0)  # a disc is planted where query and exemplar both lie in between
_SOFT_PIXELS = 1.0
_KEPT = 0.5


@dataclass(frozen=True)
class PlantedLesion:
    """One position synthesised with and without a disc."""

    #: mean absolute difference within the disc, of 1, that a disc in the exemplar makes
    leak: float
    #: unguided, guided: mean difference within the disc, of 1, that a disc in the query makes
    unguided: float
    guided: float

    @property
    def leaked(self) -> bool:
        """Whether the disc of the exemplar is visible."""
        return self.leak >= VISIBLE

    @property
    def visible(self) -> bool:
        """Whether the disc of the query is visible without guidance, so that it could be erased."""
        return abs(self.unguided) >= VISIBLE

    @property
    def erased(self) -> bool:
        """Whether guidance removed the disc of the query."""
        return self.visible and self.guided / self.unguided < _KEPT


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
    conditionings: Sequence[tuple[Conditioning, Guide]], sampler: Sampler, seed: int
) -> Iterator[PlantedLesion]:
    """Plant a disc in every position that an exemplar guides and that has room for one.

    Blood and infarct take turns.
    """
    rng, recipe = np.random.default_rng(seed), sampler.network.recipe
    hu = BLOOD_HU
    for conditioning, guide in conditionings:
        exemplar = shown(guide, conditioning, recipe)
        if guide.kind != "retrieved" or exemplar is None:
            continue
        share = room(conditioning.source, exemplar[0, 0], recipe, rng)
        if share is None:
            continue
        yield _planted(conditioning, exemplar, Disc(share, hu), sampler)
        hu = INFARCT_HU if hu == BLOOD_HU else BLOOD_HU


def room(query: Image, exemplar: Image, recipe: Recipe, rng: Generator) -> Image | None:
    """Sample where a disc lies within the brain of both slices; None where neither has room."""
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
    conditioning: Conditioning, exemplar: Image, disc: Disc, sampler: Sampler
) -> PlantedLesion:
    brain, wide = sampler.network.recipe.brain_window, sampler.network.recipe.wide_window
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
    with_lesion = disc.in_window(exemplar[0, 0], brain.low_hu, brain.high_hu)[None, None]
    plain = sampler.at(conditioning, exemplar)
    return PlantedLesion(
        leak=disc.within(np.abs(sampler.at(conditioning, with_lesion) - plain)),
        unguided=disc.within(sampler.at(with_disc) - sampler.at(conditioning)),
        guided=disc.within(sampler.at(with_disc, exemplar) - plain),
    )
