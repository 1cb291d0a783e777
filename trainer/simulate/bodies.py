"""What is no human head and tapers like one, simulated: for measuring the out-of-domain score.

Unlike the cylinders of `outside`, whose section is one from end to end, these change from
slice to slice, so that no rule about the taper alone can find them. Volumes are (slice, row,
column), slices towards the head. Every range is drawn anew.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi

from rebrain_node.domain.volume import SourceVolume
from trainer.simulate.template import Volume

Change = Callable[[SourceVolume, Generator], SourceVolume]
_CLIP_HU = (-1024.0, 3071.0)


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


def _scanned(scan: SourceVolume, hu: NDArray[np.floating], rng: Generator) -> SourceVolume:
    """Blur as a kernel does and add the noise of a good scan."""
    noise = rng.normal(0, rng.uniform(1.5, 8.5), scan.hu.shape)
    seen = ndi.gaussian_filter(np.broadcast_to(hu, scan.hu.shape), (0, 0.7, 0.7)) + noise
    return replace(scan, hu=np.clip(seen, *_CLIP_HU).astype(np.float32))


#: by the name under which the table lists them
BODIES: Mapping[str, Change] = {
    "torso": torso,
    "knees": knees,
    "animal": animal,
    "ball in a shell of bone": ball_in_a_shell,
    "feet first written as head first": feet_first,
}
