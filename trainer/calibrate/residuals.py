"""Simulated thick-slice series of a known T1, through the steps of the node; residuals."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from rebrain_node.domain.volume import (
    FloatArray,
    Grid,
    Guide,
    MaskArray,
    MillimetreArray,
    PreparedVolume,
    SliceKind,
    SourceVolume,
    SyntheticVolume,
)
from rebrain_node.engine.loaded import LoadedModel
from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.recipe import CHANNELS, Recipe
from rebrain_node.model.tissue_level import shifted
from rebrain_node.steps.estimate import scale_inputs
from rebrain_node.steps.locate import locate
from rebrain_node.steps.preprocess import preprocess
from rebrain_node.steps.retrieve import embed, retrieve
from rebrain_node.steps.synthesise import synthesise
from trainer.sample_rng import SampleRng
from trainer.simulate.hounsfield import Anatomy, Tissues
from trainer.simulate.labels import LabelHead
from trainer.simulate.scanner import scan
from trainer.simulate.slabs import COLUMNS, PIXEL_MM, ROWS, Plan, average, rotation, slab_points

KINDS: tuple[SliceKind, ...] = ("measured", "retrieved", "interpolated")
SPREAD_SEEDS = 8
THINNEST_MM, THICKEST_MM = 3.0, 7.0
_PITCH_DEG, _SD_DEG = (-22.0, 12.0), 3.0  # range of pitch; standard deviation of roll and yaw
_BELOW_BRAIN_MM = 12.0  # a head CT begins at the skull base
_ABOVE_BRAIN_MM = 14.0
_DARK = 0.1  # intensity of fluid, below which a rise counts no more
_DOUBTFUL_HU, _RAMP_HU = (14.0, 26.0), 5.0  # between fluid and brain at its level, and either side
_SMOOTH_PX = 2.0  # standard deviation of the Gaussian against the noise of the CT
_SHIFT_SEED = 0  # one noise field for all shifts of the input
_TRUTH_PLANES = 3  # averaged within one synthetic slice


class Series(Protocol):
    """One series of measured slices, and the truth at every position."""

    def prepared(self, recipe: Recipe) -> PreparedVolume:
        """Return the series as the preprocessing of the node leaves it."""

    def truth(
        self, grid: Grid, distance_mm: float, spacing_mm: float
    ) -> tuple[FloatArray, MaskArray]:
        """Return the true T1 of one synthetic slice, 0 to 1, and where it is known."""


@dataclass(frozen=True)
class SimulatedSeries:
    """One series in the coordinates of its tissue maps: LPS mm are voxels x, y, z at 1 mm."""

    source: SourceVolume
    head: Anatomy

    def prepared(self, recipe: Recipe) -> PreparedVolume:
        """Return the series after the preprocessing of the node."""
        return preprocess(self.source, recipe)

    def truth(
        self, grid: Grid, distance_mm: float, spacing_mm: float
    ) -> tuple[FloatArray, MaskArray]:
        """Return the true T1 of one synthetic slice, and where it is known.

        Returns
        -------
        t1 : FloatArray
            (rows, columns), 0 to 1, the mean over the thickness of the synthetic slice.
        known : MaskArray
            (rows, columns).
        """
        points = _points(grid, distance_mm, spacing_mm)
        t1 = average(torch.from_numpy(self.head.t1)[None], points)[0]
        low, high = torch.from_numpy(self.head.known[::-1].astype(np.float32).copy()).T
        inside = ((points >= low) & (points <= high)).all(dim=-1).all(dim=0)
        return np.asarray(t1), np.asarray(inside.numpy(), dtype=bool)


def simulate_series(head: Tissues | LabelHead, rng: Generator) -> SimulatedSeries:
    """Simulate one series of a new person, with random thickness, orientation and scanner."""
    thickness = float(rng.uniform(THINNEST_MM, THICKEST_MM))
    turn = rotation(rng.uniform(*_PITCH_DEG), *rng.normal(0.0, _SD_DEG, 2))
    person = head.drawn(rng)
    middle, reach = _brain(person.anatomy)
    plan = Plan(middle, turn, thickness, 0.0, 0.0, missing=False)
    raised = torch.from_numpy(person.hu + 1000.0)[None]
    offsets = np.arange(reach[0] - _BELOW_BRAIN_MM, reach[1] + _ABOVE_BRAIN_MM, thickness)
    offsets += rng.uniform(0.0, thickness)
    hu = np.concatenate([average(raised, slab_points(plan, float(o))) for o in offsets]) - 1000.0
    scanned = scan(torch.from_numpy(hu), SampleRng(int(rng.integers(2**31)), 0)).numpy()
    return SimulatedSeries(_source(scanned, plan, offsets), person.anatomy)


def _brain(head: Anatomy) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Return the centre of the brain (z, y, x), and its lowest and highest voxel relative to it."""
    voxels = 4 * np.argwhere(head.brain[::4, ::4, ::4] > 0.5).astype(np.float64)
    middle = voxels.mean(axis=0)
    low, high = np.percentile(voxels[:, 0], (0.5, 99.5)) - middle[0]
    return middle, (float(low), float(high))


