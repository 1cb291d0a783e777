"""Conditions of the phantom head for the checks: as volumes, without the detour over DICOM."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from rebrain_node.domain.volume import SourceVolume
from tests.support.phantoms import PhantomSpec, slice_hu

#: 100 x 100 pixels of 2.4 mm keep the phantom small; 6 mm apart from the neck to above the vertex
SMALL = PhantomSpec(rows=100, columns=100, pixel_spacing_mm=(2.4, 2.4), noise_hu=3.0)


@cache
def changed(**changes: object) -> SourceVolume:
    """Return the phantom with fields of its specification replaced; do not write into it."""
    spec = replace(SMALL, **changes)
    row, column, _ = spec.axes
    hu = np.stack([slice_hu(spec, k) for k in range(len(spec.slice_distances_mm))])
    return SourceVolume(
        hu=np.clip(hu, -1024, 3071).astype(np.float32),
        positions_mm=spec.positions_mm,
        row_direction=row,
        column_direction=column,
        pixel_spacing_mm=spec.pixel_spacing_mm,
        thickness_mm=spec.thicknesses_mm,
        sop_instance_uids=tuple(f"1.2.{k}" for k in range(len(hu))),
        frame_numbers=(None,) * len(hu),
        frame_of_reference_uid="1.2.0",
        padding=np.zeros(hu.shape, dtype=bool),
    )


def head() -> SourceVolume:
    """Return the sound phantom; do not write into it."""
    return changed()


def with_hu(hu: np.ndarray) -> SourceVolume:
    """Return the phantom with other values."""
    return replace(head(), hu=hu.astype(np.float32))


def plastic(inside_hu: float = 30.0) -> SourceVolume:
    """Return a skull filled with one plastic."""
    hu = head().hu
    soft = (hu > -40.0) & (hu < 250.0)
    return with_hu(np.where(soft, inside_hu, hu))


def contrast(density_hu: float = 250.0) -> SourceVolume:
    """Return the head with vessels of 5 mm that run upwards through the brain."""
    hu = head().hu.copy()
    rows, columns = np.indices(hu.shape[1:])
    for row, column in ((38, 40), (38, 60), (55, 42), (55, 58)):
        hu[:, np.hypot(rows - row, columns - column) * 2.4 < 2.6] = density_hu
    return with_hu(np.where(head().hu > -300.0, hu, head().hu))


def noisy(level_hu: float) -> SourceVolume:
    """Return the head with white noise added."""
    hu = head().hu
    return with_hu(hu + np.random.default_rng(1).normal(0.0, level_hu, hu.shape))


def moved_between_slices(shift_mm: float) -> SourceVolume:
    """Return the head that moved once, half way up."""
    hu = head().hu.copy()
    half = len(hu) // 2
    hu[half:] = np.roll(hu[half:], round(shift_mm / 2.4), axis=2)
    return with_hu(hu)


def moved_during_slices(shift_mm: float) -> SourceVolume:
    """Return the head that moved during four slices."""
    hu = head().hu.copy()
    doubled = slice(len(hu) // 2, len(hu) // 2 + 4)
    hu[doubled] = 0.5 * hu[doubled] + 0.5 * np.roll(hu[doubled], round(shift_mm / 2.4), axis=2)
    return with_hu(hu)
