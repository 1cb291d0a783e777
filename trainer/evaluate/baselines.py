"""The baselines: what a method without a network makes of the same slices.

They learn from the training subjects of the data set; where it has none (an archive of pairs)
from all other subjects, so that none ever sees its own answer. Their volumes are (drawn, row,
column) in the unit of the scores: a training subject's T1 has its percentiles 0.5 and 99.5 in
the head at 0 and 1.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from rebrain_node.model.recipe import Image, Recipe
from rebrain_node.model.resample import doubled, halved
from trainer.data.dataset import PreparedData, Subject
from trainer.data.intensities import truth_unit, unit
from trainer.data.located import HeadFrameError
from trainer.data.placing import Placement, placements
from trainer.data.protocols import Case
from trainer.evaluate.template import Template

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


Volume = NDArray[np.float32]

#: candidates of the nearest exemplar lie this near in position; the floor is in mm
WINDOW_SPACINGS, WINDOW_FLOOR_MM = 1.5, 6.0


@dataclass(frozen=True)
class SubjectStatistics:
    """What the baselines learn from one training subject.

    Attributes
    ----------
    features : NDArray of float32
        (n, f), unit length: its source slices at a quarter of the grid's resolution.
    images : NDArray of uint8
        (n, rows / 2, columns / 2), its T1 on the grid at half resolution.
    below_top_mm : NDArray of float64
        (n,) how far each lies below the top of the head.
    """

    tally: Tally
    features: NDArray[np.float32]
    images: NDArray[np.uint8]
    below_top_mm: NDArray[np.float64]


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
    """All baselines of a data set.

    Attributes
    ----------
    statistics : mapping of str to SubjectStatistics
        By subject.
    template : Template or str
        The mean T1 of the training heads, or why there is none.
    remarks : list of str
        Which heads could not be placed; filled as they are drawn.
    """

    data: PreparedData
    recipe: Recipe
    statistics: Mapping[str, SubjectStatistics]
    template: Template | str
    remarks: list[str]

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
        """Draw a case by every baseline that applies to it, one after the other."""
        statistics = [
            subject_statistics
            for name, subject_statistics in self.statistics.items()
            if name != case.subject.name
        ]
        lookup = reduce(
            add, (subject_statistics.tally for subject_statistics in statistics)
        ).lookup()
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
        """Draw each position by the T1 of the most similar slice at a similar position."""
        placement = placements(case.head, case.subject.pixel_mm, self.recipe)[0]
        features = np.concatenate(
            [subject_statistics.features for subject_statistics in statistics]
        )
        images = np.concatenate([subject_statistics.images for subject_statistics in statistics])
        places = np.concatenate(
            [subject_statistics.below_top_mm for subject_statistics in statistics]
        )
        below_top = _top_mm(case.head, case.positions_mm) - case.targets_mm
        window = np.inf
        if self.data.volumetric:
            spacing = float(np.median(np.diff(case.positions_mm)))
            window = max(WINDOW_SPACINGS * spacing, WINDOW_FLOOR_MM)
        drawn = np.empty_like(source)
        for k, plane in enumerate(source):
            apart = np.abs(places - below_top[k])
            likeness = features @ _feature(plane, placement)
            likeness[apart > max(window, float(apart.min()))] = -np.inf
            image = images[int(np.argmax(likeness))].astype(np.float32) / np.float32(255)
            drawn[k] = placement.back(doubled(image), 0.0)
        return drawn


def _looked_up(lookup: LookupTable, source: Volume) -> Volume:
    return lookup.of(source * 2 - 1)


def _nearest(case: Case) -> NDArray[np.int64]:
    """Return, for each position drawn, the nearest slice given; the lower one of two."""
    apart = np.abs(case.targets_mm[:, None] - case.positions_mm[None, :])
    return np.asarray(np.argmin(apart, axis=1))


def _top_mm(head: NDArray[np.bool_], positions_mm: NDArray[np.float64]) -> float:
    return float(positions_mm[head.any(axis=(1, 2))].max())


def _feature(plane: Image, placement: Placement) -> NDArray[np.float32]:
    """Return the pixels of a slice, [0, 1], at a quarter of the grid's resolution, unit length."""
    pixels = halved(halved(placement.onto(plane, 0.0))).ravel()
    return np.asarray(pixels / max(float(np.linalg.norm(pixels)), 1e-6), dtype=np.float32)
