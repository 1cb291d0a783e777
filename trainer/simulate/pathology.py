"""Disease painted into CT and T1 of one head together.

Every change of the T1 follows from that of the CT: tissue that falls to `share` of the way from its
own HU to that of CSF falls to `share` squared of the way in T1, so that a slight hypodensity stays
tissue and only what is CSF on CT is black. Volumes are (z, y, x) at 1 mm, T1 canonical, 0 to 1.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch.nn import functional

from trainer.simulate.template import Volume

CSF_T1 = 0.13
#: HU by which leukoaraiosis stays above CSF
LEAST_ABOVE_CSF = 5.0
_FAR_MM = 60.0

_LEUKOARAIOSIS, _INFARCTS, _CYST, _BLEEDING, _SHUNT = 0.45, 0.25, 0.06, 0.05, 0.04


def smooth_field(shape: tuple[int, ...], correlation: float, rng: Generator) -> Volume:
    """Draw a smooth random field in [-1, 1], (z, y, x); `correlation` in voxels."""
    coarse = rng.uniform(-1, 1, [max(2, int(n / correlation)) for n in shape]).astype(np.float32)
    field = functional.interpolate(
        torch.from_numpy(coarse)[None, None], size=shape, mode="trilinear", align_corners=True
    )
    return np.asarray(field[0, 0].numpy(), dtype=np.float32)


@dataclass(frozen=True)
class Levels:
    """HU of grey matter, white matter and CSF of one drawn head."""

    grey: float
    white: float
    csf: float

    @classmethod
    def drawn(cls, rng: Generator) -> Self:
        """Draw the levels of one head; CSF lies 22 to 29 HU below the middle of the tissue."""
        grey = rng.uniform(33.0, 41.0)
        white = grey - rng.uniform(5.5, 10.0)
        return cls(grey, white, (grey + white) / 2 - rng.uniform(22.0, 29.0))


@dataclass(frozen=True)
class TissueParts:
    """Where disease can lie in a head, each (z, y, x) float32.

    `white` and `tissue` are memberships (0 to 1) of white matter and of all brain but CSF;
    `ventricle_mm` and `rim_mm` the distances to the lateral ventricles and to what is not white.
    """

    white: Volume
    tissue: Volume
    ventricle_mm: Volume
    rim_mm: Volume


@dataclass
class Canvas:
    """One head while disease is painted into it."""

    hu: Volume
    t1: Volume
    sites: TissueParts
    levels: Levels
    rng: Generator

    def place(self) -> NDArray[np.int64] | None:
        """Draw a voxel of brain tissue."""
        thin = np.argwhere(self.sites.tissue[::4, ::4, ::4] > 0.5)
        return None if len(thin) == 0 else 4 * thin[self.rng.integers(len(thin))]

    def lump(
        self, centre: NDArray[np.int64], radius: float, edge: float
    ) -> tuple[tuple[slice, ...], Volume]:
        """Return a box and in it the membership of a ragged ellipsoid, 0 to 1."""
        reach = int(np.ceil(2.2 * radius)) + 3
        box = tuple(
            slice(max(0, int(c) - reach), min(n, int(c) + reach + 1))
            for c, n in zip(centre, self.hu.shape, strict=True)
        )
        stretch = self.rng.uniform(0.7, 1.4, 3)
        axes = [
            (np.arange(span.start, span.stop, dtype=np.float32) - c) / radius * s
            for span, c, s in zip(box, centre, stretch, strict=True)
        ]
        z, y, x = np.ix_(*axes)
        shape = tuple(span.stop - span.start for span in box)
        distance = np.sqrt(z * z + y * y + x * x)
        distance = distance + 0.4 * smooth_field(shape, max(3.0, radius / 1.5), self.rng)
        return box, 1 / (1 + np.exp(np.clip((distance - 1) / edge, -30, 30)))

    def toward_csf(self, box: tuple[slice, ...], share: Volume) -> None:
        """Move HU by `share` (0 to 1) of the way to CSF, T1 by its square."""
        hu, t1 = self.hu[box], self.t1[box]
        hu += share * np.minimum(self.levels.csf + 1 - hu, 0)
        t1 += share**2 * np.minimum(CSF_T1 + 0.01 - t1, 0)

    def toward(
        self, box: tuple[slice, ...], share: Volume, hu_level: float, t1_level: float
    ) -> None:
        """Move HU and T1 by `share` of the way to a level."""
        self.hu[box] += share * (hu_level - self.hu[box])
        self.t1[box] += share * (t1_level - self.t1[box])


def paint(
    hu: Volume, t1: Volume, sites: TissueParts, levels: Levels, rng: Generator
) -> tuple[Volume, Volume]:
    """Draw what one person has and paint it: new HU and T1.

    Leukoaraiosis in 45 %, infarcts in 25 %, cysts in 6 %, a haemorrhage with oedema in 5 %, a
    shunt in 4 %.
    """
    canvas = Canvas(hu.copy(), t1.copy(), sites, levels, rng)
    if rng.random() < _LEUKOARAIOSIS:
        leukoaraiosis(canvas, rng.uniform(5, 14))
    if rng.random() < _INFARCTS:
        for _ in range(1 + rng.poisson(0.8)):
            infarct(canvas)
    for share, lesion in ((_CYST, cyst), (_BLEEDING, haemorrhage), (_SHUNT, shunt)):
        if rng.random() < share:
            lesion(canvas)
    return canvas.hu, canvas.t1


def leukoaraiosis(canvas: Canvas, drop_hu: float) -> None:
    """Darken white matter round the ventricles and in deep patches; spare the rim below cortex.

    HU fall by up to `drop_hu`, never to less than `LEAST_ABOVE_CSF` above CSF; T1 by 5 to 25 %.
    """
    rng, sites, shape = canvas.rng, canvas.sites, canvas.hu.shape
    t1_drop = float(np.clip(0.018 * drop_hu + rng.normal(0, 0.03), 0.05, 0.25))
    reach, edge = rng.uniform(2, 16), rng.uniform(0.8, 3)
    ragged = 1 + rng.uniform(0.2, 0.8) * smooth_field(shape, 14, rng)
    near = 1 / (1 + np.exp(np.clip((sites.ventricle_mm - reach * ragged) / edge, -30, 30)))
    if reach > 5:
        patches = smooth_field(shape, 11, rng) - rng.uniform(0.1, 0.9)
        near = np.maximum(near, 1 / (1 + np.exp(np.clip(-8 * patches, -30, 30))))
    spared = np.clip(sites.rim_mm / rng.uniform(0.8, 2.5) - 0.4, 0, 1)
    much = sites.white * near * spared * (1 + 0.25 * smooth_field(shape, 18, rng))
    much = np.clip(much, 0, 1.25)
    room = np.maximum(canvas.hu - (canvas.levels.csf + LEAST_ABOVE_CSF), 0)
    canvas.hu -= np.minimum(drop_hu * much, room)
    canvas.t1 *= 1 - np.minimum(t1_drop * much, 0.25)


def infarct(canvas: Canvas) -> None:
    """Paint a lacune, a subacute or a chronic infarct, from swollen tissue to a cavity."""
    rng, centre = canvas.rng, canvas.place()
    if centre is None:
        return
    lacune = rng.random() < 0.4
    radius = rng.uniform(2, 7) if lacune else rng.uniform(8, 32)
    box, lump = canvas.lump(centre, radius, rng.uniform(0.06, 0.3))
    subacute = not lacune and rng.random() < 0.4
    severity = rng.uniform(0.15, 0.5) if subacute else rng.uniform(0.35, 1.0)
    within = 1 + 0.3 * smooth_field(lump.shape, 9, rng)
    share = np.clip(lump * severity * within, 0, 0.97) * canvas.sites.tissue[box]
    canvas.toward_csf(box, share.astype(np.float32))


def cyst(canvas: Canvas) -> None:
    """Paint a cyst of 5 to 28 mm radius: CSF on CT and on T1."""
    rng, centre = canvas.rng, canvas.place()
    if centre is None:
        return
    box, lump = canvas.lump(centre, rng.uniform(5, 28), rng.uniform(0.02, 0.08))
    share = (lump * np.maximum(canvas.sites.tissue[box], canvas.hu[box] < 25)).astype(np.float32)
    share *= canvas.hu[box] > -50
    canvas.toward(box, share, canvas.levels.csf + rng.normal(0, 1), CSF_T1 + rng.normal(0, 0.015))


def haemorrhage(canvas: Canvas) -> None:
    """Paint a haemorrhage with a rim of oedema.

    Its T1 depends on its age, which CT does not show: its level is near that of grey matter.
    """
    rng, centre = canvas.rng, canvas.place()
    if centre is None:
        return
    radius = rng.uniform(4, 24)
    box, rim = canvas.lump(centre, radius + rng.uniform(3, 9), 0.15)
    share = rng.uniform(0.15, 0.45) * rim * canvas.sites.tissue[box]
    canvas.toward_csf(box, share.astype(np.float32))
    box, lump = canvas.lump(centre, radius, 0.06)
    share = (lump * canvas.sites.tissue[box]).astype(np.float32)
    canvas.toward(box, share, rng.uniform(50, 78), rng.uniform(0.35, 0.55))


def shunt(canvas: Canvas) -> None:
    """Lead a catheter of 2 to 3 mm from outside the brain into a lateral ventricle."""
    rng, sites = canvas.rng, canvas.sites
    inside = np.argwhere(sites.ventricle_mm[::3, ::3, ::3] <= 0) * 3
    surface = np.argwhere(sites.tissue[::3, ::3, ::3] > 0.5) * 3
    if len(inside) == 0 or len(surface) == 0:
        return
    tip = inside[rng.integers(len(inside))].astype(float)
    upper = surface[surface[:, 0] > np.percentile(surface[:, 0], 70)]
    entry = upper[rng.integers(len(upper))].astype(float)
    start = tip + (entry - tip) * 1.6  # beyond the brain's surface
    steps = np.linspace(0, 1, 400)[:, None]
    line = np.rint(tip + steps * (start - tip)).astype(int)
    line = line[((line >= 1) & (line < np.array(canvas.hu.shape) - 2)).all(axis=1)]
    z, y, x = line.T
    density, t1 = rng.uniform(90, 400), rng.uniform(0.03, 0.1)
    for dz, dy, dx in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)):
        at = (z + dz, y + dy, x + dx)
        soft = (canvas.hu[at] > -50) & (canvas.hu[at] < density)
        canvas.hu[at] = np.where(soft, density, canvas.hu[at])
        canvas.t1[at] = np.where(soft, t1, canvas.t1[at])


def distance_capped(distance: Volume) -> Volume:
    """Cap distances at 60 mm, so that a head without ventricles has finite ones."""
    return np.nan_to_num(np.clip(distance, -_FAR_MM, _FAR_MM), nan=_FAR_MM).astype(np.float32)
