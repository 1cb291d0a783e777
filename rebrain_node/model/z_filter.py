"""The filter along the normal of the planes, which takes the stripes of measured slices away.

A slice at a measured position is synthesised from the CT itself, one between two measured slices
from their interpolation, which has less noise: every slice at a measured position then stands out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from rebrain_node.domain.volume import FloatArray, Guide, MaskArray, PreparedVolume

#: the Gaussian is cut at so many standard deviations
_REACH = 4.0
#: a slice at a measured position takes at most so much of its neighbours
_LARGEST_SHARE = 0.6
#: every so many rows and columns are enough to compare the positions
_STRIDE = 2
#: voxels of each kind of position without which there is nothing to compare
_LEAST_VOXELS = 500
#: rows that are filtered at once
_ROWS = 16


def along_normal(
    values: FloatArray,
    support: MaskArray,
    prepared: PreparedVolume,
    guides: Sequence[Guide],
    sigma_mm: float,
) -> FloatArray:
    """Filter (k, rows, columns) by a Gaussian of `sigma_mm`; unchanged where that is 0.

    Raises
    ------
    ValueError
        There is not one guide for each target.
    """
    if sigma_mm == 0.0:
        return values
    if len(guides) != len(prepared.targets):
        raise ValueError(
            f"{len(guides)} of {len(prepared.targets)} slices cannot be filtered from slice to "
            "slice; synthesise all of them"
        )
    measured = np.array([guide.kind == "measured" for guide in guides])
    return z_filtered(values, support, measured, sigma_mm / prepared.spacing_mm)


def z_filtered(
    volume: FloatArray, support: MaskArray, measured: MaskArray, sigma: float
) -> FloatArray:
    """Filter a synthetic volume, or its uncertainty, from slice to slice.

    First each slice at a measured position takes a share of the mean of its two neighbours, one
    share for the volume: that at which the mean square of the second difference is the same at
    measured and at other positions. Then a Gaussian is applied.

    Parameters
    ----------
    volume : FloatArray
        (k, rows, columns), evenly spaced.
    support : MaskArray
        (k, rows, columns), where the volume was synthesised. Nothing outside is mixed in, and
        the result there is 0: the Gaussian is normalised at the rim of the head and at both ends.
    measured : MaskArray
        (k,), whether a slice was measured at the position.
    sigma : float
        Of the Gaussian, in slices.

    Returns
    -------
    FloatArray
        (k, rows, columns).
    """
    coarse = (slice(None), slice(None, None, _STRIDE), slice(None, None, _STRIDE))
    towards = _neighbours(volume[coarse], support[coarse], measured)
    share = np.float32(_share(volume[coarse], towards, support[coarse], measured))
    filtered = np.empty_like(volume, dtype=np.float32)
    for first in range(0, volume.shape[1], _ROWS):  # less memory than the whole volume at once
        rows = (slice(None), slice(first, first + _ROWS))
        inside, weights = support[rows], support[rows].astype(np.float32)
        even = volume[rows] + share * _neighbours(volume[rows], inside, measured)
        total = _gaussian(even * weights, sigma) if sigma else even * weights
        norm = _gaussian(weights, sigma) if sigma else weights
        filtered[rows] = np.where(inside, total / np.where(inside, norm, 1.0), 0.0)
    return filtered


def second_difference(volume: FloatArray) -> FloatArray:
    """Second difference from slice to slice, (k - 2, rows, columns)."""
    return np.asarray(volume[:-2] - 2.0 * volume[1:-1] + volume[2:])


def _gaussian(volume: FloatArray, sigma: float) -> FloatArray:
    return np.asarray(
        ndimage.gaussian_filter1d(volume, sigma, axis=0, mode="constant", truncate=_REACH)
    )


def _neighbours(volume: FloatArray, support: MaskArray, measured: MaskArray) -> FloatArray:
    """Mean of both neighbours minus the slice itself; 0 where there are not two such voxels."""
    towards = np.zeros_like(volume)
    for k in range(1, len(volume) - 1):
        if measured[k] and not (measured[k - 1] or measured[k + 1]):
            known = support[k - 1] & support[k] & support[k + 1]
            mean = (volume[k - 1] + volume[k + 1]) / np.float32(2.0)
            towards[k] = np.where(known, mean - volume[k], 0.0)
    return towards


def _share(
    volume: FloatArray, towards: FloatArray, support: MaskArray, measured: MaskArray
) -> float:
    """Return the share at which measured and other positions are equally rough, 0 if they are.

    The second difference is linear in the share, so its mean square is a parabola at both kinds of
    position; the share is the first at which the two meet.
    """
    inside = support[:-2] & support[1:-1] & support[2:]
    parabolas = []
    for chosen in (measured[1:-1], ~measured[1:-1]):
        where = inside & chosen[:, None, None]
        if where.sum() < _LEAST_VOXELS:
            return 0.0
        at_0, slope = (second_difference(each)[where] for each in (volume, towards))
        parabolas.append([_mean(slope, slope), 2.0 * _mean(at_0, slope), _mean(at_0, at_0)])
    excess = np.array(parabolas[0]) - np.array(parabolas[1])
    if excess[2] <= 0.0:
        return 0.0
    roots = np.roots(excess)
    met = [float(root.real) for root in roots if root.real > 0.0 and abs(root.imag) < 1e-9]
    return min([*met, _LARGEST_SHARE])


def _mean(a: FloatArray, b: FloatArray) -> float:
    return float(np.mean(a * b, dtype=np.float64))