def _source(hu: FloatArray, plan: Plan, offsets: NDArray[np.float64]) -> SourceVolume:
    """Place the slices along their normal."""
    along, down, up = plan.rotation.T
    corner = plan.centre[::-1] - PIXEL_MM * (along * (COLUMNS - 1) / 2.0 + down * (ROWS - 1) / 2.0)
    count = len(offsets)
    return SourceVolume(
        hu=hu.astype(np.float32),
        positions_mm=np.asarray(corner + offsets[:, None] * up, dtype=np.float64),
        row_direction=along,
        column_direction=down,
        pixel_spacing_mm=(PIXEL_MM, PIXEL_MM),
        thickness_mm=(plan.thickness_mm,) * count,
        sop_instance_uids=tuple(str(k) for k in range(count)),
        frame_numbers=(None,) * count,
        frame_of_reference_uid="head",
        padding=np.zeros(hu.shape, dtype=bool),
    )


def _points(grid: Grid, distance_mm: float, spacing_mm: float) -> torch.Tensor:
    """Return the points x, y, z of the planes within a slice, (planes, rows, columns, 3)."""
    depths = ((np.arange(_TRUTH_PLANES) + 0.5) / _TRUTH_PLANES - 0.5) * spacing_mm
    rows = np.arange(grid.rows)[:, None, None] * grid.pixel_mm * grid.column_direction
    columns = np.arange(grid.columns)[None, :, None] * grid.pixel_mm * grid.row_direction
    origins: MillimetreArray = np.stack([grid.plane_origin_mm(distance_mm + d) for d in depths])
    return torch.from_numpy((origins[:, None, None] + rows + columns).astype(np.float32))


@dataclass(frozen=True)
class Residuals:
    """Synthetic slices of one subject and their errors.

    Attributes
    ----------
    x : ndarray of float16
        (k, 5, rows, columns), input of the residual-scale network.
    s : FloatArray
        (k, 2), input of the residual-scale network.
    error : ndarray of float16
        (k, rows, columns), absolute, ratio of the display range.
    rule : ndarray of float16
        (k, rows, columns), the heuristic uncertainty.
    spread : ndarray of float16 or None
        (k, rows, columns), standard deviation of samples; None without sampled noise.
    shift_spread : ndarray of float16 or None
        (k, rows, columns), `upward_spread` of drawings at shifted input where the CT is
        `doubtful`; None where the recipe names no shifts.
    inside : MaskArray
        (k, rows, columns), head where the truth is known.
    kinds : tuple of SliceKind
        (k,).
    series : ndarray of int32
        (k,), number of the series of the subject.
    """

    subject: str
    x: NDArray[np.float16]
    s: FloatArray
    error: NDArray[np.float16]
    rule: NDArray[np.float16]
    spread: NDArray[np.float16] | None
    shift_spread: NDArray[np.float16] | None
    inside: MaskArray
    kinds: tuple[SliceKind, ...]
    series: NDArray[np.int32]

    @property
    def digest(self) -> str:
        """SHA-256 of all residuals."""
        content = hashlib.sha256(self.subject.encode())
        for values in (self.x, self.s, self.error, self.inside):
            content.update(np.ascontiguousarray(values).tobytes())
        return content.hexdigest()

    def of_kind(self, kind: SliceKind) -> NDArray[np.bool_]:
        """Slices of a kind, (k,)."""
        return np.array([each == kind for each in self.kinds], dtype=bool)


