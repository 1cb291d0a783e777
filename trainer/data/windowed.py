"""Head and inside of the skull in a brain-windowed slice without HU or pixel size.

For slices of about 256 x 256 pixels that show one head from rim to rim, 0 to 1 for the window
C40 W80: bone is saturated, air is 0.
"""

from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

Mask = NDArray[np.bool_]
_SMALLEST_BRAIN = 1500  # pixels; smaller parts are orbits and sinuses


def _largest(mask: Mask) -> Mask:
    labels, count = ndi.label(mask)
    if count == 0:
        return mask
    sizes = ndi.sum_labels(mask, labels, range(1, count + 1))
    return cast(Mask, labels == 1 + int(np.argmax(sizes)))


def head_in_window(ct: NDArray[np.float32]) -> Mask:
    """Return the head in one slice, (rows, columns)."""
    return _largest(ndi.binary_fill_holes(ndi.binary_closing(ct > 0.05, iterations=3)))


def inside_skull_in_window(ct: NDArray[np.float32]) -> Mask:
    """Return what lies inside the skull in one slice, (rows, columns)."""
    bone = ndi.gaussian_filter(ct, 1.0) > 0.93
    bone = ndi.binary_closing(np.pad(bone, 10), iterations=5)[10:-10, 10:-10]
    inside = ndi.binary_opening(ndi.binary_fill_holes(bone) & ~bone, iterations=4)
    labels, count = ndi.label(inside)
    if count == 0:
        return np.zeros_like(bone)
    sizes = np.asarray(ndi.sum_labels(inside, labels, range(1, count + 1)))
    large = np.isin(labels, 1 + np.flatnonzero(sizes > _SMALLEST_BRAIN))
    return np.asarray(ndi.binary_erosion(large, iterations=2))
