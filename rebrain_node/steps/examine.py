"""Whether the network has drawn anything: a picture without features is not published.

A network that was hardly trained draws a nearly blank head, passes every check of geometry and
marks, and even states a low uncertainty. Three figures of the measured slices tell it from a
picture; docs/refusals.md has the code.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import ndimage

from rebrain_node.domain.findings import Finding
from rebrain_node.domain.volume import FloatArray, SyntheticVolume
from rebrain_node.errors import SeriesRejectedError

#: least entropy of the intensities in the head, ratio to that of the CT; the shipped bundle has
#: 1.18 to 1.31 on heads that it did not see, a network after 40 training steps .76 to .79
LEAST_ENTROPY: Final = 0.9
#: least standard deviation of the intensities of soft tissue and fluid; .11 to .16, and .03 to .04
LEAST_CONTRAST: Final = 0.07
#: least correlation of the edges with those of the CT; .52 to .67, .34 to .36, and 0 for noise
LEAST_EDGES: Final = 0.2
_BINS: Final = 64
_SOFT_HU: Final = (0.0, 80.0)
_FLAT_BITS: Final = 0.1
_EDGE_PX: Final = 1.5  # of the derivative of a Gaussian
_RIM_PX: Final = 5
_IN_PLANE: Final = ndimage.generate_binary_structure(2, 1)[None]


def examine(synthetic: SyntheticVolume) -> None:
    """Refuse a featureless volume.

    Raises
    ------
    SeriesRejectedError
        ``FEATURELESS``: entropy, contrast or edges are below their limit.
    """
    limits = {
        "entropy": ("its entropy is {:.2f} times that of the CT", LEAST_ENTROPY),
        "contrast": ("soft tissue and fluid have a standard deviation of {:.3f}", LEAST_CONTRAST),
        "edges": ("its edges correlate with those of the CT by {:.2f}", LEAST_EDGES),
    }
    for name, value in features(synthetic).items():
        words, least = limits[name]
        if value < least:
            raise SeriesRejectedError(
                [
                    Finding(
                        code="FEATURELESS",
                        sentence=f"the synthetic volume shows next to nothing: "
                        f"{words.format(value)}, at least {least:g} is expected of a head; the "
                        "bundle was trained too little, or not for such CT",
                        severity="refuse",
                        value=round(value, 3),
                        limit=least,
                    )
                ]
            )


def features(synthetic: SyntheticVolume) -> dict[str, float]:
    """Measure what the slices at measured positions show.

    Returns
    -------
    dict of float
        `entropy` of the intensities in the head, of 64 bins, over that of the CT (0 to 80 HU);
        `contrast`, the standard deviation of the intensity where the CT has 0 to 80 HU; `edges`,
        the correlation between the gradient magnitudes of CT (0 to 80 HU) and volume in the head,
        without its rim, whose edge is that of the mask.
    """
    prepared = synthetic.prepared
    rows = [k for k, guide in enumerate(synthetic.guides) if guide.kind == "measured"]
    slices = [synthetic.guides[k].target.below for k in rows]
    image, hu, head = synthetic.intensity[rows], prepared.hu[slices], prepared.head[slices]
    low, high = _SOFT_HU
    soft = image[head & (hu > low) & (hu < high)]
    inside = ndimage.binary_erosion(head, _IN_PLANE, iterations=_RIM_PX)
    window = np.clip((hu - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return {
        "entropy": _entropy_bits(image[head]) / max(_entropy_bits(window[head]), _FLAT_BITS),
        "contrast": float(soft.std(dtype=np.float64)) if soft.size else 0.0,
        "edges": _correlation(_edges(window)[inside], _edges(image)[inside]),
    }


def _entropy_bits(values: FloatArray) -> float:
    """Shannon entropy of values from 0 to 1."""
    counts = np.histogram(values, _BINS, (0.0, 1.0))[0]
    shares = counts[counts > 0] / max(int(counts.sum()), 1)
    return float(-(shares * np.log2(shares)).sum())


def _edges(volume: FloatArray) -> FloatArray:
    """Gradient magnitude in plane, (k, rows, columns)."""
    return np.stack([ndimage.gaussian_gradient_magnitude(each, _EDGE_PX) for each in volume])


def _correlation(a: FloatArray, b: FloatArray) -> float:
    """Pearson's correlation; 0 where one of them does not vary."""
    centred = [each - each.mean(dtype=np.float64) for each in (a, b)]
    norm = float(np.linalg.norm(centred[0]) * np.linalg.norm(centred[1]))
    return float((centred[0] * centred[1]).sum()) / norm if norm > 0.0 else 0.0