@dataclass(frozen=True)
class NodeSteps:
    """The steps of the node with a loaded bundle, on `per_kind` slices of a kind per series."""

    model: LoadedModel
    recipe: Recipe
    per_kind: int

    def synthesise(self, series: Series, rng: Generator) -> SyntheticVolume:
        """Synthesise slices of one series."""
        prepared = series.prepared(self.recipe)
        frame = locate(prepared, load_head_template()) if self.recipe.retrieves else None
        model = self.model
        embeddings = embed(prepared, model.encoder, self.recipe) if model.encoder else None
        guides = retrieve(prepared, self.recipe, frame, embeddings, model.exemplars)
        kept = chosen(guides, self.per_kind, rng)
        filters, seed = self.recipe.z_filter_mm > 0.0, int(rng.integers(2**31))
        made = guides if filters else tuple(guides[k] for k in kept)
        volume = synthesise(prepared, made, model.engine, self.recipe, seed)
        return slices_of(volume, kept) if filters else volume

    def spread(self, volume: SyntheticVolume) -> FloatArray | None:
        """Standard deviation of samples, (k, rows, columns); None without sampled noise."""
        if not is_noisy(self.recipe):
            return None
        recipe = self.recipe.model_copy(update={"z_filter_mm": 0.0})
        samples = [
            synthesise(volume.prepared, volume.guides, self.model.engine, recipe, seed)
            for seed in range(SPREAD_SEEDS)
        ]
        return np.asarray(np.std([sample.intensity for sample in samples], axis=0))

    def shift_spread(self, volume: SyntheticVolume) -> FloatArray | None:
        """Spread of drawings with the CT shifted by `uncertainty_shifts_hu` (`upward_spread`).

        Returns
        -------
        FloatArray or None
            (k, rows, columns), 0 outside the drawn head; None where the recipe names no shifts.
        """
        shifts = self.recipe.uncertainty_shifts_hu
        if not shifts:
            return None
        recipe = self.recipe.model_copy(update={"z_filter_mm": 0.0})
        drawings = []
        for shift_hu in (0.0, *(each for each in shifts if each != 0.0)):
            hu = shifted(volume.prepared.hu, shift_hu)
            moved = replace(volume.prepared, hu=hu)
            drawn = synthesise(moved, volume.guides, self.model.engine, recipe, _SHIFT_SEED)
            drawings.append(drawn.intensity)
        return upward_spread(drawings[0], drawings[1:])


def upward_spread(drawn: FloatArray, moved: Sequence[FloatArray]) -> FloatArray:
    """Return how far drawings at shifted input rise above the one as measured, relative to it.

    Tissue that is drawn as fluid stays dark at every shift, so that the standard deviation of the
    drawings is as large in healthy tissue; but what little it rises is much of what is drawn.

    Parameters
    ----------
    drawn : FloatArray
        Intensity, 0 to 1, any shape.
    moved : sequence of FloatArray
        The same at each shift.
    """
    rise = np.max([np.zeros_like(drawn), *(each - drawn for each in moved)], axis=0)
    return np.asarray(rise / (drawn + np.float32(_DARK)), dtype=np.float32)


def doubtful(x: FloatArray, recipe: Recipe) -> FloatArray:
    """Return where the CT may show fluid as well as tissue.

    Elsewhere a rise of what is drawn says nothing: bone and air are drawn as dark as fluid.

    Parameters
    ----------
    x : FloatArray
        (5, rows, columns), channels as in `recipe.CHANNELS`.

    Returns
    -------
    FloatArray
        (rows, columns), 1 from 14 to 26 HU, 0 below 9 and above 31 HU, linear between.
    """
    window = recipe.brain_window
    level = (x[CHANNELS.index("source_brain")].astype(np.float32) + 1.0) / 2.0
    hu = window.low_hu + (window.high_hu - window.low_hu) * gaussian_filter(level, _SMOOTH_PX)
    low, high = _DOUBTFUL_HU
    away = np.maximum(np.maximum(low - hu, hu - high), 0.0)
    return np.asarray(np.clip(1.0 - away / _RAMP_HU, 0.0, 1.0), dtype=np.float32)


