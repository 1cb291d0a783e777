"""Random placement of a pool sample on the model grid: scale, rotation, flip, bend."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from trainer.sample_rng import SampleRng

_SMALLEST_BOX = 90.0  # pixels; a vertex slice must not be blown up to a whole head


def head_box(head: Tensor) -> tuple[float, float, float, float]:
    """Return centre (y, x) and size (y, x) in pixels of the head; the frame where there is none."""
    rows = torch.nonzero((head > 0.5).sum(1) > 2).flatten()
    columns = torch.nonzero((head > 0.5).sum(0) > 2).flatten()
    if len(rows) < 6 or len(columns) < 6:
        height, width = head.shape
        return (height - 1) / 2, (width - 1) / 2, 0.8 * height, 0.8 * width
    (top, bottom), (left, right) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
    return (top + bottom) / 2, (left + right) / 2, bottom - top, right - left


def _scales(
    size: tuple[float, float], frame: tuple[int, int], rng: SampleRng
) -> tuple[float, float]:
    """Return pool pixels per grid pixel along y and x, the head box fitted to 80-100 % of it."""
    height, width = (max(side, _SMALLEST_BOX) for side in size)
    along_y = height / (frame[0] * rng.between(0.80, 1.0))
    return along_y, max(along_y * rng.between(0.72, 1.15), width / frame[1])


def placement(head: Tensor, frame: tuple[int, int], fit_share: float, rng: SampleRng) -> Tensor:
    """Draw the sampling grid that places one sample on `frame`.

    Parameters
    ----------
    head : Tensor
        (rows, columns) membership in the pool's pixels.
    frame : tuple of int
        Rows and columns of the model grid.
    fit_share : float
        Chance that the head is stretched to the frame, as data without a pixel size arrive.

    Returns
    -------
    Tensor
        (1, rows, columns, 2) for `grid_sample`.
    """
    height, width = head.shape
    if rng.chance(fit_share):
        centre_y, centre_x, *size = head_box(head)
        along_y, along_x = _scales((size[0], size[1]), frame, rng)
        reach = 5.0
    else:
        centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
        along_y = rng.between(0.88, 1.12)
        along_x = along_y * rng.between(0.94, 1.06)
        reach = 12.0
    bend = functional.interpolate(
        rng.normal(1, 2, 6, 6), size=frame, mode="bicubic", align_corners=True
    )[0] * rng.between(0, 3.5)
    y = (torch.arange(frame[0])[:, None] - (frame[0] - 1) / 2 + bend[0]) * along_y
    x = (torch.arange(frame[1])[None, :] - (frame[1] - 1) / 2 + bend[1]) * along_x
    if rng.chance(0.5):
        x = -x
    angle = math.radians(rng.between(-14, 14))
    turned_x = math.cos(angle) * x - math.sin(angle) * y + centre_x + rng.between(-reach, reach)
    turned_y = math.sin(angle) * x + math.cos(angle) * y + centre_y + rng.between(-reach, reach)
    return torch.stack([2 * turned_x / (width - 1) - 1, 2 * turned_y / (height - 1) - 1], -1)[None]


def place(planes: Tensor, grid: Tensor) -> Tensor:
    """Sample `planes` (channels, rows, columns) on a grid of `placement`; 0 outside."""
    return functional.grid_sample(planes[None], grid, align_corners=True)[0]
