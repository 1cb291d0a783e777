"""The true head frame of a training head: the affine that its own MNI coordinates follow best."""

import numpy as np

from rebrain_node.domain.volume import MillimetreArray
from trainer.simulate.hounsfield import Tissues

MOST_STRETCH = 1.25
_STEP = 3  # every third brain voxel along each axis is plenty for twelve numbers


def mni_from_voxel(head: Tissues) -> MillimetreArray:
    """Fit the affine from voxels (x, y, z) of `head` to MNI mm (RAS) over the brain.

    The maps carry the coordinates of a non-linear registration; the affine is their least-squares
    fit, so a position agrees with the anatomy of the whole brain rather than with one gyrus.

    Returns
    -------
    MillimetreArray
        (4, 4).
    """
    thin = (slice(None, None, _STEP),) * 3
    inside = head.brain[thin] > 0.9
    z, y, x = _STEP * np.array(np.nonzero(inside), dtype=np.float64)
    voxels = np.stack([x, y, z, np.ones_like(x)], axis=1)
    coordinates = np.stack([axis[thin][inside] for axis in head.mni], axis=1)
    fit, *_ = np.linalg.lstsq(voxels, coordinates.astype(np.float64), rcond=None)
    affine = np.eye(4)
    affine[:3] = fit.T
    return affine


def stretch(affine: MillimetreArray) -> float:
    """Return how much more an affine stretches along one direction than along another, >= 1.

    Heads differ by up to 1.2; more than `MOST_STRETCH` means that the registration of the head to
    the template went astray, and with it every position taken from it.
    """
    values = np.linalg.svd(affine[:3, :3], compute_uv=False)
    return float(values[0] / values[-1])
