"""Power and amplitude of the slices by frequency: what a blurred image loses.

The bands are in cycles per pixel of the model grid (0.9 mm) or of the data set. A pixel-wise error
is smallest for a blurred image; its amplitude is not, and speckle that has the right amplitude is
told from structure by what correlates with the truth.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainer.data.dataset import Mask, Volume

#: lowest and highest frequency, cycles per pixel, by name
BANDS: Final[Mapping[str, tuple[float, float]]] = {
    "low": (0.06, 0.11), "middle": (0.16, 0.21), "high": (0.26, 0.31),
}  # fmt: skip
WINDOW_PX: Final = 128  # side of the square in the middle of the brain that the bands are taken in
LEAST_BRAIN_PX: Final = 8000  # of a slice: with less, the square shows mostly skull
_FREQUENCIES = 64  # rings between 0 and the Nyquist frequency
_LEAST_POWER = 1e-12


def radial_spectrum(volume: Volume, mask: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Power by radial frequency within the slices, zero outside the mask.

    Returns
    -------
    frequency : NDArray of float64
        (64,) middle of each ring, cycles per pixel, up to 0.5.
    power : NDArray of float64
        (64,) mean over slices and ring of |FFT|^2 per pixel. The mean of a slice (frequency 0)
        is in no ring.
    """
    rows, columns = volume.shape[1:]
    radius = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :])
    edges = np.linspace(0, 0.5, _FREQUENCIES + 1)
    ring = np.where((radius > 0) & (radius <= 0.5), np.digitize(radius, edges, right=True), 0)
    power = np.zeros(radius.shape)
    for plane, inside in zip(volume, mask, strict=True):
        power += np.abs(np.fft.rfft2(np.where(inside, plane, 0.0))) ** 2
    power /= len(volume) * rows * columns
    counts = np.bincount(ring.ravel(), minlength=_FREQUENCIES + 1)[1:]
    sums = np.bincount(ring.ravel(), power.ravel(), _FREQUENCIES + 1)[1:]
    return (edges[:-1] + edges[1:]) / 2, sums / np.maximum(counts, 1)


def spectrum_error(image: Volume, reference: Volume, mask: Mask) -> float:
    """Mean over the rings of |10 log10 (power of the image / power of the reference)|, dB."""
    powers = [radial_spectrum(volume, mask)[1] for volume in (image, reference)]
    found, expected = (np.maximum(power, _LEAST_POWER) for power in powers)
    filled = powers[1] > 0  # a small image has no sample in the narrowest rings
    return float(np.mean(np.abs(10 * np.log10(found / expected))[filled]))


def band_amplitudes(image: Volume, reference: Volume, brain: Mask) -> dict[str, float]:
    """Amplitude against the reference by band, in a Hann window in the middle of the brain.

    Parameters
    ----------
    image, reference, brain : ndarray
        (slice, row, column). Slices with more than `LEAST_BRAIN_PX` of brain count.

    Returns
    -------
    dict of float
        For each of `BANDS`, `amplitude_<band>` is the root of the power over that of the
        reference: 1 for the reference, less for a blurred image, more for a noisy one.
        `correlated_amplitude_<band>` is the real part of the cross-spectrum over the power of the
        reference: 1 for the reference, and noise adds nothing to it. Empty without such a slice,
        or where a slice is smaller than the window.
    """
    chosen = brain.sum(axis=(1, 2)) > LEAST_BRAIN_PX
    if not chosen.any() or min(brain.shape[1:]) < WINDOW_PX:
        return {}
    box = _middle(brain)
    own, true = (_windowed_spectrum(volume[chosen][box]) for volume in (image, reference))
    frequency = np.hypot(np.fft.fftfreq(WINDOW_PX)[:, None], np.fft.rfftfreq(WINDOW_PX)[None, :])
    found: dict[str, float] = {}
    for name, (low, high) in BANDS.items():
        ring = (frequency >= low) & (frequency < high)
        power = max(float((np.abs(true[:, ring]) ** 2).sum()), _LEAST_POWER)
        cross = float(np.real(own[:, ring] * np.conj(true[:, ring])).sum())
        found[f"amplitude_{name}"] = float(np.sqrt((np.abs(own[:, ring]) ** 2).sum() / power))
        found[f"correlated_amplitude_{name}"] = cross / power
    return found


def _middle(brain: Mask) -> tuple[slice, slice, slice]:
    """Return the square of `WINDOW_PX` whose middle is the centre of the brain."""
    spans = []
    for axis, others in ((1, (0, 2)), (2, (0, 1))):
        weight = brain.sum(axis=others)
        centre = float((weight * np.arange(len(weight))).sum() / weight.sum())
        first = round(centre) - WINDOW_PX // 2
        first = min(max(first, 0), brain.shape[axis] - WINDOW_PX)
        spans.append(slice(first, first + WINDOW_PX))
    return slice(None), spans[0], spans[1]


def _windowed_spectrum(square: Volume) -> NDArray[np.complex128]:
    """Fourier transform of each slice without its mean, in a Hann window."""
    window = np.hanning(WINDOW_PX)[:, None] * np.hanning(WINDOW_PX)[None, :]
    level = square.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    return np.asarray(np.fft.rfft2(window * (square - level)))
