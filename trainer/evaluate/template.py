"""The baseline `template`: the mean T1 of the training heads, laid over a head by an affine.

No published template is needed: the node's own step places the CT of every training head in the
head frame, and its T1 lies on the same voxels. The head to be synthesised is placed by the slices
that every method is given, not by the dense truth.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rebrain_node.model.recipe import Recipe
from trainer.data.dataset import PreparedData, Subject
from trainer.data.intensities import truth_unit
from trainer.data.located import HeadFrameError, located
from trainer.data.protocols import Case

Volume = NDArray[np.float32]
Affine = NDArray[np.float64]

SPACING_MM = 2.0
#: RAS mm of the first voxel (x, y, z) and the size (z, y, x): a whole head and some of its neck
ORIGIN_MM = (-100.0, -130.0, -150.0)
SHAPE = (131, 121, 101)
LEAST_HEADS = 0.5  #: where less than half a head was seen, nothing is known

_OUTSIDE = -9.0  # an index far from every voxel


@dataclass(frozen=True)
class MeanT1:
    """A sum over heads on one grid of MNI space, (z, y, x) float32.

    Attributes
    ----------
    brightness : Volume
        Sum of the T1 in the unit of the scores, each times its head's coverage.
    coverage : Volume
        Sum of the coverages: how many heads are here.
    """

    brightness: Volume
    coverage: Volume

    @classmethod
    def empty(cls) -> "MeanT1":
        """Return the sum over no head."""
        return cls(np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32))

    def plus(self, subject: Subject, head_from_slices: Affine) -> "MeanT1":
        """Add a head.

        Parameters
        ----------
        head_from_slices : Affine
            (4, 4), see `trainer.data.located.Located`.
        """
        brightness, coverage = _in_head_frame(subject, head_from_slices)
        return MeanT1(self.brightness + brightness, self.coverage + coverage)

    def minus(self, subject: Subject, head_from_slices: Affine) -> "MeanT1":
        """Take out a head that was added with the same affine."""
        brightness, coverage = _in_head_frame(subject, head_from_slices)
        return MeanT1(self.brightness - brightness, self.coverage - coverage)

    def resampled(self, case: Case, head_from_slices: Affine) -> Volume:
        """Resample the mean at every position drawn; 0, air, where no head was seen."""
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
    """The mean T1 of the training heads of a data set.

    Attributes
    ----------
    places : mapping of str to NDArray
        The heads in the mean, each with its (4, 4) `Located.head_from_slices`.
    left_out : mapping of str to str
        Training heads that could not be placed, and why.
    """

    recipe: Recipe
    mean: MeanT1
    places: Mapping[str, NDArray[np.float64]]
    left_out: Mapping[str, str]

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
        """Draw a case, (drawn, row, column), by the heads of others.

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