def is_noisy(recipe: Recipe) -> bool:
    """Whether sampled noise enters the result: with one time step it does not."""
    return len(recipe.sampling) > 1


def slices_of(volume: SyntheticVolume, rows: Sequence[int]) -> SyntheticVolume:
    """Return some slices of a volume, in this order."""
    some = list(rows)
    return replace(
        volume,
        intensity=volume.intensity[some],
        uncertainty=volume.uncertainty[some],
        head=volume.head[some],
        guides=tuple(volume.guides[k] for k in some),
    )


def chosen(guides: Sequence[Guide], per_kind: int, rng: Generator) -> tuple[int, ...]:
    """Choose at most `per_kind` random guides of each kind; their numbers in order of position."""
    kept: set[int] = set()
    for kind in KINDS:
        rows = [k for k, guide in enumerate(guides) if guide.kind == kind]
        kept |= set(rng.permutation(rows)[:per_kind].tolist())
    return tuple(sorted(kept))


def residuals_of(
    subject: str, many: Iterable[Series], steps: NodeSteps, rng: Generator
) -> Residuals:
    """Synthesise slices of every series of one subject and compare them with the truth.

    Raises
    ------
    ValueError
        No slice contains a voxel whose truth is known.
    """
    rows = [
        (number, *row)
        for number, series in enumerate(many)
        for row in _rows(series, steps.synthesise(series, rng), steps)
    ]
    if not rows:
        raise ValueError(f"no slice of {subject} contains a voxel whose truth is known")
    which, kinds, x, s, error, rule, spread, shift_spread, inside = zip(*rows, strict=True)
    return Residuals(
        subject=subject,
        x=np.stack(x),
        s=np.stack(s),
        error=np.stack(error),
        rule=np.stack(rule),
        spread=np.stack(spread) if is_noisy(steps.recipe) else None,
        shift_spread=np.stack(shift_spread) if steps.recipe.uncertainty_shifts_hu else None,
        inside=np.stack(inside),
        kinds=tuple(kinds),
        series=np.array(which, dtype=np.int32),
    )


def _rows(
    series: Series, volume: SyntheticVolume, steps: NodeSteps
) -> Iterator[tuple[object, ...]]:
    """Yield kind, inputs, error, heuristic, spreads and mask of each slice with known truth."""
    spread, shift_spread = steps.spread(volume), steps.shift_spread(volume)
    spacing_mm = volume.prepared.spacing_mm
    for k, (x, s) in enumerate(scale_inputs(volume, steps.recipe)):
        guide = volume.guides[k]
        truth, known = series.truth(volume.grid, guide.target.distance_mm, spacing_mm)
        inside = volume.head[k] & known
        if inside.any():
            yield (
                guide.kind,
                x[0].astype(np.float16),
                s[0],
                np.abs(volume.intensity[k] - truth).astype(np.float16),
                volume.uncertainty[k].astype(np.float16),
                None if spread is None else spread[k].astype(np.float16),
                None if shift_spread is None else _in_doubt(shift_spread[k], x[0], steps.recipe),
                inside,
            )


def _in_doubt(spread: FloatArray, x: FloatArray, recipe: Recipe) -> NDArray[np.float16]:
    return np.asarray(spread * doubtful(x, recipe), dtype=np.float16)


def _joined_spread(parts: Sequence[Residuals]) -> NDArray[np.float16] | None:
    spreads = [part.shift_spread for part in parts if part.shift_spread is not None]
    return np.concatenate(spreads) if spreads else None


def joined(parts: Sequence[Residuals]) -> Residuals:
    """Concatenate the slices of several subjects, for training."""
    return replace(
        parts[0],
        subject="+".join(part.subject for part in parts),
        x=np.concatenate([part.x for part in parts]),
        s=np.concatenate([part.s for part in parts]),
        error=np.concatenate([part.error for part in parts]),
        rule=np.concatenate([part.rule for part in parts]),
        spread=None,
        shift_spread=_joined_spread(parts),
        inside=np.concatenate([part.inside for part in parts]),
        kinds=tuple(kind for part in parts for kind in part.kinds),
        series=np.concatenate([part.series for part in parts]),
    )
