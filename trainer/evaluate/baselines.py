"""The baselines: what a method without a network makes of the same slices.

They learn from the training subjects of the data set; where it has none (an archive of pairs)
from all other subjects, so that no subject is synthesised from its own T1. Their volumes are
(position, row, column) in the unit of the scores: the percentiles 0.5 and 99.5 of a training
subject's T1 in the head are 0 and 1.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rebrain_node.model.recipe import Image, Recipe
from rebrain_node.model.resample import doubled, halved
from trainer.data.dataset import PreparedData, Subject, Volume
from trainer.data.placing import HeadFrameError, Placement, located, placements, truth_unit, unit
from trainer.data.protocols import Case

Affine = NDArray[np.float64]

SPACING_MM = 2.0
#: RAS mm of the first voxel (x, y, z) and the size (z, y, x): a whole head and some of its neck
ORIGIN_MM = (-100.0, -130.0, -150.0)
SHAPE = (131, 121, 101)
LEAST_HEADS = 0.5  #: where less than half a head was seen, nothing is known

_OUTSIDE = -9.0  # an index far from every voxel


@dataclass(frozen=True)
class MeanT1:
    """A sum over heads on one grid of MNI space, (z, y, x) float32."""

    brightness: Volume  #: sum of the T1 in the unit of the scores, each times its head's coverage
    coverage: Volume  #: sum of the coverages: how many heads are here

    @classmethod
    def empty(cls) -> "MeanT1":
        """Return the sum over no head."""
        return cls(np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32))

    def plus(self, subject: Subject, head_from_slices: Affine) -> "MeanT1":
        """Add a head.

        Parameters
        ----------
        head_from_slices : Affine
            (4, 4), see `trainer.data.placing.Located`.
        """
        brightness, coverage = _in_head_frame(subject, head_from_slices)
        return MeanT1(self.brightness + brightness, self.coverage + coverage)

    def minus(self, subject: Subject, head_from_slices: Affine) -> "MeanT1":
        """Take out a head that was added with the same affine."""
        brightness, coverage = _in_head_frame(subject, head_from_slices)
        return MeanT1(self.brightness - brightness, self.coverage - coverage)

    def resampled(self, case: Case, head_from_slices: Affine) -> Volume:
        """Resample the mean at every position synthesised; 0, air, where no head was seen."""
        _, rows, columns = case.source.shape
        x, y = np.arange(float(columns)), np.arange(float(rows))
        planes = [self._at(_places(x, y, z), head_from_slices) for z in case.targets_mm[:, None]]
        return np.concatenate(planes)

    def _at(self, places: NDArray[np.float64], head_from_slices: Affine) -> Volume:
        index = (_moved(places, head_from_slices) - ORIGIN_MM)[..., ::-1] / SPACING_MM
        brightness, coverage = (
            ndimage.map_coordinates(volume, np.moveaxis(index, -1, 0), order=1, cval=0.0)
            for volume in (self.brightness, self.coverage)
        )
        known = coverage >= LEAST_HEADS
        return np.where(known, brightness / np.where(known, coverage, 1), 0).astype(np.float32)


def _in_head_frame(subject: Subject, head_from_slices: Affine) -> tuple[Volume, Volume]:
    """Bring a subject's T1 times its mask, and its mask, to the grid of the mean."""
    x, y, z = (
        first + SPACING_MM * np.arange(float(count))
        for first, count in zip(ORIGIN_MM, SHAPE[::-1], strict=True)
    )
    slices_from_head = np.asarray(np.linalg.inv(head_from_slices), dtype=np.float64)
    places = _moved(_places(x, y, z), slices_from_head)
    columns, rows, positions_mm = np.moveaxis(places, -1, 0)
    numbers = np.arange(len(subject.positions_mm), dtype=np.float64)
    slices = np.interp(positions_mm, subject.positions_mm, numbers, left=_OUTSIDE, right=_OUTSIDE)
    index = np.stack([slices, rows, columns])
    mask = subject.mask.astype(np.float32)
    bright = truth_unit(subject.target, subject.mask) * mask
    brightness, coverage = (
        ndimage.map_coordinates(volume, index, order=1, cval=0.0) for volume in (bright, mask)
    )
    return brightness, coverage


