"""What may be wrong with a scanned head, and what is no head: for measuring the checks of the node.

A condition of the head (child, craniectomy, contrast, metal) changes the volume of Hounsfield
units before it is scanned; a condition of the scan (noise, motion) changes the slices. `OUTSIDE`
must be found by a rule (hazard H13): a head written with wrong positions, with a wrong HU scale or
filled with plastic; or another body in its place, the same in every slice. `BODIES` change from
slice to slice as a head does, so that no rule about the taper alone can find them. Volumes are
(z, y, x) at 1 mm along LPS, slices (slice, row, column) towards the head. Ranges are sampled anew.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi

from rebrain_node.domain.volume import SourceVolume
from trainer.simulate.hounsfield import AIR_HU, Anatomy
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


def child(hu: Volume, _: Anatomy, rng: Generator) -> Volume:
    """Shrink the head to that of a child from birth to about one and a half years."""
    scale = rng.uniform(0.62, 0.82)
    return np.asarray(ndi.zoom(hu, scale, order=1, mode="nearest"), dtype=np.float32)


def craniectomy(hu: Volume, head: Anatomy, rng: Generator) -> Volume:
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


def contrast(hu: Volume, head: Anatomy, rng: Generator) -> Volume:
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


def metal(hu: Volume, head: Anatomy, rng: Generator) -> Volume:
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
OF_THE_HEAD: Mapping[str, Callable[[Volume, Anatomy, Generator], Volume]] = {
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


Change = Callable[[SourceVolume, Generator], SourceVolume]
_CLIP_HU = (-1024.0, 3071.0)


@dataclass(frozen=True)
class NonHeadCondition:
    """One class: what is done to a scanned head, and the codes of which one must be found."""

    change: Change
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
    return _scanned(scan, hu, rng)


def rods_in_a_ring(scan: SourceVolume, rng: Generator) -> SourceVolume:
    """Scan a phantom for quality assurance: a ring of bone, plastic in it, rods of many kinds."""
    radius = _radius_mm(scan, rng.uniform(0.75, 0.95))
    outer = rng.uniform(75, 95)
    hu = np.where(radius < outer, rng.uniform(700, 1100), -1000.0)
    hu = np.where(radius < outer - rng.uniform(5, 8), rng.uniform(25, 60), hu)
    _, rows, columns = _places_mm(scan)
    for angle in np.arange(0, 2 * np.pi, 2 * np.pi / rng.integers(4, 9)):
        middle = rng.uniform(30, 50) * np.array([np.sin(angle), np.cos(angle)])
        rod = np.hypot(rows - middle[0], columns - middle[1]) < rng.uniform(4, 10)
        hu = np.where(rod, rng.choice([-900.0, -100.0, 0.0, 120.0, 350.0, 900.0]), hu)
    return _scanned(scan, hu, rng)


def trunk(scan: SourceVolume, rng: Generator) -> SourceVolume:
    """Scan a trunk: fat, muscle, a spine, ribs and one organ beside another."""
    _, rows, columns = _places_mm(scan)
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
    return _scanned(scan, np.where(spine, rng.uniform(250, 500), hu), rng)


def torso(scan: SourceVolume, rng: Generator) -> SourceVolume:
    """Scan from the shoulders to the belly: lungs, heart, liver, spine and ribs that change."""
    z, y, x = _places_mm(scan)
    height = _height(z)
    half = rng.uniform(95, 112) * (1 - rng.uniform(0.2, 0.5) * height**2)
    flat = rng.uniform(0.6, 0.75)
    radius = np.hypot(y / flat, x) / half
    hu = np.where(radius < 1, rng.uniform(-110, -85), -1000.0)
    hu = np.where(radius < 0.88, rng.uniform(45, 60), hu)
    for side in (-1, 1):
        lung = np.hypot((x - side * 0.42 * half) / 0.3, y / 0.45) / half
        hu = np.where((lung < 1 - 0.5 * np.abs(height - 0.6)) & (height > 0.3), -850.0, hu)
    organ = np.hypot(x - 0.3 * half, y) < 45 * np.clip(1.2 - 2 * height, 0, 1)
    hu = np.where(organ, rng.uniform(55, 70), hu)
    heart = np.hypot(np.hypot(x + 12, y + 10), 60 * (height - 0.5)) < rng.uniform(25, 38)
    hu = np.where(heart, rng.uniform(35, 50), hu)
    angle = np.arctan2(y, x)
    rib = (np.abs(radius - 0.84) < 0.04) & (np.sin(9 * angle + z / 6) > 0.1)
    hu = np.where(rib, rng.uniform(350, 800), hu)
    hu = np.where(np.hypot(y - 0.5 * half * flat, x) < 20, rng.uniform(200, 400), hu)
    return _scanned(scan, hu, rng)


def knees(scan: SourceVolume, rng: Generator) -> SourceVolume:
    """Scan two legs from thigh to calf: muscle, fat, and a bone that widens at the joint."""
    z, y, x = _places_mm(scan)
    height = _height(z)
    hu = np.full(np.broadcast_shapes(z.shape, y.shape, x.shape), -1000.0)
    apart = rng.uniform(48, 62)
    thick = rng.uniform(40, 52) * (0.75 + 0.35 * height)
    joint = np.exp(-(((height - rng.uniform(0.4, 0.6)) / 0.18) ** 2))
    for side in (-1, 1):
        radius = np.hypot(x - side * apart, y)
        hu = np.where(radius < thick, rng.uniform(-110, -85), hu)
        hu = np.where(radius < thick - rng.uniform(4, 9), rng.uniform(45, 60), hu)
        bone = 12 + 22 * joint
        hu = np.where(radius < bone, rng.uniform(900, 1500), hu)
        hu = np.where(radius < bone - 5, rng.uniform(-60, 60) + 200 * joint, hu)
    return _scanned(scan, hu, rng)


def animal(scan: SourceVolume, rng: Generator) -> SourceVolume:
    """Stretch the head to that of an animal: narrow, low, with a long face."""
    narrow, long, low = rng.uniform(0.5, 0.68), rng.uniform(0.95, 1.15), rng.uniform(0.6, 0.75)
    middle = (np.array(scan.hu.shape[1:]) - 1) / 2
    matrix = np.diag([1 / long, 1 / narrow])
    offset = middle - matrix @ middle
    hu = np.array(
        [ndi.affine_transform(plane, matrix, offset, order=1, cval=-1000.0) for plane in scan.hu]
    )
    thickness = tuple(low * thick for thick in scan.thickness_mm)
    first = scan.positions_mm[0]
    places = first + low * (scan.positions_mm - first)
    return replace(scan, hu=hu.astype(np.float32), positions_mm=places, thickness_mm=thickness)


def ball_in_a_shell(scan: SourceVolume, rng: Generator) -> SourceVolume:
    """Scan a ball of one soft material in a shell of bone: what plausibility takes for a head."""
    z, y, x = _places_mm(scan)
    span = float(z.max() - z.min()) / 2
    middle = float(z.max()) - rng.uniform(0.9, 1.0) * span
    size = np.array([rng.uniform(0.85, 0.95) * span, rng.uniform(85, 95), rng.uniform(68, 78)])
    radius = np.sqrt(((z - middle) / size[0]) ** 2 + (y / size[1]) ** 2 + (x / size[2]) ** 2)
    hu = np.where(radius < 1, rng.uniform(20, 50), -1000.0)
    hu = np.where((radius < 0.95) & (radius > 0.87), rng.uniform(700, 1200), hu)
    hu = np.where(radius < 0.87, rng.uniform(28, 40), hu)
    return _scanned(scan, hu, rng)


def feet_first(scan: SourceVolume, _: Generator) -> SourceVolume:
    """Turn the head upside down about the axis through its ears."""
    return replace(scan, hu=scan.hu[::-1, ::-1].copy())


def _with(scan: SourceVolume, hu: NDArray[np.floating]) -> SourceVolume:
    return replace(scan, hu=np.clip(hu, *_CLIP_HU).astype(np.float32))


def _places_mm(scan: SourceVolume) -> tuple[Volume, Volume, Volume]:
    """Places from the middle of the picture: (n, 1, 1), (1, rows, 1) and (1, 1, columns)."""
    heights = scan.distances_mm - scan.distances_mm.mean()
    rows, columns = (
        (np.arange(count) - (count - 1) / 2) * step
        for count, step in zip(scan.hu.shape[1:], scan.pixel_spacing_mm, strict=True)
    )
    z, y, x = heights[:, None, None], rows[None, :, None], columns[None, None, :]
    return z.astype(np.float32), y.astype(np.float32), x.astype(np.float32)


def _height(z: Volume) -> Volume:
    """Share of the way from the first to the last slice."""
    return np.asarray((z - z.min()) / (z.max() - z.min()), dtype=np.float32)


def _radius_mm(scan: SourceVolume, flatness: float) -> Volume:
    """Distance from the axis of an elliptic cylinder, (1, rows, columns)."""
    _, rows, columns = _places_mm(scan)
    return np.asarray(np.hypot(rows, columns / flatness), dtype=np.float32)


def _scanned(scan: SourceVolume, hu: NDArray[np.floating], rng: Generator) -> SourceVolume:
    """Blur a body, (slices or 1, rows, columns), as a kernel does; add the noise of a good scan."""
    noise = rng.normal(0, rng.uniform(1.5, 8.5), scan.hu.shape)
    return _with(scan, ndi.gaussian_filter(hu, (0, 0.7, 0.7)) + noise)


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
BODIES: Mapping[str, Change] = {
    "torso": torso,
    "knees": knees,
    "animal": animal,
    "ball in a shell of bone": ball_in_a_shell,
    "feet first written as head first": feet_first,
}
