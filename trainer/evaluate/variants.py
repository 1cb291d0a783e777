"""One missing position synthesised by every variant of guidance (Tables 4 and 5 of the paper).

    full            guided by the exemplar where it reaches tau, else by the SLERP: the recipe
    control-slerp   the control branch, shown the SLERP everywhere
    slerp           the bridge alone
    as-source       the exemplar itself at the end of the bridge, where it reaches tau
    linear          no network: between our own drawings of the measured slices

Every position is drawn once by each way, and once guided by its best exemplar whatever its
similarity: any threshold is then a choice between images that exist.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
from trainer.data.placing import placements, source_slices
from trainer.data.protocols import Case, Volume
from trainer.evaluate.networks import Network

VARIANTS = ("full", "control-slerp", "slerp", "as-source", "linear")


@dataclass(frozen=True)
class FilledSlice:
    """One missing position, its best exemplar, and how each way drew it.

    Attributes
    ----------
    guide : Guide
        Of the recipe's knowledge base at tau -1: the best exemplar, if there is any.
    ssim, mae : mapping of str to float
        By way (all but "full"), within the head of the slice, and "retrieved": guided by the
        best exemplar.
    """

    subject: str
    guide: Guide
    ssim: Mapping[str, float]
    mae: Mapping[str, float]

    def by(self, way: str, tau: float) -> str:
        """Name the image that a variant takes where `tau` is the threshold."""
        reached = self.guide.kind == "retrieved" and (self.guide.similarity or -1.0) >= tau
        if way == "full":
            return "retrieved" if reached else "control-slerp"
        if way == "as-source" and not reached:
            return "slerp"
        return way


@dataclass(frozen=True)
class Sampler:
    """What draws positions of one case on the model grid.

    Attributes
    ----------
    noise : Image
        (rows, columns), shared by all positions.
    """

    network: Network
    noise: Image

    @classmethod
    def of(cls, network: Network, seed: int) -> "Sampler":
        """Draw with one noise field, of `seed`."""
        return cls(network, noise_field(network.recipe.grid.shape, seed))

    def at(self, conditioning: Conditioning, guide: Image | None = None) -> Image:
        """Draw one position, (rows, columns) in [0, 1]; `guide` (1, 1, rows, columns)."""
        recipe = self.network.recipe

        def evaluate(x: Image, s: Image) -> Image:
            return self.network.evaluate(x, s, guide)

        drawn = sample_slice(
            evaluate, conditioning, recipe.sampling, eta=recipe.eta, noise=self.noise
        )
        return np.asarray((drawn + 1) / 2, dtype=np.float32)

    def ways(self, conditioning: Conditioning, guide: Guide) -> dict[str, Image]:
        """Draw one missing position by every way that evaluates a network."""
        recipe = self.network.recipe
        slerp = conditioning.source[None, None]
        drawn = {
            "slerp": self.at(conditioning),
            "control-slerp": self.at(conditioning, slerp),
        }
        if guide.kind == "retrieved":
            exemplar = shown(guide, conditioning, recipe)
            assert exemplar is not None  # noqa: S101 - retrieved by a retrieving recipe
            drawn["retrieved"] = self.at(conditioning, exemplar)
            drawn["as-source"] = self.at(_with_source(conditioning, exemplar[0, 0]))
        return drawn


def _with_source(conditioning: Conditioning, source: Image) -> Conditioning:
    """Put another slice at the end of the bridge; its wide window is not known."""
    channels = conditioning.channels.copy()
    channels[0], channels[1] = source, -1.0
    return replace(conditioning, channels=channels)


def fill(
    case: Case, guides: Sequence[Guide], drawing: Sampler, progress: Callable[[], None]
) -> list[FilledSlice]:
    """Draw every missing position of a case by every way and score it.

    Parameters
    ----------
    guides : sequence of Guide
        One for each position drawn, at tau -1.
    """
    recipe = drawing.network.recipe
    (placement,) = placements(case.head, case.subject.pixel_mm, recipe)
    slices = source_slices(case, "ct", recipe, placement)
    given = np.stack(
        [
            placement.back(drawing.at(conditioning_at(slices, float(place))), 0.0)
            for place in case.positions_mm
        ]
    )
    linear = case.linear(given)
    truth = SliceReference.of(case)
    found = []
    for k in np.flatnonzero(~case.measured).tolist():
        conditioning = conditioning_at(slices, float(case.targets_mm[k]))
        drawn = drawing.ways(conditioning, guides[k])
        pictures = {way: placement.back(image, 0.0) for way, image in drawn.items()}
        pictures["linear"] = linear[k]
        scores = {way: truth.score(k, picture) for way, picture in pictures.items()}
        if truth.head[k].any():
            found.append(
                FilledSlice(
                    case.subject.name,
                    guides[k],
                    ssim={way: ssim for way, (ssim, _) in scores.items()},
                    mae={way: mae for way, (_, mae) in scores.items()},
                )
            )
        progress()
    return found


@dataclass(frozen=True)
class SliceReference:
    """The true slices at the positions drawn, in the unit of the scores."""

    reference: Volume
    head: NDArray[np.bool_]

    @classmethod
    def of(cls, case: Case) -> "SliceReference":
        """Take the truth of a case."""
        head = case.subject.mask[case.rows]
        target = case.subject.target[case.rows]
        return cls(IntensityScale.of(target, head).map(target), head)

    def score(self, k: int, picture: Image) -> tuple[float, float]:
        """Return SSIM (in the plane) and mean absolute error within the head of position `k`."""
        head = self.head[k]
        if not head.any():
            return float("nan"), float("nan")
        reference = self.reference[k]
        similarity = ssim_map(picture, reference)
        return float(similarity[head].mean()), float(np.abs(picture - reference)[head].mean())


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
