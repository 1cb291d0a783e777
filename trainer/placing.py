"""A prepared subject on the model grid, and back: one way for training and for evaluation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rebrain_node.domain.volume import AIR_HU
from rebrain_node.model.recipe import Grid, Image, Recipe
from rebrain_node.model.resample import line_weights
from rebrain_node.model.source import SourceSlice
from trainer.dataset import Mask, SourceKind, Subject, Volume

PERCENTILES = (0.5, 99.5)  # of MR in the head, mapped to -1 and 1
_FRAME_SHARE = 15 / 16  # of the grid, that a slice of unknown pixel size is stretched to


@dataclass(frozen=True)
class Line:
    """Rows or columns of a subject beside those of the grid.

    Attributes
    ----------
    inner, outer : int
        Number on the grid and of the subject.
    step : float
        Grid pixels in pixels of the subject.
    start : float
        Place of the first grid pixel, in pixels of the subject.
    """

    inner: int
    outer: int
    step: float
    start: float

    @classmethod
    def centred(cls, inside: NDArray[np.intp], outer: int, inner: int, step: float) -> "Line":
        """Put the middle of `inside` (pixels of the head) into the middle of the grid."""
        middle = (inside[0] + inside[-1]) / 2
        # on whole pixels: where the sizes agree nothing is interpolated
        return cls(inner, outer, step, float(np.round(middle - step * (inner - 1) / 2)))

    def to_grid(self) -> NDArray[np.float32]:
        """Return the weights (inner, outer)."""
        return line_weights(
            (self.inner, self.outer), start_mm=self.start, step_mm=self.step, spacing_mm=1.0
        )

    def to_subject(self) -> NDArray[np.float32]:
        """Return the weights (outer, inner)."""
        return line_weights(
            (self.outer, self.inner), start_mm=-self.start, step_mm=1.0, spacing_mm=self.step
        )


def _lines(subject: Subject, grid: Grid) -> tuple[Line, Line]:
    shape = subject.mask.shape[1:]
    if subject.pixel_mm is None:
        steps = [out / (_FRAME_SHARE * n) for out, n in zip(shape, grid.shape, strict=True)]
        inside = [np.array([0, out - 1]) for out in shape]
    else:
        steps = [grid.pixel_mm / size for size in subject.pixel_mm]
        inside = [np.flatnonzero(subject.mask.any(axis)) for axis in ((0, 2), (0, 1))]
    rows, columns = (Line.centred(inside[k], shape[k], grid.shape[k], steps[k]) for k in range(2))
    return rows, columns


def _moved(volume: Volume, down: Volume, across: Volume, outside: float) -> Volume:
    filled = volume.astype(np.float32) - np.float32(outside)
    return np.asarray(down @ filled @ across.T + np.float32(outside), dtype=np.float32)


def canonical(volume: Volume, mask: Mask) -> Volume:
    """Map MR linearly, its percentiles 0.5 and 99.5 in the head to -1 and 1; not clipped.

    Parameters
    ----------
    volume, mask : Volume, Mask
        (slice, row, column).
    """
    low, high = np.percentile(volume[mask], PERCENTILES)
    unit = (volume - np.float32(low)) / np.float32(max(high - low, 1e-6))
    return np.asarray(unit * 2 - 1, dtype=np.float32)


@dataclass(frozen=True)
class Placed:
    """One subject on the model grid.

    Attributes
    ----------
    raw : Volume
        (slice, rows, columns): HU, window levels 0 to 255, or MR with -1 and 1 at its percentiles.
    target : Volume
        (slice, rows, columns) in [-1, 1].
    mask : Mask
        (slice, rows, columns), the head.
    positions_mm : NDArray of float64
        (slice,), rising.
    lines : tuple
        How rows and columns of the grid lie among those of the subject.
    """

    raw: Volume
    target: Volume
    mask: Mask
    positions_mm: NDArray[np.float64]
    lines: tuple[Line, Line]

    @classmethod
    def of(cls, subject: Subject, kind: SourceKind, recipe: Recipe) -> "Placed":
        """Centre the head of a subject on the grid of a recipe."""
        rows, columns = _lines(subject, recipe.grid)
        down, across = rows.to_grid(), columns.to_grid()
        raw = canonical(subject.source, subject.mask) if kind == "mr" else subject.source
        target = np.clip(canonical(subject.target, subject.mask), -1, 1)
        return cls(
            raw=_moved(raw, down, across, _outside(kind)),
            target=_moved(target, down, across, -1.0),
            mask=_moved(subject.mask.astype(np.float32), down, across, 0.0) > 0.5,
            positions_mm=subject.positions_mm,
            lines=(rows, columns),
        )

    def back(self, volume: Volume, outside: float = -1.0) -> Volume:
        """Return a volume on the grid in the subject's own (slice, row, column)."""
        rows, columns = self.lines
        return _moved(volume, rows.to_subject(), columns.to_subject(), outside)


def _outside(kind: SourceKind) -> float:
    return {"ct": AIR_HU, "ct-window": 0.0, "mr": -1.0}[kind]


def source_slice(raw: Image, position_mm: float, kind: SourceKind, recipe: Recipe) -> SourceSlice:
    """Turn one measured slice of `Placed.raw` into what the network is conditioned on."""
    if kind == "ct":
        return SourceSlice(
            recipe.brain_window.apply(raw), recipe.wide_window.apply(raw), position_mm
        )
    unit = raw / np.float32(127.5) - 1 if kind == "ct-window" else raw
    brain = np.asarray(np.clip(unit, -1, 1), dtype=np.float32)
    return SourceSlice(brain, np.full_like(brain, -1), position_mm)
