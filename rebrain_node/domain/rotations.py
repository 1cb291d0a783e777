"""Scanners that measure two to four slices in one rotation, with a tilted gantry.

All slices of a rotation are measured at one place of the table, so that under tilt the centres
follow each other in steps: none within a rotation, the whole feed between two. A header that
shifts every slice alike, or that shifts where the images were straightened already, is wrong by a
constant for each place within the rotation. Rotations are told apart by Acquisition Number. Where
the rows of a rotation were added to one thick slice, that slice lies in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, takewhile

import numpy as np

from rebrain_node.domain.volume import MaskArray, MillimetreArray

#: slices of one rotation
_FEWEST, _MOST = 2, 4
#: fewer whole rotations show no period
_ROTATIONS = 4
#: place of a slice that is the sum of its rotation
_ALONE = -1


def rotation_phases(acquisitions: Sequence[int | None]) -> tuple[int, ...] | None:
    """Return the place of each slice within its rotation, from 0; -1 for the sum of a rotation.

    Parameters
    ----------
    acquisitions : sequence of int or None
        Acquisition Number of each slice, in their order along the normal.

    Returns
    -------
    tuple of int or None
        None unless all rotations but those at the ends have the same two to four slices; a
        stretch of rotations of one slice each, below or above them, does not count.
    """
    if any(number is None for number in acquisitions):
        return None
    runs = [(number, len(tuple(run))) for number, run in groupby(acquisitions)]
    if len({number for number, _ in runs}) < len(runs):
        return None
    lengths = [length for _, length in runs]
    below, above = _sums(lengths), _sums(lengths[::-1])
    phases = _phases(lengths[below : len(lengths) - above])
    if phases is None:
        return None
    return (_ALONE,) * below + phases + (_ALONE,) * above


def _sums(lengths: Sequence[int]) -> int:
    """Count the rotations of one slice at the beginning; one alone is a rotation that was cut."""
    count = sum(1 for _ in takewhile(lambda length: length == 1, lengths))
    return count if count > 1 else 0


def _phases(lengths: Sequence[int]) -> tuple[int, ...] | None:
    """Number the slices of rotations of so many slices each."""
    inner = set(lengths[1:-1])
    if len(lengths) < _ROTATIONS + 2 or len(inner) != 1:
        return None
    period = inner.pop()
    if not _FEWEST <= period <= _MOST or max(lengths[0], lengths[-1]) > period:
        return None
    start = period - lengths[0]
    return tuple((start + place) % period for place in range(sum(lengths)))


def phase_offsets_mm(
    places_mm: MillimetreArray, distances_mm: MillimetreArray, phases: Sequence[int]
) -> tuple[MillimetreArray, MillimetreArray]:
    """Fit a constant offset of each place within the rotation, against a line of neighbours.

    Parameters
    ----------
    places_mm : MillimetreArray
        (n, d) where each slice lies in its plane; rows of nan are left out.
    distances_mm : MillimetreArray
        (n,) along the normal, ascending.
    phases : sequence of int
        (n,) from `rotation_phases`.

    Returns
    -------
    offsets : MillimetreArray
        (m, d) by place within the rotation, mean 0.
    residuals : MillimetreArray
        (n - 2, d) what the offsets leave of the distance of each slice from the line through its
        neighbours; nan where a slice was left out.
    """
    weights = (distances_mm[1:-1] - distances_mm[:-2]) / (distances_mm[2:] - distances_mm[:-2])
    bends = places_mm[1:-1] - (1 - weights)[:, None] * places_mm[:-2]
    bends = bends - weights[:, None] * places_mm[2:]
    count = max(0, *phases) + 1
    one_hot = np.vstack([np.eye(count), np.zeros(count)])[list(phases)]  # -1: the row of zeros
    design = one_hot[1:-1] - (1 - weights)[:, None] * one_hot[:-2] - weights[:, None] * one_hot[2:]
    known = np.asarray(np.isfinite(bends).all(axis=1))
    first = _solved(design, bends, known)
    length = np.linalg.norm(bends - design @ first, axis=1)
    fitting = known & ~np.greater(length, 3.0 * np.nanmedian(length) + 1e-6)
    offsets = _solved(design, bends, fitting)
    return offsets - offsets.mean(axis=0), bends - design @ offsets


def _solved(design: MillimetreArray, bends: MillimetreArray, used: MaskArray) -> MillimetreArray:
    return np.asarray(np.linalg.lstsq(design[used], bends[used], rcond=None)[0], dtype=np.float64)
