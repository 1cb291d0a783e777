"""What may be wrong with a scanned head, simulated: for measuring the gates of the node.

A condition of the head (child, craniectomy, contrast, metal) changes the volume of Hounsfield
units before it is scanned; a condition of the scan (noise, motion) changes the slices. Volumes
are (z, y, x) at 1 mm along LPS, slices (slice, row, column). Every range is drawn anew.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi

from trainer.simulate.hounsfield import AIR_HU, Tissues
from trainer.simulate.template import Volume

#: arteries, veins and sinuses in MNI mm: centre line, radius; x is mirrored where it is not 0
_VESSELS: tuple[tuple[tuple[tuple[float, float, float], ...], float], ...] = (
    (((14, 6, -24), (20, 4, -14), (38, 2, -12), (46, -14, 4), (50, -36, 18)), 1.9),  # MCA
    (((48, -10, 6), (54, -20, 26), (48, -30, 48)), 1.3),
    (((42, 10, 0), (44, 24, 20), (36, 34, 38)), 1.3),
    (((3, 10, -14), (2, 36, -2), (2, 40, 18), (2, 22, 34), (2, -20, 40)), 1.5),  # ACA
    (((4, -16, -22), (20, -30, -14), (18, -60, 0), (14, -84, 6)), 1.5),  # PCA
    (((3, -6, 14), (3, -28, 12), (0, -40, 6)), 1.3),  # internal cerebral veins
    (((0, -40, 6), (0, -58, 12), (0, -80, 2)), 2.6),  # straight sinus
    (((0, 58, 20), (0, 40, 58), (0, -10, 80), (0, -60, 66), (0, -92, 10)), 4.0),  # sagittal sinus
    (((22, -26, 8), (24, -42, 10), (30, -30, -10)), 1.8),  # choroid plexus
    (((30, 20, 56), (16, 14, 66), (4, 8, 72)), 1.4),  # bridging veins
    (((38, -24, 60), (20, -28, 72), (4, -30, 78)), 1.4),
    (((24, -70, 44), (10, -68, 60)), 1.4),
    (((0, -12, -28), (0, -18, -46)), 2.0),  # basilar artery
)


def child(hu: Volume, _: Tissues, rng: Generator) -> Volume:
    """Shrink the head to that of a child from birth to about one and a half years."""
    scale = rng.uniform(0.62, 0.82)
    return np.asarray(ndi.zoom(hu, scale, order=1, mode="nearest"), dtype=np.float32)


def craniectomy(hu: Volume, head: Tissues, rng: Generator) -> Volume:
    """Take a round piece of 45 to 120 mm out of the vault; scalp closes the opening."""
    radius = rng.uniform(22, 60)
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(np.radians(15), np.radians(55))
    middle = np.array([0.0, -18.0, 8.0])
    direction = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    relative = [axis - m for axis, m in zip(head.mni, middle, strict=True)]
    along = relative[0] * direction[0] + relative[1] * direction[1] + relative[2] * direction[2]
    across = relative[0] ** 2 + relative[1] ** 2 + relative[2] ** 2 - along * along
    piece = (along > 0) & (across < radius**2) & (hu > 80) & (head.mni[2] > -15)
    return np.where(piece, np.float32(rng.uniform(15, 45)), hu).astype(np.float32)


def contrast(hu: Volume, head: Tissues, rng: Generator) -> Volume:
    """Fill the vessels with 130 to 400 HU and brighten the brain by 1 to 6 HU."""
    density = rng.uniform(130, 400)
    calibre = rng.uniform(0.9, 1.3)
    wanted = np.zeros(hu.shape, dtype=bool)
    for line, radius in _VESSELS:
        for side in (1.0, -1.0) if any(point[0] for point in line) else (1.0,):
            wanted |= _tube(head.mni, line, side, max(1.0, radius * calibre), rng)
    vessels = ndi.gaussian_filter(wanted.astype(np.float32), 0.5) * (hu < 200)
    hu = hu + rng.uniform(1, 6) * head.brain * (hu < 100)
    return np.asarray(hu * (1 - vessels) + vessels * density, dtype=np.float32)


def _tube(
    mni: tuple[Volume, Volume, Volume],
    line: tuple[tuple[float, float, float], ...],
    side: float,
    radius: float,
    rng: Generator,
) -> NDArray[np.bool_]:
    """Return the voxels within ``radius`` of a wavering line."""
    points = np.array(line) * [side, 1.0, 1.0] + rng.normal(0, 2.0, (len(line), 3))
    mask = np.zeros(mni[0].shape, dtype=bool)
    for start, end in pairwise(points):
        box = _box(mni, np.minimum(start, end) - radius, np.maximum(start, end) + radius)
        span = end - start
        relative = [axis[box] - s for axis, s in zip(mni, start, strict=True)]
        along = relative[0] * span[0] + relative[1] * span[1] + relative[2] * span[2]
        place = np.clip(along / float(span @ span), 0, 1)
        off = [r - place * s for r, s in zip(relative, span, strict=True)]
        mask[box] |= off[0] ** 2 + off[1] ** 2 + off[2] ** 2 <= radius**2
    return mask


def _box(
    mni: tuple[Volume, Volume, Volume], low: NDArray[np.float64], high: NDArray[np.float64]
) -> tuple[slice, ...]:
    """Return the smallest box of voxels that holds the MNI coordinates between two corners."""
    inside = np.ones(mni[0].shape, dtype=bool)
    for axis, least, greatest in zip(mni, low, high, strict=True):
        inside &= (axis >= least) & (axis <= greatest)
    return next(iter(ndi.find_objects(inside.astype(np.int8))), (slice(0),) * 3)


def metal(hu: Volume, head: Tissues, rng: Generator) -> Volume:
    """Put a clip, a coil or a plate of 2.5 to 8 mm into the head, with streaks around it."""
    inside = np.argwhere((head.brain > 0.5) & (head.mni[2] > -30))
    centre = inside[rng.integers(len(inside))]
    grids = np.indices(hu.shape, sparse=True)
    z, y, x = (grids[k] - centre[k] for k in range(3))
    distance = np.sqrt(z * z + y * y + x * x)
    angle = np.arctan2(y + 0.5, x + 0.5)
    streaks = np.sin(angle * rng.integers(3, 9) + rng.uniform(0, 6)) * rng.uniform(100, 500)
    streaks = streaks * np.exp(-distance / rng.uniform(15, 45)) * (np.abs(z) < 4)
    body = distance < rng.uniform(2.5, 8.0)
    disturbed = hu + streaks * (hu > -500)
    return np.where(body, np.float32(rng.uniform(4000, 12000)), disturbed).astype(np.float32)


def noise(slices: Volume, _: float, rng: Generator) -> Volume:
    """Add noise of 18 to 45 HU, as from too little dose or a sharp kernel."""
    return slices + _grain(slices.shape, rng.uniform(18, 45), rng.uniform(0.4, 0.9), rng)


def scanner_noise(slices: Volume, rng: Generator) -> Volume:
    """Add the noise of a good scan, 1.5 to 8.5 HU, and an offset of the scale."""
    grain = _grain(slices.shape, rng.uniform(1.5, 8.5), rng.uniform(0.4, 1.0), rng)
    offset = np.float32(rng.uniform(-4, 8)) * (slices > -500)
    return np.asarray(slices + grain + offset, dtype=np.float32)


def _grain(shape: tuple[int, ...], level: float, sigma: float, rng: Generator) -> Volume:
    grain = ndi.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0, sigma, sigma))
    return np.asarray(grain * np.float32(level / grain.std()))


def motion(slices: Volume, pixel_mm: float, rng: Generator) -> Volume:
    """Move the head by 6 to 15 mm: between slices, or during a quarter of them or more."""
    shift = rng.uniform(6, 15) / pixel_mm
    angle = rng.uniform(0, 2 * np.pi)
    offset = (shift * np.sin(angle), shift * np.cos(angle))
    first = int(rng.uniform(0.35, 0.8) * len(slices))
    moved: Volume = slices.copy()
    if rng.random() < 0.5:
        for k in range(first, len(slices)):
            moved[k] = ndi.shift(slices[k], offset, order=1, cval=AIR_HU)
        return moved
    count = max(4, len(slices) // 4)
    first = int(rng.uniform(0.45, 0.65) * len(slices))
    for k in range(first, min(len(slices), first + count)):
        ghost = ndi.shift(slices[k], offset, order=1, cval=AIR_HU)
        moved[k] = 0.5 * slices[k] + 0.5 * ghost
    return moved


#: conditions of the head, by the code that must be found
OF_THE_HEAD: Mapping[str, Callable[[Volume, Tissues, Generator], Volume]] = {
    "AGE": child,
    "CRANIECTOMY": craniectomy,
    "CONTRAST": contrast,
    "METAL": metal,
}
#: conditions of the scan, by the code that must be found
OF_THE_SCAN: Mapping[str, Callable[[Volume, float, Generator], Volume]] = {
    "NOISE": noise,
    "MOTION": motion,
}
