"""Training samples from a prepared data set, sparse as clinical series are.

Every sample draws its own protocol: how many slices apart, or how thick, the measured slices
are and where they begin. The target may so be a measured position or a missing one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rebrain_node.domain.volume import AIR_HU
from rebrain_node.model.recipe import Image, Recipe
from rebrain_node.model.source import Conditioning, SourceSlice, conditioning_at, windowed
from trainer.data.dataset import PreparedData, SourceKind, Subject
from trainer.data.placing import levelled_hu, levelled_window, placements, truth_unit, unit
from trainer.data.protocols import Sparsity, thinned
from trainer.sample_rng import SampleRng
from trainer.train.samples import Batch, place
from trainer.train.workers import TrainingError

GAPS = (1, 2, 3, 4)  # slices from one measured slice to the next; drawn alike
_THICK = 0.3  # share of protocols with slices as thick as their distance
_ALONE = 0.1  # share of measured targets without neighbours
_OUTSIDE_HEAD = 0.15  # weight of a pixel
_TURN_DEGREES, _STRETCH, _SHIFT_PIXELS, _GAIN = 7.0, 0.06, 4.0, 0.05
_BRIGHTNESS: dict[SourceKind, float] = {"ct": 3.0, "ct-window": 0.06, "mr": 0.06}


@dataclass(frozen=True)
class SlabProtocol:
    """Which slices are measured: `width` slices from every `gap`-th on, beginning at `phase`.

    A width of 1 is `decimate`, a width equal to the gap `thick`.
    """

    gap: int
    width: int
    phase: int

    @classmethod
    def drawn(cls, rng: SampleRng) -> "SlabProtocol":
        """Draw a protocol."""
        gap = GAPS[rng.integer(len(GAPS))]
        width = gap if rng.chance(_THICK) else 1
        return cls(gap, width, rng.integer(gap))

    def around(self, target: int, count: int) -> tuple[range, ...]:
        """Return the measured slabs near slice `target` of `count`, as ranges of slices."""
        nearest = (target - self.phase) // self.gap
        begins = [self.phase + self.gap * q for q in range(nearest - 1, nearest + 3)]
        return tuple(range(b, b + self.width) for b in begins if b >= 0 and b + self.width <= count)


@dataclass(frozen=True)
class GridSubject:
    """One subject on the model grid, at half precision: 5 bytes per pixel."""

    raw: NDArray[np.float16]  #: (slice, rows, columns) float16: HU, or what is no HU in [-1, 1]
    target: NDArray[np.float16]  #: (slice, rows, columns) float16 in [-1, 1]
    mask: NDArray[np.bool_]  #: (slice, rows, columns) bool, the head
    positions_mm: NDArray[np.float64]  #: (slice,), rising

    @classmethod
    def of(cls, subject: Subject, kind: SourceKind, recipe: Recipe) -> "GridSubject":
        """Put a subject on the grid as the evaluation does."""
        placement = placements(subject.mask, subject.pixel_mm, recipe)[0]

        def onto(volume: NDArray[np.float32], outside: float) -> NDArray[np.float16]:
            return np.stack([placement.onto(p, outside).astype(np.float16) for p in volume])

        if kind == "ct":
            raw, air = levelled_hu(thinned(subject, Sparsity("none")), recipe), float(AIR_HU)
        else:
            given = unit(subject.source, subject.mask, kind, recipe)
            if kind == "ct-window":
                given = levelled_window(given, recipe)
            raw, air = given * 2 - 1, -1.0
        return cls(
            raw=onto(raw, air),
            target=onto(truth_unit(subject.target, subject.mask) * 2 - 1, -1.0),
            mask=onto(subject.mask.astype(np.float32), 0.0) > 0.5,
            positions_mm=subject.positions_mm,
        )


@dataclass(frozen=True)
class PreparedSource:
    """The training subjects of a prepared data set, in memory."""

    kind: SourceKind
    volumetric: bool
    recipe: Recipe
    subjects: tuple[GridSubject, ...]

    @classmethod
    def open(cls, folder: Path, recipe: Recipe) -> "PreparedSource":
        """Place every subject of the role "train".

        Raises
        ------
        TrainingError
            There is none.
        """
        data = PreparedData.open(folder)
        names = data.split["train"]
        if not names:
            raise TrainingError(
                f"{folder} has no subject with the role train: prepare more subjects"
            )
        placed = tuple(GridSubject.of(data.subject(n), data.source_kind, recipe) for n in names)
        return cls(data.source_kind, data.volumetric, recipe, placed)

    def draw(self, rng: SampleRng) -> Batch:
        """Draw a slice that shows the head, its protocol, and the augmentation."""
        subject = self.subjects[rng.integer(len(self.subjects))]
        shown = np.flatnonzero(subject.mask.any((1, 2)))
        target = int(shown[rng.integer(len(shown))])
        slabs = self._slabs(target, subject, rng)
        grid = _affine(self.recipe.grid.shape, rng)
        raw = torch.stack([_mean(subject.raw, slab) for slab in slabs])
        # beyond the frame there is what lies in its corner: air
        air = raw[:, :1, :1].clone()
        raw = place(raw - air, grid) + air
        raw = raw * rng.between(1 - _GAIN, 1 + _GAIN) + _BRIGHTNESS[self.kind] * rng.between(-1, 1)
        truth = torch.from_numpy(
            np.stack([subject.target[target] + np.float16(1), subject.mask[target]])
        ).float()
        truth = place(truth, grid)
        x0, head = truth[0] - 1, (truth[1] > 0.5).float()
        positions = subject.positions_mm
        given = self._conditioning(raw, slabs, positions, float(positions[target]))
        return Batch(
            conditioning=torch.from_numpy(given.channels)[None],
            distances_mm=torch.tensor([given.distances_mm]),
            x0=x0.clamp(-1, 1)[None, None],
            weight=(_OUTSIDE_HEAD + head)[None, None],
            head=head[None, None],
        )

    def _slabs(self, target: int, subject: GridSubject, rng: SampleRng) -> tuple[range, ...]:
        """Draw which slabs are measured near the target; itself alone where none surround it."""
        alone = (range(target, target + 1),)
        protocol, without = SlabProtocol.drawn(rng), rng.chance(_ALONE)
        slabs = protocol.around(target, len(subject.raw))
        centres = [_centre(subject.positions_mm, slab) for slab in slabs]
        z = subject.positions_mm[target]
        surrounded = bool(centres) and centres[0] <= z <= centres[-1]
        if not self.volumetric or not surrounded or (without and z in centres):
            return alone
        return slabs

    def _conditioning(
        self, raw: Tensor, slabs: Sequence[range], positions: np.ndarray, target_mm: float
    ) -> Conditioning:
        slices = [
            self._slice(plane.numpy(), _centre(positions, slab))
            for plane, slab in zip(raw, slabs, strict=True)
        ]
        return conditioning_at(slices, target_mm)

    def _slice(self, raw: Image, position_mm: float) -> SourceSlice:
        if self.kind == "ct":
            return windowed(raw, position_mm, self.recipe)
        brain = np.clip(raw, -1, 1)
        return SourceSlice(brain, np.full_like(brain, -1), position_mm)


def _centre(positions_mm: np.ndarray, slab: range) -> float:
    return float(positions_mm[slab.start : slab.stop].mean())


def _mean(raw: np.ndarray, slab: range) -> Tensor:
    return torch.from_numpy(raw[slab.start : slab.stop].astype(np.float32).mean(0))


def _affine(frame: tuple[int, int], rng: SampleRng) -> Tensor:
    """Draw a small turn, stretch, shift and, one time in two, a flip of left and right."""
    rows, columns = frame
    angle = torch.deg2rad(torch.tensor(rng.between(-_TURN_DEGREES, _TURN_DEGREES)))
    y = (torch.arange(rows)[:, None] - (rows - 1) / 2) * rng.between(1 - _STRETCH, 1 + _STRETCH)
    x = torch.arange(columns)[None, :] - (columns - 1) / 2
    x = x * rng.between(1 - _STRETCH, 1 + _STRETCH) * (-1 if rng.chance(0.5) else 1)
    turned_x = angle.cos() * x - angle.sin() * y + rng.between(-_SHIFT_PIXELS, _SHIFT_PIXELS)
    turned_y = angle.sin() * x + angle.cos() * y + rng.between(-_SHIFT_PIXELS, _SHIFT_PIXELS)
    return torch.stack([2 * turned_x / (columns - 1), 2 * turned_y / (rows - 1)], -1)[None]