def _places(
    x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the points of a grid, (z, y, x, 3) in the order x, y, z."""
    along_z, along_y, along_x = np.meshgrid(z, y, x, indexing="ij")
    return np.stack([along_x, along_y, along_z], axis=-1)


def _moved(places: NDArray[np.float64], affine: Affine) -> NDArray[np.float64]:
    return np.asarray(places @ affine[:3, :3].T + affine[:3, 3])


def why_no_template(data: PreparedData) -> str | None:
    """Say why no mean T1 can be made of a data set; None where it can."""
    if not data.volumetric:
        return "no positions in millimetres: single slices cannot be placed in the head frame"
    if data.source_kind != "ct":
        return f"no CT in HU to place in the head frame: the source is {data.source_kind!r}"
    if not data.split["train"]:
        return "no training subjects whose T1 could be averaged"
    return None


@dataclass(frozen=True)
class Template:
    """The mean T1 of the training heads of a data set."""

    recipe: Recipe
    mean: MeanT1
    #: the heads in the mean, each with its (4, 4) `Located.head_from_slices`
    places: Mapping[str, NDArray[np.float64]]
    left_out: Mapping[str, str]  #: training heads that could not be placed, and why

    @classmethod
    def fit(
        cls, data: PreparedData, recipe: Recipe, progress: Callable[[], None]
    ) -> "Template | str":
        """Average the training heads; where there can be no mean, say why."""
        reason = why_no_template(data)
        if reason is not None:
            return reason
        mean, places, left_out = MeanT1.empty(), {}, {}
        for name in data.split["train"]:
            subject = data.subject(name)
            try:
                found = located(subject.source, subject.positions_mm, subject.pixel_mm, recipe)
            except HeadFrameError as error:
                left_out[name] = str(error)
            else:
                places[name] = found.head_from_slices
                mean = mean.plus(subject, places[name])
            progress()
        if not places:
            name, why = next(iter(left_out.items()))
            return f"no training head can be placed in the head frame; {name}: {why}"
        return cls(recipe, mean, places, left_out)

    def synthesise(self, case: Case) -> NDArray[np.float32]:
        """Synthesise a case, (position, row, column), from the heads of others.

        Raises
        ------
        HeadFrameError
            The slices given cannot be placed in the head frame.
        """
        subject, mean = case.subject, self.mean
        place = located(case.source, case.positions_mm, subject.pixel_mm, self.recipe)
        if subject.name in self.places:
            mean = mean.minus(subject, self.places[subject.name])
        return mean.resampled(case, place.head_from_slices)


_LEVELS = 256


@dataclass(frozen=True)
class LookupTable:
    """Mean T1 (0 to 1) per brightness of the source, and over the head as a whole."""

    table: NDArray[np.float32]
    mean: float

    def of(self, source: Image) -> Image:
        """Map a source in [-1, 1] through the table."""
        return self.table[_level(source)]


@dataclass(frozen=True)
class Tally:
    """Weights and weighted sums of T1 per brightness; tallies of subjects add up."""

    weights: NDArray[np.float64]
    sums: NDArray[np.float64]

    @classmethod
    def of(cls, sources: Image, truth: Image, weights: Image) -> "Tally":
        """Count; `sources` in [-1, 1], `truth` in [0, 1], `weights` >= 0, all one shape."""
        level = _level(sources).ravel()
        return cls(
            np.bincount(level, weights.ravel(), _LEVELS).astype(np.float64),
            np.bincount(level, (truth * weights).ravel(), _LEVELS).astype(np.float64),
        )

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.weights + other.weights, self.sums + other.sums)

    def lookup(self) -> LookupTable:
        """Return the table; a brightness that was never seen gets the mean."""
        mean = float(self.sums.sum() / self.weights.sum())
        table = np.where(self.weights > 0, self.sums / np.maximum(self.weights, 1e-6), mean)
        return LookupTable(table.astype(np.float32), mean)


def _level(source: Image) -> NDArray[np.int64]:
    return np.asarray(np.clip(np.rint((source + 1) * 127.5), 0, _LEVELS - 1), dtype=np.int64)


#: candidates of the nearest exemplar lie this near in position; the floor is in mm
WINDOW_SPACINGS, WINDOW_FLOOR_MM = 1.5, 6.0


@dataclass(frozen=True)
class SubjectStatistics:
    """What the baselines learn from one training subject."""

    tally: Tally
    #: (n, f), unit length: its source slices at a quarter of the grid's resolution
    features: NDArray[np.float32]
    images: NDArray[np.uint8]  #: (n, rows / 2, columns / 2), its T1 on the grid at half resolution
    below_top_mm: NDArray[np.float64]  #: (n,) how far each lies below the top of the head


def statistics_of(subject: Subject, data: PreparedData, recipe: Recipe) -> SubjectStatistics:
    """Take what the baselines need from one training subject."""
    source = unit(subject.source, subject.mask, data.source_kind, recipe)
    truth = truth_unit(subject.target, subject.mask)
    placement = placements(subject.mask, subject.pixel_mm, recipe)[0]
    rows = np.flatnonzero(subject.mask.any(axis=(1, 2)))
    images = [halved(placement.onto(truth[row], 0.0)) for row in rows]
    top = _top_mm(subject.mask, subject.positions_mm)
    return SubjectStatistics(
        tally=Tally.of(source * 2 - 1, truth, subject.mask.astype(np.float32)),
        features=np.stack([_feature(source[row], placement) for row in rows]),
        images=np.rint(np.clip(np.stack(images), 0, 1) * 255).astype(np.uint8),
        below_top_mm=top - subject.positions_mm[rows],
    )


@dataclass(frozen=True)
class Baselines:
    """All baselines of a data set."""

    data: PreparedData
    recipe: Recipe
    statistics: Mapping[str, SubjectStatistics]  #: by subject
    template: Template | str  #: the mean T1 of the training heads, or why there is none
    remarks: list[str]  #: which heads could not be located; filled during synthesis

    @classmethod
    def fit(
        cls, data: PreparedData, training_names: tuple[str, ...], recipe: Recipe,
        progress: Callable[[], None],
    ) -> "Baselines":  # fmt: skip
        """Learn from the subjects named, and the template from the training subjects alone."""
        statistics = {}
        for name in training_names:
            statistics[name] = statistics_of(data.subject(name), data, recipe)
            progress()
        template = Template.fit(data, recipe, progress)
        left_out = {} if isinstance(template, str) else template.left_out
        remarks = [
            f"template: the mean T1 is without {name}: {why}" for name, why in left_out.items()
        ]
        return cls(data, recipe, statistics, template, remarks)

    def synthesise(self, case: Case) -> Iterator[tuple[str, Volume]]:
        """Synthesise a case by every baseline that applies to it, one after the other."""
        statistics = [
            subject_statistics
            for name, subject_statistics in self.statistics.items()
            if name != case.subject.name
        ]
        lookup = reduce(add, (each.tally for each in statistics)).lookup()
        given = unit(case.source, case.head, self.data.source_kind, self.recipe)
        nearest = given[_nearest(case)]
        linear = case.linear(given)
        yield "constant", np.full_like(nearest, lookup.mean)
        yield "identity", nearest
        yield "lut", _looked_up(lookup, nearest)
        if not case.measured.all():
            yield "linear-lut", _looked_up(lookup, linear)
        yield "exemplar", self._exemplars(case, linear, statistics)
        if not isinstance(self.template, str):
            try:
                yield "template", self.template.synthesise(case)
            except HeadFrameError as error:
                self.remarks.append(f"template: no figure for {case.subject.name}: {error}")

    def _exemplars(self, case: Case, source: Volume, statistics: list[SubjectStatistics]) -> Volume:
        """Take for each position the T1 of the most similar slice at a similar position."""
        placement = placements(case.head, case.subject.pixel_mm, self.recipe)[0]
        features = np.concatenate([each.features for each in statistics])
        images = np.concatenate([each.images for each in statistics])
        below_tops = np.concatenate([each.below_top_mm for each in statistics])
        below_top = _top_mm(case.head, case.positions_mm) - case.targets_mm
        window = np.inf
        if self.data.volumetric:
            spacing = float(np.median(np.diff(case.positions_mm)))
            window = max(WINDOW_SPACINGS * spacing, WINDOW_FLOOR_MM)
        volume = np.empty_like(source)
        for k, plane in enumerate(source):
            apart = np.abs(below_tops - below_top[k])
            likeness = features @ _feature(plane, placement)
            likeness[apart > max(window, float(apart.min()))] = -np.inf
            image = images[int(np.argmax(likeness))].astype(np.float32) / np.float32(255)
            volume[k] = placement.back(doubled(image), 0.0)
        return volume


def _looked_up(lookup: LookupTable, source: Volume) -> Volume:
    return lookup.of(source * 2 - 1)


def _nearest(case: Case) -> NDArray[np.int64]:
    """Return, for each position synthesised, the nearest slice given; the lower one of two."""
    apart = np.abs(case.targets_mm[:, None] - case.positions_mm[None, :])
    return np.asarray(np.argmin(apart, axis=1))


def _top_mm(head: NDArray[np.bool_], positions_mm: NDArray[np.float64]) -> float:
    return float(positions_mm[head.any(axis=(1, 2))].max())


def _feature(plane: Image, placement: Placement) -> NDArray[np.float32]:
    """Return the pixels of a slice, [0, 1], at a quarter of the grid's resolution, unit length."""
    pixels = halved(halved(placement.onto(plane, 0.0))).ravel()
    return np.asarray(pixels / max(float(np.linalg.norm(pixels)), 1e-6), dtype=np.float32)
