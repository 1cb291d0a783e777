"""What the scanner does to Hounsfield units, and what disease does to the head.

Slices are (slabs, rows, columns) in HU: the slabs below, at and above a position share the head,
the calibration and the kernel; each has its own noise.
"""

import torch
from torch import Tensor
from torch.nn import functional

from trainer.sample_rng import SampleRng


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


def scan(hu: Tensor, rng: SampleRng) -> Tensor:
    """Apply kernel blur, calibration, low-frequency field, cupping and noise.

    Gain is about 35 HU (brain) and only within 300 HU of it: bone and air keep their level.
    """
    frame = (hu.shape[1], hu.shape[2])
    sigma = rng.between(0.0, 0.8)
    hu = blur(hu, sigma, sigma)
    low = functional.interpolate(rng.normal(1, 1, 4, 4), size=frame, mode="bicubic")[0]
    radius = torch.linspace(-1, 1, frame[0])[:, None] ** 2 + torch.linspace(-1, 1, frame[1]) ** 2
    shift = low * rng.between(0, 1.8) + radius * rng.between(-1, 6) + rng.between(-5, 13)
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


def _lesion(hu: Tensor, t1: Tensor, brain: Tensor, rng: SampleRng) -> tuple[Tensor, Tensor]:
    """Add one lesion: cyst, oedema, haemorrhage or calcification.

    The T1 of a haemorrhage depends on its age, which CT does not tell: it is painted grey-like.
    """
    candidates = torch.nonzero(brain > 0.6)
    if len(candidates) < 400:
        return hu, t1
    row, column = candidates[rng.integer(len(candidates))].tolist()
    kind = rng.between(0, 1)
    radius = rng.between(4, 26) if kind < 0.8 else rng.between(1, 4)
    lump = _lump(brain, (row, column), radius, rng)
    if kind < 0.30:
        return hu + lump * (rng.between(3, 16) - hu), t1 + lump * (rng.between(0.11, 0.2) - t1)
    if kind < 0.65:
        return hu - lump * rng.between(4, 13), t1 * (1 - lump * rng.between(0.08, 0.35))
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
