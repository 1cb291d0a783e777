"""What is no sound head at all, simulated: for measuring the gates of the node (hazard H13).

A scanned head is put down wrongly (upside down, back to front), its scale is bent, its inside is
replaced by plastic; or another body is scanned in its place. Volumes are (slice, row, column).
Every range is drawn anew.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi

from rebrain_node.domain.volume import SourceVolume
from trainer.simulate.template import Volume

_CLIP_HU = (-1024.0, 3071.0)


@dataclass(frozen=True)
class NonHeadCondition:
    """One class: what is done to a scanned head, and the codes of which one must be found."""

    change: Callable[[SourceVolume, Generator], SourceVolume]
    codes: frozenset[str]


def upside_down(scan: SourceVolume, _: Generator) -> SourceVolume:
    """Write the positions in the wrong order, e.g. head first for feet first."""
    return replace(scan, hu=scan.hu[::-1].copy())


def back_to_front(scan: SourceVolume, _: Generator) -> SourceVolume:
    """Write supine for prone."""
    return replace(scan, hu=scan.hu[:, ::-1, ::-1].copy())


def shifted(scan: SourceVolume, rng: Generator) -> SourceVolume:
    """Shift the scale by 40 to 100 HU up or down."""
    offset = rng.uniform(40, 100) * rng.choice([-1, 1])
    return _with(scan, scan.hu + offset)


def stretched(scan: SourceVolume, rng: Generator) -> SourceVolume:
    """Stretch or squeeze the scale about air by 6 to 30 %."""
    slope = 1 + rng.uniform(0.06, 0.3) * rng.choice([-1, 1])
    return _with(scan, (scan.hu + 1000) * slope - 1000)


def plastic_filled(scan: SourceVolume, rng: Generator) -> SourceVolume:
    """Fill the skull with one plastic of 20 to 50 HU, with the noise of a good scan."""
    smooth = ndi.gaussian_filter(scan.hu, (0, 2, 2))
    soft = (smooth > -60) & (smooth < 200)
    plastic = rng.uniform(20, 50) + rng.normal(0, rng.uniform(1.5, 6), scan.hu.shape)
    return _with(scan, np.where(soft, plastic, scan.hu))


def water_cylinder(scan: SourceVolume, rng: Generator) -> SourceVolume:
    """Scan the scanner's own phantom: water in a cylinder of acrylic glass."""
    radius = _radius_mm(scan, rng.uniform(0.9, 1.1))
    outer = rng.uniform(75, 105)
    hu = np.where(radius < outer, rng.uniform(90, 160), -1000.0)
    hu = np.where(radius < outer - rng.uniform(4, 9), rng.uniform(-4, 4), hu)
    return _body(scan, hu, rng)


def rods_in_a_ring(scan: SourceVolume, rng: Generator) -> SourceVolume:
    """Scan a phantom for quality assurance: a ring of bone, plastic in it, rods of many kinds."""
    radius = _radius_mm(scan, rng.uniform(0.75, 0.95))
    outer = rng.uniform(75, 95)
    hu = np.where(radius < outer, rng.uniform(700, 1100), -1000.0)
    hu = np.where(radius < outer - rng.uniform(5, 8), rng.uniform(25, 60), hu)
    rows, columns = _places_mm(scan)
    for angle in np.arange(0, 2 * np.pi, 2 * np.pi / rng.integers(4, 9)):
        middle = rng.uniform(30, 50) * np.array([np.sin(angle), np.cos(angle)])
        rod = np.hypot(rows - middle[0], columns - middle[1]) < rng.uniform(4, 10)
        hu = np.where(rod, rng.choice([-900.0, -100.0, 0.0, 120.0, 350.0, 900.0]), hu)
    return _body(scan, hu, rng)


def trunk(scan: SourceVolume, rng: Generator) -> SourceVolume:
    """Scan a trunk: fat, muscle, a spine, ribs and one organ beside another."""
    rows, columns = _places_mm(scan)
    size = rng.uniform(0.85, 1.15)
    radius = np.hypot(rows / 0.68, columns) / size
    hu = np.where(radius < 112, rng.uniform(-110, -85), -1000.0)
    hu = np.where(radius < 98, rng.uniform(45, 60), hu)
    ribs = (np.abs(radius - 95) < 4) & (np.sin(7 * np.arctan2(rows, columns)) > 0)
    hu = np.where(ribs, rng.uniform(400, 800), hu)
    for _ in range(6):
        middle = rng.uniform(-50, 50, 2) * (0.6, 1.0)
        organ = np.hypot(rows - middle[0], columns - middle[1]) < rng.uniform(12, 30)
        hu = np.where(organ, rng.choice([-800.0, 5.0, 35.0, 55.0, 110.0]), hu)
    spine = np.hypot(rows - 48 * size, columns) < 20
    return _body(scan, np.where(spine, rng.uniform(250, 500), hu), rng)


def _with(scan: SourceVolume, hu: NDArray[np.floating]) -> SourceVolume:
    return replace(scan, hu=np.clip(hu, *_CLIP_HU).astype(np.float32))


def _places_mm(scan: SourceVolume) -> tuple[Volume, Volume]:
    """Distances of rows and columns from the middle of the picture, (1, rows, columns)."""
    sides = [
        (np.arange(count) - (count - 1) / 2) * step
        for count, step in zip(scan.hu.shape[1:], scan.pixel_spacing_mm, strict=True)
    ]
    rows, columns = np.meshgrid(*sides, indexing="ij")
    return rows[None].astype(np.float32), columns[None].astype(np.float32)


def _radius_mm(scan: SourceVolume, flatness: float) -> Volume:
    rows, columns = _places_mm(scan)
    return np.asarray(np.hypot(rows, columns / flatness), dtype=np.float32)


def _body(scan: SourceVolume, hu: NDArray[np.floating], rng: Generator) -> SourceVolume:
    """Repeat a section through all slices, with the noise of a good scan."""
    blurred = ndi.gaussian_filter(hu, (0, 0.7, 0.7))
    grain = rng.normal(0, rng.uniform(1.5, 8.5), scan.hu.shape)
    return _with(scan, np.broadcast_to(blurred, scan.hu.shape) + grain)


_NO_HEAD = frozenset({"NOT-HEAD", "HU"})

#: by the name under which the table lists them
OUTSIDE: Mapping[str, NonHeadCondition] = {
    "upside down": NonHeadCondition(upside_down, frozenset({"GEOM-ORIENTATION"})),
    "back to front": NonHeadCondition(back_to_front, frozenset({"GEOM-ORIENTATION"})),
    "scale shifted": NonHeadCondition(shifted, frozenset({"HU"})),
    "scale stretched": NonHeadCondition(stretched, frozenset({"HU"})),
    "plastic in a skull": NonHeadCondition(plastic_filled, _NO_HEAD),
    "water cylinder": NonHeadCondition(water_cylinder, _NO_HEAD),
    "rods in a ring of bone": NonHeadCondition(rods_in_a_ring, _NO_HEAD),
    "trunk": NonHeadCondition(trunk, _NO_HEAD),
}
