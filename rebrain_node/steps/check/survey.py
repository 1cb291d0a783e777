"""A coarse survey of a series, shared by all checks: masks, depth, the skull along rays.

Pixels are averaged to about 2 mm, so that the checks of 33 slices of 512 x 512 cost a second and
noise hardly matters. Depth is counted downwards from the top of the head as scanned. From the
middle of the head, rays run outwards in each slice: where they first meet bone is the inner table,
where they last meet it the outer. Nothing here is a limit; the numbers describe the survey.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from scipy import ndimage

from rebrain_node.domain.volume import FloatArray, MaskArray, MillimetreArray, SourceVolume

_PIXEL_MM = 1.9
_AIR_HU = -1000.0
_HEAD_HU = -250.0
_BONE_HU = 250.0
#: depth below the top of the head at which the vault is a ring and the brain fills it
_VAULT_MM = (12.0, 60.0)
#: depth down to which the outermost bone is the vault, above orbits, sinuses and ears
_CAVITY_MM = (12.0, 70.0)
#: partial volume of the skull reaches so far into the brain
_MARGIN_MM = 6.0
_RAYS = 120
_RAY_STEP_MM = 1.0
_RAY_LENGTH_MM = 140.0
#: of an adult's cranial cavity: largest section, height above it, and what covers it
_CAVITY_CM2, _CAVITY_HEIGHT_MM, _SCALP_MM = 150.0, 72.0, 12.0
#: smallest section that counts as head: above it there is only hair, pillow or nothing
_SECTION_CM2 = 12.0

#: cached values of a survey that do not change with the depth of the slices
_OF_EVERY_DEPTH = frozenset(
    {
        "hu", "head", "directions", "positions_mm", "distances_mm", "heights_mm", "sections_cm2",
        "occupied", "centres", "rays", "_bone", "outer_mm", "inner_mm", "_inner_cm2",
    }
)  # fmt: skip

IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Survey:
    """One assembled series with the head at about 2 mm, each part computed when first asked for.

    Arrays are (slice, row, column) as in the source volume.
    """

    volume: SourceVolume
    instances: Sequence[Dataset] = ()  #: as received, of one series
    missing_mm: float = 0.0  #: estimated height of head above the uppermost slice

    def below_the_cut(self) -> Survey:
        """Return the survey with depth counted from where the top of a cut head must be.

        From the area inside the skull in the uppermost slice, as if the cavity were half an
        ellipsoid. What was computed and does not depend on depth is kept.
        """
        largest = max(float(np.nanmax(self._inner_cm2, initial=0.0)), _CAVITY_CM2)
        height = 1.0 - np.sqrt(max(0.0, 1.0 - self.top_cm2 / largest))
        lower = Survey(self.volume, self.instances, float(_CAVITY_HEIGHT_MM * height + _SCALP_MM))
        kept = {name: value for name, value in vars(self).items() if name in _OF_EVERY_DEPTH}
        vars(lower).update(kept)
        return lower

    @cached_property
    def hu(self) -> FloatArray:
        """(n, rows, columns), averaged over blocks of pixels."""
        return _block_mean(self.volume.hu, *self._block)

    @cached_property
    def head(self) -> MaskArray:
        """(n, rows, columns), filled."""
        return _head(self.hu)

    @property
    def _block(self) -> tuple[int, int]:
        """Source pixels averaged into one: rows, columns."""
        rows, columns = (max(1, round(_PIXEL_MM / side)) for side in self.volume.pixel_spacing_mm)
        return rows, columns

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Between rows, between columns."""
        (rows, columns), (height, width) = self._block, self.volume.pixel_spacing_mm
        return height * rows, width * columns

    @cached_property
    def directions(self) -> MillimetreArray:
        """(2, 3) LPS of rising rows and of rising columns."""
        return np.stack([self.volume.column_direction, self.volume.row_direction])

    @cached_property
    def positions_mm(self) -> MillimetreArray:
        """(n, 2) in-plane position of pixel (0, 0): along rows, columns."""
        return np.asarray(self.volume.positions_mm @ self.directions.T)

    @cached_property
    def distances_mm(self) -> MillimetreArray:
        """(n,) along the normal, from the first slice."""
        return np.asarray(self.volume.distances_mm - self.volume.distances_mm[0])

    @cached_property
    def heights_mm(self) -> MillimetreArray:
        """(n,) what each slice stands for along the normal."""
        if len(self.distances_mm) < 2:
            return np.ones(1)
        return np.abs(np.gradient(self.distances_mm))

    @property
    def head_first(self) -> bool:
        """Whether the last slice is the uppermost."""
        return bool(self.volume.normal[2] >= 0.0)

    @property
    def pixel_area_mm2(self) -> float:
        """Area of one pixel."""
        return self.pixel_mm[0] * self.pixel_mm[1]

    @cached_property
    def sections_cm2(self) -> MillimetreArray:
        """Area of the head in each slice, (n,)."""
        return np.asarray(self.head.sum(axis=(1, 2)) * self.pixel_area_mm2 / 100.0)

    @cached_property
    def occupied(self) -> IndexArray:
        """Slices with head, in the order of the volume; above it is only hair, pillow or air."""
        return np.flatnonzero(self.sections_cm2 >= _SECTION_CM2)

    @cached_property
    def depths_mm(self) -> MillimetreArray:
        """Depth of each slice below the uppermost slice with head, (n,); negative above it."""
        if len(self.occupied) == 0:
            return np.full(len(self.hu), -np.inf)
        top, sign = (self.occupied[-1], -1.0) if self.head_first else (self.occupied[0], 1.0)
        return np.asarray(sign * (self.distances_mm - self.distances_mm[top]) + self.missing_mm)

    @cached_property
    def vault(self) -> IndexArray:
        """Slices through the vault, from the top downwards."""
        return self._between(*_VAULT_MM)

    @cached_property
    def cavity(self) -> IndexArray:
        """Slices through the cranial cavity, from the top downwards."""
        return self._between(*_CAVITY_MM)

    def _between(self, least: float, greatest: float) -> IndexArray:
        inside = (self.depths_mm >= least) & (self.depths_mm <= greatest)
        found = self.occupied[inside[self.occupied]]
        return found[np.argsort(self.depths_mm[found], kind="stable")]

    @cached_property
    def centres(self) -> MillimetreArray:
        """Middle of the head in each slice, (n, 2) rows and columns; 0 where there is none."""
        return np.array(
            [np.mean(np.nonzero(m), axis=1) if m.any() else (0.0, 0.0) for m in self.head]
        )

    @cached_property
    def rays(self) -> FloatArray:
        """HU along the rays of each slice, (n, rays, steps), 1 mm apart, from the middle."""
        return self._along_rays(self.hu)

    def _along_rays(self, hu: FloatArray) -> FloatArray:
        angles = np.arange(_RAYS) * 2 * np.pi / _RAYS
        radius = np.arange(0.0, _RAY_LENGTH_MM, _RAY_STEP_MM)
        rows = np.sin(angles)[:, None] * radius / self.pixel_mm[0]
        columns = np.cos(angles)[:, None] * radius / self.pixel_mm[1]
        found = [
            ndimage.map_coordinates(plane, [row + rows, column + columns], order=1, cval=_AIR_HU)
            for plane, (row, column) in zip(hu, self.centres, strict=True)
        ]
        return np.array(found, dtype=np.float32)

    @cached_property
    def _bone(self) -> MaskArray:
        """Bone along the rays, pores of up to 6 mm closed, (n, rays, steps)."""
        inside = np.where(self.head, self.hu, np.float32(_AIR_HU))  # a head holder is no skull
        bone = self._along_rays(inside) > _BONE_HU
        return np.asarray(ndimage.binary_closing(bone, np.ones((1, 1, 7), bool)))

    @cached_property
    def outer_mm(self) -> MillimetreArray:
        """Distance of the outer table along each ray, (n, rays); nan where no bone is met."""
        last = self._bone.shape[2] - 1 - np.argmax(self._bone[:, :, ::-1], axis=2)
        return np.where(self._bone.any(axis=2), last * _RAY_STEP_MM, np.nan)

    @cached_property
    def inner_mm(self) -> MillimetreArray:
        """Distance of the inner table along each ray, (n, rays); nan where no bone is met.

        It is the inner side of the outermost bone: a calcified falx does not count.
        """
        steps = np.arange(self._bone.shape[2]) * _RAY_STEP_MM
        hollow = ~self._bone & (steps < np.nan_to_num(self.outer_mm)[:, :, None])
        behind = (hollow.shape[2] - np.argmax(hollow[:, :, ::-1], axis=2)) * _RAY_STEP_MM
        inner = np.where(hollow.any(axis=2), behind, 0.0)
        return np.where(np.isfinite(self.outer_mm), inner, np.nan)

    @cached_property
    def _inner_cm2(self) -> MillimetreArray:
        """Area inside the inner table, (n,); 0 where most directions meet no bone."""
        rings = [_without_gaps(inner) for inner in self.inner_mm]
        wedge = np.sin(2 * np.pi / _RAYS) / 2.0 / 100.0
        return np.array([0.0 if r is None else wedge * float(r @ np.roll(r, 1)) for r in rings])

    @property
    def top_cm2(self) -> float:
        """Area inside the skull in the uppermost slice; 0 above the cavity of a whole head."""
        return float(self._inner_cm2[-1 if self.head_first else 0])

    @cached_property
    def cavity_mask(self) -> MaskArray:
        """Pixels inside the inner table, (n, rows, columns), in the slices of the cavity."""
        mask = np.zeros(self.hu.shape, dtype=bool)
        rows, columns = np.indices(self.hu.shape[1:])
        for k in self.cavity:
            inner = _without_gaps(self.inner_mm[k])
            if inner is None:
                continue
            down = (rows - self.centres[k, 0]) * self.pixel_mm[0]
            across = (columns - self.centres[k, 1]) * self.pixel_mm[1]
            place = np.arctan2(down, across) % (2 * np.pi) * _RAYS / (2 * np.pi)
            mask[k] = np.hypot(down, across) < inner[np.rint(place).astype(int) % _RAYS]
        return mask

    @cached_property
    def brain(self) -> MaskArray:
        """Pixels of the cavity well away from the skull, (n, rows, columns)."""
        skull = ndimage.binary_dilation(self.hu > _BONE_HU + 100.0, np.ones((3, 1, 1), bool))
        distance = [
            ndimage.distance_transform_edt(~plane, sampling=self.pixel_mm) for plane in skull
        ]
        return np.asarray(self.cavity_mask & (np.array(distance) > _MARGIN_MM))


def _without_gaps(inner_mm: MillimetreArray) -> MillimetreArray | None:
    """Fill rays that meet no bone from their neighbours; ``None`` where most meet none."""
    known = np.flatnonzero(np.isfinite(inner_mm))
    if len(known) < _RAYS // 2:
        return None
    return np.interp(np.arange(_RAYS), known, inner_mm[known], period=_RAYS)


def _block_mean(volume: FloatArray, rows: int, columns: int) -> FloatArray:
    n, height, width = (
        volume.shape[0], volume.shape[1] // rows, volume.shape[2] // columns
    )  # fmt: skip
    cut = volume[:, : height * rows, : width * columns]
    blocks = cut.reshape(n, height, rows, width, columns)
    return np.asarray(blocks.mean(axis=(2, 4), dtype=np.float32))


def _head(hu: FloatArray) -> MaskArray:
    """Largest connected body, without table and head holder, holes filled in each slice."""
    tissue = ndimage.binary_opening(hu > _HEAD_HU, np.ones((1, 3, 3), bool), iterations=2)
    labels, count = ndimage.label(tissue)
    if count == 0:
        return np.zeros(hu.shape, dtype=bool)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return np.array([ndimage.binary_fill_holes(plane) for plane in largest])
