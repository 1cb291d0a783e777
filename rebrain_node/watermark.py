"""An imperceptible mark in the pixels by which one slice of a synthetic MR is known.

Spread spectrum in the Fourier domain (Cox, Kilian, Leighton, Shamoon, IEEE Trans. Image Process.
6(12), 1997) with a periodic tile (Kutter, SPIE 3528, 1998): a tile of 64 x 64 pixels whose
Fourier coefficients in a band of spatial frequencies have equal size and the phases of a public
key. The detector samples the spectrum of a slice at these frequencies, for each scale in question,
and correlates the phases with the key's; the correlation with every shift of the tile is one small
inverse transform. No original is needed, and no position: a crop shifts the tile.

The false positives are bounded, not fitted. For one image, scale and shift the score is a weighted
sum of cosines of phases that the key drew independently: over keys P(score >= z) <= exp(-z^2 / 2)
whatever the image and the weights (E exp(t w cos U) = I0(t w) <= exp(t^2 w^2 / 4)). The bound of a
search is that times the number of scales, orientations and shifts that were tried.

The key is public by design: the mark answers an honest question and is no protection against
someone who wants to remove or to forge it (docs/marks.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from rebrain_node.domain.marks import WATERMARK_SCHEME

FloatArray = npt.NDArray[np.float32]
ComplexArray = npt.NDArray[np.complex64]
MaskArray = npt.NDArray[np.bool_]

#: root mean square of the mark where it is whole, ratio of the display range: chosen by
#: docs/evaluation/watermark.md
AMPLITUDE: Final = 0.003
#: a slice is marked if the bound on a false positive is at most this
FALSE_POSITIVES: Final = 1e-6
#: scales of the search in pixels of the image for one of the marked slice
SMALLEST_SCALE: Final = 0.6
LARGEST_SCALE: Final = 4.2  #: of a slice that was enlarged

_TILE: Final = 64  #: pixels
_BAND: Final = (5.5, 19.5)  #: cycles a tile
_STEP: Final = 1.01  #: from scale to scale: the tile stays in phase over a head of 200 pixels
_OCTAVE: Final = 2**0.5  #: the image is resampled once for scales within this ratio
_NYQUIST: Final = 0.48  #: cycles a pixel; finer lines of a reduced image are not sampled
_LOCAL: Final = 1.3  #: pixels, standard deviation of the local mean that is taken off
_QUIET: Final = 0.05  #: of the median contrast: flatter places do not count more
#: shifts of the tile from slice to slice, so that a reformat shows no lines
_ROLL: Final = (29, 41)
_EDGE: Final = 4  #: pixels from the edge of the head to the mark
_DARK: Final = (0.02, 0.08)  #: local mean at which the mark begins and is whole: none on air


@dataclass(frozen=True)
class Detection:
    """What a search in one image came to."""

    score: float  #: standard deviations of the score of an image without mark
    bound: float  #: on the probability of this score or more without mark, over all that was tried
    scale: float  #: pixels of the image for one of the marked slice

    @property
    def is_marked(self) -> bool:
        """Whether the image carries the mark."""
        return self.bound <= FALSE_POSITIVES


def mark(intensity: FloatArray, head: MaskArray, first: int = 0) -> FloatArray:
    """Put the mark on the head of each slice, not on air and not on the edge.

    Parameters
    ----------
    intensity : FloatArray
        (slices, rows, columns), ratio of the display range.
    head : MaskArray
        The same shape.
    first : int
        Number of the first slice in its series.

    Returns
    -------
    FloatArray
        In [0, 1]; equal to ``intensity`` outside of the head.
    """
    marked = np.empty_like(intensity, dtype=np.float32)
    for k, (plane, inside) in enumerate(zip(intensity, head, strict=True)):
        roll = tuple((first + k) * step % _TILE for step in _ROLL)
        tile = np.roll(_tile(), roll, (0, 1))
        repeats = [-(-size // _TILE) for size in plane.shape]
        pattern = np.tile(tile, repeats)[: plane.shape[0], : plane.shape[1]]
        marked[k] = np.clip(plane + AMPLITUDE * _room(plane, inside) * pattern, 0.0, 1.0)
        marked[k][~inside] = plane[~inside]
    return marked


def detect(
    image: npt.NDArray[np.generic],
    scales: Sequence[float] | None = None,
    *,
    any_orientation: bool = True,
) -> Detection:
    """Search one image for the mark.

    Parameters
    ----------
    image : array
        (rows, columns), any units; smaller than half a tile, it counts as unmarked.
    scales : sequence of float, optional
        Pixels of the image for one of the marked slice; all from `SMALLEST_SCALE` to
        `LARGEST_SCALE` where absent.
    any_orientation : bool
        Whether rows and columns may be exchanged or reversed, as between DICOM and NIfTI.
    """
    tried = all_scales() if scales is None else tuple(scales)
    keys = _orientations(any_orientation)
    found = best_scores(image, tried, keys)
    score, scale = max(zip(found.max(axis=1).tolist(), tried, strict=True))
    tests = len(tried) * len(keys) * _TILE**2
    return Detection(score, float(min(1.0, tests * np.exp(-0.5 * score**2))), scale)


def best_scores(
    image: npt.NDArray[np.generic], scales: Sequence[float], keys: ComplexArray
) -> npt.NDArray[np.float64]:
    """Score an image with each key at each scale, the best over all shifts, (scales, keys)."""
    values = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
    pixels = (values / max(float(np.abs(values).max(initial=0.0)), 1e-30)).astype(np.float32)
    found = np.zeros((len(scales), len(keys)))
    if min(pixels.shape) < _TILE // 2:
        return found
    for base, group in _groups(scales):
        spectrum = _spectrum(_contrast(_resampled(pixels, 1.0 / base)))
        for place in group:
            found[place] = _score(spectrum, scales[place] / base, min(scales[place], 1.0), keys)
    return found


def random_keys(count: int, seed: int) -> ComplexArray:
    """Draw other keys, (count, lines); to them every image is unmarked."""
    return _unit(np.random.default_rng(seed).random((count, len(_lines()[0]))))


@cache
def all_scales() -> tuple[float, ...]:
    """Scales of a search that knows none."""
    count = int(np.ceil(np.log(LARGEST_SCALE / SMALLEST_SCALE) / np.log(_STEP)))
    below = int(np.floor(-np.log(SMALLEST_SCALE) / np.log(_STEP)))
    return tuple(float(_STEP ** (k - below)) for k in range(count + 1))


@cache
def _lines() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Cycles a tile along rows and along columns, and their length; half of the plane."""
    down, across = np.meshgrid(np.arange(-20, 21), np.arange(0, 21), indexing="ij")
    length = np.hypot(down, across)
    used = (length > _BAND[0]) & (length < _BAND[1]) & ((across > 0) | (down > 0))
    return down[used], across[used], length[used]


