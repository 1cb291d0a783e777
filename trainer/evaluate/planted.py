"""Disease planted into a whole head whose T1 is known: what the acceptance test looks for.

Not the disease of the training (`trainer.simulate`): shapes and levels are set here, so that a
network is not tested with what its training painted. Volumes are (z, y, x) at 1 mm along LPS.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.random import Generator
from scipy import ndimage as ndi

from trainer.data.dataset import Mask, Volume
from trainer.evaluate.scanned_heads import WholeHead
from trainer.simulate.pathology import smooth_field

#: HU of hypodense white matter by a scanner that reads right: CSF ends at 12, white begins at 25
HYPODENSE_HU: Final = (16.0, 22.0)
_SEED = 17
_HYPODENSE_T1 = 0.15  # T1 falls by this share in leukoaraiosis
_REACH_MM, _RAGGED_MM = 11.0, 4.0  # of leukoaraiosis from the ventricles
_APART_MM = 27.0  # between the middles of focal lesions
_DEEP_MM = 25.0  # under the surface of the head


@dataclass(frozen=True)
class RoundLesion:
    """A round lesion: radius in mm, HU, and T1 (the level, or the share that remains)."""

    radius_mm: float
    hu: float
    t1: float
    scales: bool = False  #: `t1` multiplies what was there


FOCI: Final = {
    "cyst": RoundLesion(9.0, 6.0, 0.13),
    "infarct": RoundLesion(11.0, 22.0, 0.72, scales=True),
    "haemorrhage": RoundLesion(9.0, 65.0, 0.45),
}
LEUKOARAIOSIS: Final = "leukoaraiosis"
KINDS: Final = (LEUKOARAIOSIS, *FOCI)


def planted(head: WholeHead) -> WholeHead:
    """Plant leukoaraiosis, a cyst, an infarct and a haemorrhage; the same each time.

    Parameters
    ----------
    head : WholeHead
        A head of an adult without disease.

    Raises
    ------
    ValueError
        The head has no white matter around ventricles.
    """
    rng = np.random.default_rng(_SEED)
    white, ventricles = _anatomy(head)
    if not ventricles.any() or not white.any():
        raise ValueError(f"{head.name}: no white matter around ventricles was found")
    box = _box(white)
    distance = np.full(white.shape, 255.0, np.float32)
    distance[box] = ndi.distance_transform_edt(~ventricles[box])
    members = {LEUKOARAIOSIS: _leukoaraiosis(white, distance, rng)}
    hu, t1 = head.hu, head.t1
    level = np.mean(HYPODENSE_HU) + np.ptp(HYPODENSE_HU) / 2 * smooth_field(hu.shape, 15, rng)
    member = members[LEUKOARAIOSIS]
    hu = hu + member * (level - hu)
    t1 = t1 * (1 - member * np.float32(_HYPODENSE_T1))
    centres = _centres(white & (distance > _REACH_MM + 2), rng)
    for (kind, focus), centre in zip(FOCI.items(), centres, strict=False):
        member = _ball(hu.shape, centre, focus.radius_mm) * (1 - members[LEUKOARAIOSIS])
        hu = hu + member * (focus.hu - hu)
        t1 = t1 + member * ((t1 * focus.t1 if focus.scales else focus.t1) - t1)
        members[kind] = member.astype(np.float32)
    return replace(
        head, hu=hu.astype(np.float32), t1=np.asarray(t1, dtype=np.float32), planted=members
    )


def _anatomy(head: WholeHead) -> tuple[Mask, Mask]:
    """Return white matter and ventricles above the tentorium, by T1 and depth in the head."""
    smooth = ndi.gaussian_filter(head.t1, 0.7)
    body = ndi.binary_fill_holes(head.hu > -500)
    depth = ndi.distance_transform_edt(np.pad(body, 1))[1:-1, 1:-1, 1:-1]
    top = int(np.flatnonzero(body.any(axis=(1, 2)))[-1])
    below = top - np.arange(len(body))[:, None, None]
    soft = (head.hu > 0) & (head.hu < 60)
    white = (smooth > 0.52) & soft & (depth > _DEEP_MM) & (below > 30) & (below < 85)
    dark = (smooth < 0.24) & (head.hu > -20) & (head.hu < 25)
    dark &= (depth > 45) & (below > 45) & (below < 95)
    labels, count = ndi.label(ndi.binary_opening(dark))
    sizes = np.asarray(ndi.sum_labels(dark, labels, range(1, count + 1)))
    return np.asarray(white), np.isin(labels, 1 + np.flatnonzero(sizes > 400))


def _leukoaraiosis(white: Mask, distance: Volume, rng: Generator) -> Volume:
    """Return the soft, ragged membership of white matter near the ventricles."""
    reach = _REACH_MM + _RAGGED_MM * smooth_field(white.shape, 9, rng)
    core = white & (distance > 1.5) & (distance < reach)
    return np.asarray(ndi.gaussian_filter(core.astype(np.float32), 0.6) * white)


def _centres(white: Mask, rng: Generator) -> list[tuple[int, int, int]]:
    """Choose places in the white matter that lie apart, one for each kind."""
    candidates = rng.permutation(np.argwhere(ndi.binary_erosion(white, iterations=2)))
    chosen: list[tuple[int, int, int]] = []
    for z, y, x in candidates.tolist():
        place = (int(z), int(y), int(x))
        if all(np.linalg.norm(np.subtract(place, other)) > _APART_MM for other in chosen):
            chosen.append(place)
        if len(chosen) == len(FOCI):
            break
    return chosen


def _ball(shape: tuple[int, ...], centre: tuple[int, int, int], radius: float) -> Volume:
    grids = np.indices(shape, sparse=True)
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grids, centre, strict=True)))
    return np.asarray(np.clip(radius + 0.5 - distance, 0, 1), dtype=np.float32)


def _box(mask: Mask) -> tuple[slice, ...]:
    """Return the box of a mask, widened so that ventricles beside it lie inside."""
    spans = []
    for axis, size in zip(np.nonzero(mask), mask.shape, strict=True):
        spans.append(slice(max(0, int(axis.min()) - 15), min(size, int(axis.max()) + 16)))
    return tuple(spans)
