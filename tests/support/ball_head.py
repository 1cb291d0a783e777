"""A head made of spheres, as maps of anatomy: known truth for the simulator and the trainer."""

import numpy as np
from numpy.typing import NDArray

SIZE = 64
CENTRE = np.array([31.0, 32.0, 32.0])  # z, y, x
BRAIN_MM, SKULL_MM, HEAD_MM = 20.0, 24.0, 28.0
SCALE = 3.0  # the ball is a third of a head: MNI coordinates are three times as large


def ball_maps(*, neck: bool = False) -> dict[str, NDArray[np.generic]]:
    """Return maps as `map_anatomy` does: white core, grey rind, skull, scalp."""
    z, y, x = np.indices((SIZE, SIZE, SIZE)).astype(float) - CENTRE[:, None, None, None]
    radius = np.sqrt(z**2 + y**2 + x**2)
    levels = [(14.0, 0.62), (BRAIN_MM, 0.42), (SKULL_MM, 0.05), (HEAD_MM, 0.9)]
    t1 = np.zeros_like(radius)
    for outer, level in reversed(levels):
        t1[radius < outer] = level
    head = radius < HEAD_MM
    if neck:
        column = (np.hypot(y, x) < 10) & (z < 0)
        t1[column & ~head] = 0.4
        head |= column
    template = np.where(radius < BRAIN_MM, 30, np.where(radius < SKULL_MM, 900, -50))
    brain = (radius < BRAIN_MM) * 255
    return {
        "t1": (t1 * 200).astype(np.uint8),
        "smooth_t1": (t1 * 200).astype(np.uint8),
        "template_hu": np.where(head, template, -1000).astype(np.int16),
        "inside": brain.astype(np.uint8),
        "grey": (brain * (radius >= 14)).astype(np.uint8),
        "lesion": np.zeros(t1.shape, np.uint8),
        "head": head,
        "mni_x": np.clip(-x * SCALE, -125, 125).astype(np.int8),
        "mni_y": np.clip(-y * SCALE, -125, 125).astype(np.int8),
        "mni_z": np.clip(z * SCALE, -125, 125).astype(np.int8),
        "origin_mm": np.zeros(3),
    }