@cache
def _public_key() -> ComplexArray:
    count = len(_lines()[0])
    names = (f"{WATERMARK_SCHEME}|{k}".encode() for k in range(count // 8 + 1))
    words = np.frombuffer(b"".join(hashlib.sha256(n).digest() for n in names), dtype="<u4")
    return _unit(words[:count] / 2.0**32)


def _unit(turns: npt.NDArray[np.float64]) -> ComplexArray:
    return np.asarray(np.exp(2j * np.pi * turns), np.complex64)


@cache
def _orientations(every: bool) -> ComplexArray:
    """Return the key as it stands and, where asked, reversed and transposed: (1 or 8, lines)."""
    key, (down, across, _) = _public_key(), _lines()
    if not every:
        return key[None]
    plane = np.zeros((_TILE, _TILE), np.complex64)
    plane[down, across], plane[-down, -across] = key, key.conj()
    signs = ((1, 1), (1, -1), (-1, 1), (-1, -1))
    planes = (plane, plane.T)
    return np.stack([each[y * down, x * across] for each in planes for y, x in signs])


@cache
def _tile() -> FloatArray:
    """The tile, (64, 64), mean 0 and standard deviation 1."""
    down, across, _ = _lines()
    plane = np.zeros((_TILE, _TILE), np.complex64)
    plane[down, across], plane[-down, -across] = _public_key(), _public_key().conj()
    tile = fft.ifft2(plane).real
    return np.asarray(tile / tile.std(), np.float32)


def _room(plane: FloatArray, head: MaskArray) -> FloatArray:
    """Where the mark may be, 0 to 1."""
    inside = ndimage.uniform_filter(head.astype(np.float32), 2 * _EDGE + 1, mode="constant")
    level = ndimage.uniform_filter(plane, 7)
    lit = np.clip((level - _DARK[0]) / (_DARK[1] - _DARK[0]), 0.0, 1.0)
    return np.asarray(np.clip(2.0 * inside - 1.0, 0.0, 1.0) * lit, np.float32)


def _groups(scales: Sequence[float]) -> list[tuple[float, list[int]]]:
    """Places in ``scales`` by the scale to which the image is resampled."""
    groups: dict[float, list[int]] = {}
    for place, scale in enumerate(scales):
        base = float(_OCTAVE ** round(np.log(scale) / np.log(_OCTAVE)))
        groups.setdefault(base, []).append(place)
    return list(groups.items())


def _resampled(image: FloatArray, by: float) -> FloatArray:
    if abs(by - 1.0) < 1e-6:
        return image
    if by < 1.0:
        image = ndimage.gaussian_filter(image, 0.35 / by)
    return np.asarray(ndimage.zoom(image, by, order=3, mode="nearest", grid_mode=True), np.float32)


def _contrast(image: FloatArray) -> FloatArray:
    """Deviation from the local mean in units of the local contrast."""
    residual = image - ndimage.gaussian_filter(image, _LOCAL)
    local = np.sqrt(ndimage.gaussian_filter(residual * residual, _LOCAL))
    seen = local[local > 1e-4 * max(float(local.max(initial=0.0)), 1e-12)]
    floor = _QUIET * float(np.median(seen)) if seen.size else 1.0
    return np.asarray(residual / (local + floor), np.float32)


def _spectrum(contrast: FloatArray) -> ComplexArray:
    """Spectrum at twice the resolution, the phase counted from the middle of the image."""
    size = fft.next_fast_len(2 * max(contrast.shape), real=False)
    spectrum = fft.fft2(contrast, (size, size))
    steps = fft.fftfreq(size).astype(np.float32)
    down, across = (np.exp(1j * np.pi * steps * extent) for extent in contrast.shape)
    return np.asarray(spectrum * down[:, None] * across[None, :], np.complex64)


def _score(
    spectrum: ComplexArray, scale: float, real_scale: float, keys: ComplexArray
) -> npt.NDArray[np.float64]:
    """Best score of each key over all shifts at one scale, (keys,)."""
    down, across, length = _lines()
    used = length / (_TILE * real_scale) < _NYQUIST
    down, across, length = down[used], across[used], length[used]
    values = _sample(spectrum, down / (_TILE * scale), across / (_TILE * scale))
    size = np.abs(values) + 1e-12
    # noise of each line by its length, smooth
    noise = np.exp(np.polyval(np.polyfit(length, np.log(size), 2), length))
    weighted = values / noise**2
    plane = np.zeros((len(keys), _TILE, _TILE), np.complex64)
    plane[:, down, across] = weighted * keys[:, used].conj()
    correlation = fft.ifft2(plane).real.max(axis=(1, 2)) * _TILE**2
    deviation = np.sqrt(0.5 * np.sum(np.abs(weighted) ** 2))
    return np.asarray(correlation / max(float(deviation), 1e-30), np.float64)


def _sample(
    spectrum: ComplexArray, down: npt.NDArray[np.float64], across: npt.NDArray[np.float64]
) -> ComplexArray:
    """Interpolate a spectrum at frequencies in cycles a pixel."""
    size = len(spectrum)
    y, x = down * size, across * size
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    dy, dx = y - y0, x - x0
    corners = [spectrum[(y0 + i) % size, (x0 + j) % size] for i in (0, 1) for j in (0, 1)]
    upper = (1 - dx) * corners[0] + dx * corners[1]
    lower = (1 - dx) * corners[2] + dx * corners[3]
    return np.asarray((1 - dy) * upper + dy * lower, np.complex64)
