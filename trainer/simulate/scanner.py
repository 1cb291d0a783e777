"""What a scanner does to Hounsfield units, what disease does to a head, and how a series is cut.

Slices are (slabs, rows, columns) in HU: the slabs below, at and above a position share the head,
the calibration and the kernel; each has its own noise. `cut` and `series_of` make the thick,
tilted slices of one whole series from a volume (z, y, x) at 1 mm along LPS.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage as ndi
from torch import Tensor
from torch.nn import functional

from rebrain_node.domain.volume import SourceVolume
from trainer.sample_rng import SampleRng
from trainer.simulate.hounsfield import AIR_HU
from trainer.simulate.template import Volume


def blur(images: Tensor, sigma_y: float, sigma_x: float) -> Tensor:
    """Blur (n, rows, columns) by a separable Gaussian; sigmas in pixels, below 0.15 none."""
    for axis, sigma in ((1, sigma_y), (2, sigma_x)):
        if sigma < 0.15:
            continue
        radius = max(1, int(3 * sigma + 0.5))
        kernel = torch.exp(-(torch.arange(-radius, radius + 1.0) ** 2) / (2 * sigma**2))
        kernel = kernel / kernel.sum()
        shape = (1, 1, -1, 1) if axis == 1 else (1, 1, 1, -1)
        margin = (0, 0, radius, radius) if axis == 1 else (radius, radius, 0, 0)
        padded = functional.pad(images[:, None], margin, mode="replicate")
        images = functional.conv2d(padded, kernel.view(shape))[:, 0]
    return images


def noise(count: int, frame: tuple[int, int], rng: SampleRng) -> Tensor:
    """Draw correlated noise of unit SD, (count, rows, columns); three in ten with streaks."""
    sigma = rng.between(0.4, 1.05)
    grain = blur(rng.normal(count, *frame), sigma, sigma * rng.between(0.85, 1.15))
    grain = grain / grain.std(dim=(1, 2), keepdim=True)
    if rng.chance(0.3):
        streaks = blur(rng.normal(count, *frame), rng.between(0.5, 1), rng.between(6, 20))
        grain = grain + 0.4 * rng.between(0, 1) * streaks / streaks.std()
    return grain


def scan(
    hu: Tensor, rng: SampleRng, level_sd_hu: float | None = None, brain: Tensor | None = None
) -> Tensor:
    """Apply kernel blur, calibration, low-frequency field, cupping and noise.

    Gain is about 35 HU (brain) and only within 300 HU of it: bone and air keep their level.

    Parameters
    ----------
    level_sd_hu : float, optional
        The series is levelled by its brain tissue: the calibration errs by a normal shift of this
        SD, cut at twice the SD, and cupping leaves the mean over the brain as it is.
    brain : Tensor, optional
        (rows, columns), 0 to 1; the whole frame by default.
    """
    frame = (hu.shape[1], hu.shape[2])
    sigma = rng.between(0.0, 0.8)
    hu = blur(hu, sigma, sigma)
    low = functional.interpolate(rng.normal(1, 1, 4, 4), size=frame, mode="bicubic")[0]
    radius = torch.linspace(-1, 1, frame[0])[:, None] ** 2 + torch.linspace(-1, 1, frame[1]) ** 2
    shift = low * rng.between(0, 1.8) + radius * rng.between(-1, 6)
    if level_sd_hu is None:
        shift = shift + rng.between(-5, 13)
    else:
        weight = torch.ones(frame) if brain is None else brain + 1e-3
        shift = shift - (shift * weight).sum() / weight.sum()
        shift = shift + float(rng.normal(1).clamp(-2, 2)) * level_sd_hu
    stretch = (hu - 35).clamp(-300, 300) * (rng.between(0.9, 1.15) - 1)
    return hu + stretch + shift + noise(len(hu), frame, rng) * rng.between(1.5, 9.5)


def _lump(brain: Tensor, centre: tuple[int, int], radius: float, rng: SampleRng) -> Tensor:
    """Return the soft, ragged membership of one lesion, (rows, columns)."""
    frame = (brain.shape[0], brain.shape[1])
    ragged = functional.interpolate(rng.normal(1, 1, 14, 14), size=frame, mode="bicubic")[0, 0]
    stretch = rng.between(0.6, 1.6)
    y = (torch.arange(frame[0])[:, None] - centre[0]) / radius / stretch
    x = (torch.arange(frame[1])[None, :] - centre[1]) / radius * stretch
    distance = torch.sqrt(y**2 + x**2) + 0.25 * ragged
    return torch.sigmoid((1 - distance) * rng.between(2, 10)) * brain


_OEDEMA_FLOOR_HU = 16.0  # what swells does not become fluid


def _lesion(hu: Tensor, t1: Tensor, brain: Tensor, rng: SampleRng) -> tuple[Tensor, Tensor]:
    """Add one lesion: cyst, oedema, haemorrhage or calcification.

    The T1 of a haemorrhage depends on its age, which CT does not show: its level is that of grey
    matter.
    """
    candidates = torch.nonzero(brain > 0.6)
    if len(candidates) < 400:
        return hu, t1
    row, column = candidates[rng.integer(len(candidates))].tolist()
    kind = rng.between(0, 1)
    radius = rng.between(4, 26) if kind < 0.8 else rng.between(1, 4)
    lump = _lump(brain, (row, column), radius, rng)
    if kind < 0.30:
        return hu + lump * (rng.between(3, 13) - hu), t1 + lump * (rng.between(0.11, 0.2) - t1)
    if kind < 0.65:
        drop = (lump * rng.between(4, 13)).minimum((hu - _OEDEMA_FLOOR_HU).clamp(min=0))
        return hu - drop, t1 * (1 - lump * rng.between(0.08, 0.3))
    if kind < 0.80:
        return hu + lump * (rng.between(50, 78) - hu), t1 + lump * (rng.between(0.35, 0.55) - t1)
    return hu + lump * rng.between(30, 260), t1 * (1 - lump * rng.between(0, 0.3))


def with_pathology(hu: Tensor, t1: Tensor, brain: Tensor, rng: SampleRng) -> tuple[Tensor, Tensor]:
    """Add a random number of lesions (Poisson, mean 0.45) to all slabs and to the T1.

    Parameters
    ----------
    hu : Tensor
        (slabs, rows, columns), HU.
    t1, brain : Tensor
        (rows, columns), 0 to 1.
    """
    for _ in range(rng.poisson(0.45)):
        hu, t1 = _lesion(hu, t1, brain, rng)
    return hu, t1


_DEEP_PX = 18  # ventricles lie this far inside the brain
_LEAST_VENTRICLE_PX = 30


def with_leukoaraiosis(
    hu: Tensor, t1: Tensor, brain: Tensor, rng: SampleRng
) -> tuple[Tensor, Tensor]:
    """Lower white matter around the ventricles to 14.5 to 23 HU in all slabs; T1 by .018 a HU.

    Nothing changes where the slice shows no ventricle. Arguments as of `with_pathology`.
    """
    inside = ndi.distance_transform_edt((brain > 0.5).numpy()) > _DEEP_PX
    ventricles = (t1 < 0.22).numpy() & inside
    if ventricles.sum() < _LEAST_VENTRICLE_PX:
        return hu, t1
    frame = (brain.shape[0], brain.shape[1])

    def ragged(cells: int) -> Tensor:
        drawn = rng.normal(1, 1, cells, cells).clamp(-2, 2)
        return functional.interpolate(drawn, size=frame, mode="bicubic")[0, 0]

    distance = torch.from_numpy(ndi.distance_transform_edt(~ventricles)).float()
    reach = rng.between(3, 15) + rng.between(1, 4) * ragged(24)
    white = ((t1 - 0.44) / 0.1).clamp(0, 1) * brain
    member = torch.sigmoid((reach - distance) / rng.between(0.4, 2.0)) * white
    level = rng.between(14.5, 23) + rng.between(0, 2) * ragged(14)
    drop = (hu - level).clamp(min=0)
    share = (0.018 * drop.mean(0) + rng.between(-0.05, 0.03)).clamp(0.05, 0.3)
    return hu - member * drop, t1 * (1 - member * share)


_SIDE = 256
_CLIP_HU = (-1024.0, 3071.0)


@dataclass(frozen=True)
class Pose:
    """How a series is cut: slice thickness, pixel size, tilt of the gantry (rising rows)."""

    thickness_mm: float
    pixel_mm: float
    tilt_rad: float

    @classmethod
    def drawn(cls, rng: Generator) -> Self:
        """Draw 3 to 7 mm, 0.85 to 0.98 mm and -20 to 24 degrees."""
        return cls(
            thickness_mm=float(rng.choice([3.0, 4.0, 5.0, 6.0, 7.0])),
            pixel_mm=float(rng.uniform(0.85, 0.98)),
            tilt_rad=float(np.radians(rng.uniform(-20.0, 24.0))),
        )


def cut(hu: Volume, pose: Pose) -> Volume:
    """Average slabs from 6 mm above the head down to 160 mm below its top, along the table."""
    body = hu > -500.0
    middle_y, middle_x = (
        float(np.flatnonzero(body.any(axis=axes)).mean()) for axes in ((0, 2), (0, 1))
    )
    levels = np.flatnonzero(body.any(axis=(1, 2)))
    top = levels[-1] + 6.0
    height = min(top - levels[0], 160.0)
    step = pose.thickness_mm / np.cos(pose.tilt_rad)  # the slices lie one thickness apart
    centres = top - step * (np.arange(int(height / step), 0, -1) - 0.5)
    places = np.asarray((np.arange(_SIDE) - (_SIDE - 1) / 2) * pose.pixel_mm, dtype=np.float64)
    planes = max(2, int(np.ceil(pose.thickness_mm / 1.25)))
    depths = ((np.arange(planes) + 0.5) / planes - 0.5) * pose.thickness_mm
    frame = (middle_y, middle_x, pose.tilt_rad)
    return np.stack(
        [np.mean([_plane(hu, c, d, places, frame) for d in depths], axis=0) for c in centres]
    ).astype(np.float32)


def _plane(
    hu: Volume,
    centre: float,
    depth: float,
    places: NDArray[np.float64],
    frame: tuple[float, float, float],
) -> Volume:
    """Sample one plane, ``depth`` above that through ``centre``, leaning by the tilt."""
    middle_y, middle_x, tilt = frame
    y = middle_y + places * np.cos(tilt) - depth * np.sin(tilt)
    z = centre + places * np.sin(tilt) + depth * np.cos(tilt)
    shape = (len(places), len(places))
    points = [
        np.broadcast_to(z[:, None], shape),
        np.broadcast_to(y[:, None], shape),
        np.broadcast_to(middle_x + places, shape),
    ]
    return np.asarray(ndi.map_coordinates(hu, points, order=1, cval=AIR_HU))


def series_of(slices: Volume, pose: Pose) -> SourceVolume:
    """Give slices, (n, rows, columns) in HU, the places they were cut at."""
    count = len(slices)
    table_mm = np.arange(count) * pose.thickness_mm / np.cos(pose.tilt_rad)
    return SourceVolume(
        hu=np.clip(slices, *_CLIP_HU).astype(np.float32),
        positions_mm=np.stack([np.zeros(count), np.zeros(count), table_mm], axis=1),
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, np.cos(pose.tilt_rad), np.sin(pose.tilt_rad)]),
        pixel_spacing_mm=(pose.pixel_mm, pose.pixel_mm),
        thickness_mm=(pose.thickness_mm,) * count,
        sop_instance_uids=tuple(f"1.2.{k}" for k in range(count)),
        frame_numbers=(None,) * count,
        frame_of_reference_uid="1.2.0",
        padding=np.zeros(slices.shape, dtype=bool),
    )
