"""The methods compared with the baselines: a network, and the volumes of another method.

A network is conditioned and sampled by the node's own code (`model/source`, `model/sampling`).

Volumes of another method are `<subject>.nii.gz` or `<subject>.nii`, `<subject>.npy`, or
`<subject>.npz` with one array: all slices of the subject, (slice, row, column) of the data set for
arrays, in the unit of its target.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from rebrain_node.domain.volume import Guide
from rebrain_node.errors import RebrainError
from rebrain_node.model.sampling import noise_field, sample_slice
from rebrain_node.model.similarity import IntensityScale
from rebrain_node.model.source import Conditioning, SourceSlice, at_measured, conditioning_at
from rebrain_node.steps.synthesise import shown
from trainer.data.dataset import PreparedData, Subject, Volume
from trainer.data.placing import placements, source_slices
from trainer.data.protocols import Case
from trainer.evaluate.networks import Network
from trainer.release.card import OURS


@dataclass(frozen=True)
class NetworkMethod:
    """A network under the name it has in the tables."""

    name: str
    network: Network
    data: PreparedData
    seed: int  #: of the noise field that all slices of all subjects share

    def synthesise(self, case: Case, progress: Callable[[], None]) -> Iterator[tuple[str, Volume]]:
        """Synthesise a case by the recipe and, where positions are to be filled, by simpler ones.

        `progress` is called after each position; there are `positions(case)`.
        """
        given = self._synthesised_at(case, case.positions_mm, progress)
        missing = ~case.measured
        if not missing.any():
            yield self.name, given
            return
        linear = case.linear(given)
        whole = linear.copy()  # at measured positions the interpolation is the slice itself
        whole[missing] = self._synthesised_at(case, case.targets_mm[missing], progress)
        full = linear if self.network.recipe.retrieval.method == "linear" else whole
        if self._guided:
            full = linear.copy()
            full[missing] = self._synthesised_at(
                case, case.targets_mm[missing], progress, self._guides(case)
            )
        yield self.name, full
        below, _ = case.bracket()
        average = linear.copy()
        average[missing] = (given[below[missing]] + given[below[missing] + 1]) / 2
        if self.name != OURS:
            yield f"{self.name}-average", average
            return
        yield "bridge-average", average
        yield "bridge-linear", linear
        yield "bridge-slerp", whole

    def positions(self, case: Case) -> int:
        """Return how many positions `synthesise` synthesises."""
        placed = placements(case.head, case.subject.pixel_mm, self.network.recipe)
        rounds = 2 if self._guided else 1
        return len(placed) * (len(case.source) + rounds * int((~case.measured).sum()))

    @property
    def _guided(self) -> bool:
        """Whether missing positions take exemplars: the bundle has them, and the data HU and mm."""
        ct = self.data.volumetric and self.data.source_kind == "ct"
        return ct and self.network.retriever is not None

    def _guides(self, case: Case) -> tuple[Guide, ...]:
        """Retrieve for every missing position; a volume in mm has one placement."""
        assert self.network.retriever is not None  # noqa: S101 - asked by the caller
        (placement,) = placements(case.head, case.subject.pixel_mm, self.network.recipe)
        every = self.network.retriever.guides(case, placement)
        return tuple(g for g, measured in zip(every, case.measured, strict=True) if not measured)

    def _synthesised_at(
        self,
        case: Case,
        positions_mm: NDArray[np.float64],
        progress: Callable[[], None],
        guides: Sequence[Guide] = (),
    ) -> Volume:
        """Synthesise positions, (n, row, column) of the data set, averaged over placements.

        `guides` has one for each position, or is empty: no guidance.
        """
        recipe = self.network.recipe
        noise = noise_field(recipe.grid.shape, self.seed)
        placed = placements(case.head, case.subject.pixel_mm, recipe)
        volume = np.zeros((len(positions_mm), *case.source.shape[1:]), np.float32)
        for placement in placed:
            slices = source_slices(case, self.data.source_kind, recipe, placement)
            for k, position in enumerate(positions_mm):
                conditioning = self._conditioning(slices, float(position))
                guide = shown(guides[k], conditioning, recipe) if guides else None
                image = sample_slice(
                    partial(self.network.evaluate, guide=guide),
                    conditioning,
                    recipe.sampling,
                    eta=recipe.eta,
                    noise=noise,
                )
                volume[k] += (placement.back(image, -1.0) + 1) / (2 * len(placed))
                progress()
        return volume

    def _conditioning(self, slices: Sequence[SourceSlice], position_mm: float) -> Conditioning:
        """Condition as the node does; a slice whose position is unknown has no neighbours."""
        if self.data.volumetric:
            return conditioning_at(slices, position_mm)
        return at_measured(next(piece for piece in slices if piece.position_mm == position_mm))


SUFFIXES = (".nii.gz", ".nii", ".npy", ".npz")
_SPACING_TOLERANCE_MM = 0.01


class PredictionError(RebrainError):
    """A prediction cannot be scored; the message names its file."""


@dataclass(frozen=True)
class Predictions:
    """A folder of predictions under the name of its method."""

    name: str
    folder: Path

    def path(self, subject: str) -> Path:
        """Return the file of a subject.

        Raises
        ------
        PredictionError
            There is none, or more than one.
        """
        found = [self.folder / f"{subject}{suffix}" for suffix in SUFFIXES]
        found = [path for path in found if path.is_file()]
        if len(found) != 1:
            raise PredictionError(
                f"{self.folder}: {len(found)} files for subject {subject}, expected one of "
                + ", ".join(f"{subject}{suffix}" for suffix in SUFFIXES)
            )
        return found[0]

    def read(self, subject: Subject) -> Volume:
        """Read one subject's volume, in the unit of the data set's target.

        Raises
        ------
        PredictionError
            The file is damaged, on another grid, or holds values that are not finite.
        """
        path = self.path(subject.name)
        volume = _array(path) if path.suffix in {".npy", ".npz"} else _nifti(path, subject)
        if volume.shape != subject.source.shape:
            raise PredictionError(
                f"{path}: shape {volume.shape}, expected {subject.source.shape} "
                "(slice, row, column) as the data set"
            )
        bad = int(np.count_nonzero(~np.isfinite(volume)))
        if bad:
            raise PredictionError(f"{path}: {bad} values are not finite")
        return volume


def _array(path: Path) -> Volume:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content.astype(np.float32)
        with content as archive:
            if len(archive.files) != 1:
                raise PredictionError(f"{path}: {len(archive.files)} arrays, expected one")
            return np.asarray(archive[archive.files[0]], dtype=np.float32)
    except (ValueError, OSError, EOFError) as error:
        raise PredictionError(f"{path} cannot be read: {error}") from error


def _nifti(path: Path, subject: Subject) -> Volume:
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise PredictionError(f"{path} cannot be read as NIfTI") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise PredictionError(f"{path}: {image.GetDimension()}-D, expected one 3-D volume")
    image = SimpleITK.DICOMOrient(image, "LPS")
    if subject.pixel_mm is not None:
        columns_mm, rows_mm, slices_mm = image.GetSpacing()
        found = (slices_mm, rows_mm, columns_mm)
        expected = (float(np.median(np.diff(subject.positions_mm))), *subject.pixel_mm)
        if not np.allclose(found, expected, rtol=0, atol=_SPACING_TOLERANCE_MM):
            raise PredictionError(
                f"{path}: voxels of {_mm(found)} mm, expected {_mm(expected)} "
                "(slice, row, column) as the data set"
            )
    return np.asarray(SimpleITK.GetArrayFromImage(image), dtype=np.float32)


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.3f}" for value in spacing)


def write_prediction(folder: Path, case: Case, volume: Volume) -> None:
    """Write a volume of a method so that `Predictions` reads it back.

    Parameters
    ----------
    folder : Path
        Of the method.
    case : Case
        Says which slices of the subject were synthesised; the others are black.
    volume : Volume
        (n, row, column), in the unit of the scores.
    """
    subject = case.subject
    scale = IntensityScale.of(subject.target[case.rows], subject.mask[case.rows])
    whole = np.full(subject.target.shape, scale.low, np.float32)
    whole[case.rows] = volume * np.float32(scale.high - scale.low) + np.float32(scale.low)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{subject.name}.npz", volume=whole)
