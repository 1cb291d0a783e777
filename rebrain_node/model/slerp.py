"""Spherical linear interpolation (SLERP) of images and of embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rebrain_node.model.recipe import Image

Direction = NDArray[np.float32]  # (d,), an embedding: its length has no meaning

_PARALLEL = 1e-3  # rad; below this SLERP is a linear blend to within rounding


def slerp(below: Image, above: Image, alpha: float) -> Image:
    """Interpolate between two images on the sphere without a change of brightness.

    Directions are interpolated along the great circle and lengths linearly. Equation 15 of the
    paper as printed brightens by 1/cos(theta/2). In [-1, 1] the background would dominate the
    angle, so the images are mapped to [0, 1] with air = 0.

    Parameters
    ----------
    below, above : Image
        (rows, columns) in [-1, 1].
    alpha : float
        0 at `below`, 1 at `above`.

    Returns
    -------
    Image
        (rows, columns) in [-1, 1].
    """
    a = (below.astype(np.float64) + 1) / 2
    b = (above.astype(np.float64) + 1) / 2
    length_a, length_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    theta = 0.0
    if length_a > 0 and length_b > 0:
        theta = float(np.arccos(np.clip((a * b).sum() / (length_a * length_b), -1, 1)))
    if theta < _PARALLEL:
        blend = (1 - alpha) * a + alpha * b
    else:
        length = (1 - alpha) * length_a + alpha * length_b
        towards_a = np.sin((1 - alpha) * theta) / length_a
        towards_b = np.sin(alpha * theta) / length_b
        blend = length * (towards_a * a + towards_b * b) / np.sin(theta)
    return (np.clip(blend, 0, 1) * 2 - 1).astype(np.float32)


def slerp_directions(below: Direction, above: Direction, alpha: float) -> Direction | None:
    """Interpolate between two embeddings along the great circle.

    Parameters
    ----------
    below, above : ndarray
        (d,), of any length but 0.
    alpha : float
        0 at `below`, 1 at `above`.

    Returns
    -------
    ndarray or None
        (d,), of length 1; None where the length of either is 0 or not finite, or where the two
        are opposite, because the great circle between them is then not unique.
    """
    ends = [_unit(end) for end in (below, above)]
    if ends[0] is None or ends[1] is None:
        return None
    theta = float(np.arccos(np.clip(ends[0] @ ends[1], -1, 1)))
    if theta > np.pi - _PARALLEL:
        return None
    if theta < _PARALLEL:
        mixed = (1 - alpha) * ends[0] + alpha * ends[1]
    else:
        mixed = np.sin((1 - alpha) * theta) * ends[0] + np.sin(alpha * theta) * ends[1]
    return np.asarray(mixed / np.linalg.norm(mixed), dtype=np.float32)


def _unit(direction: Direction) -> NDArray[np.float64] | None:
    exact = direction.astype(np.float64)
    length = float(np.linalg.norm(exact))
    return exact / length if np.isfinite(length) and length > 0 else None
