"""How well the encoder finds the same anatomy in other heads: figures of the retrieval report.

Everything works on plain arrays, so that the report can be made of any knowledge base: unit
embeddings (n, d), subjects (n,), positions (n,) in mm of the head frame. Numpy only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from rebrain_node.domain.volume import FloatArray, MillimetreArray
from trainer.simulate.stacks import Slices

PERCENTS = (1.0, 2.0, 5.0, 10.0, 20.0)
SIZES = (1.0, 0.7, 0.5, 0.3)
_SSIM_SIGMA = 1.5


@dataclass(frozen=True)
class SearchResult:
    """The best exemplar of every query.

    Attributes
    ----------
    row : ndarray of int
        (n,) row of the knowledge base; -1 where no candidate was left.
    similarity : FloatArray
        (n,) cosine; NaN where no candidate was left.
    """

    row: NDArray[np.intp]
    similarity: FloatArray

    @property
    def any(self) -> NDArray[np.bool_]:
        """Return where a candidate was left, (n,)."""
        return np.asarray(self.row >= 0)


def search(queries: Slices, base: Slices, window_mm: float | None = None) -> SearchResult:
    """Find the most similar slice of another subject for every query.

    Parameters
    ----------
    window_mm : float or None
        Slice-position check: candidates lie within this of the query; None searches everywhere.
    """
    cosine = np.asarray(queries.embedding @ base.embedding.T, dtype=np.float32)
    allowed = queries.subject[:, None] != base.subject[None, :]
    if window_mm is not None:
        allowed &= np.abs(queries.position_mm[:, None] - base.position_mm[None, :]) <= window_mm
    cosine[~allowed] = -np.inf
    row = cosine.argmax(axis=1)
    best = cosine[np.arange(len(row)), row]
    none = ~np.isfinite(best)
    return SearchResult(np.where(none, -1, row), np.where(none, np.nan, best).astype(np.float32))


def position_errors_mm(queries: Slices, base: Slices) -> MillimetreArray:
    """Distance in position of the top-1 of other subjects, position check off, (n,)."""
    found = search(queries, base)
    return np.asarray(
        np.abs(queries.position_mm[found.any] - base.position_mm[found.row[found.any]])
    )


def thresholds(base: Slices, percents: Sequence[float] = PERCENTS) -> dict[float, float]:
    """Return tau at each percentage: leave one subject out, mean of the mean of the top p %.

    For every slice of the training subjects the similarities to the slices of all others are
    sorted, the best p % (at least one) are averaged, and tau is the mean over all slices.

    Raises
    ------
    ValueError
        There is one subject only, so nothing is left when it is left out.
    """
    if len(np.unique(base.subject)) < 2:
        raise ValueError("tau needs at least two subjects, found one")
    sums = dict.fromkeys(percents, 0.0)
    for subject in np.unique(base.subject):
        own = base.subject == subject
        cosine = np.sort(base.embedding[own] @ base.embedding[~own].T, axis=1)[:, ::-1]
        for percent in percents:
            count = max(1, round(cosine.shape[1] * percent / 100))
            sums[percent] += float(cosine[:, :count].mean(axis=1).sum())
    return {percent: total / len(base.subject) for percent, total in sums.items()}


def acceptance(found: SearchResult, taus: Mapping[float, float]) -> dict[float, float]:
    """Share of the queries whose best similarity reaches tau, at each percentage."""
    reached = np.nan_to_num(found.similarity, nan=-2.0)
    return {percent: float((reached >= tau).mean()) for percent, tau in taus.items()}


def reidentification(slices: Slices, seed: int) -> float:
    """Share of the slices whose nearest slice of the other half is of their own subject (Table 3).

    The slices are parted at random into two equal halves, queries and base, as in the paper: this
    is no measure of what the node does, where the query's subject is never in the base.
    """
    order = np.random.default_rng(seed).permutation(len(slices.subject))
    queries, base = slices[order[::2]], slices[order[1::2]]
    nearest = (queries.embedding @ base.embedding.T).argmax(axis=1)
    return float((base.subject[nearest] == queries.subject).mean())


def retrieved_ssim(queries: NDArray[np.uint8], exemplars: NDArray[np.uint8]) -> NDArray[np.float64]:
    """SSIM of each true slice with its exemplar, both (n, rows, columns) brain window, (n,).

    Gaussian window of sigma 1.5 in the plane, range 1, averaged where the true slice is not air.
    """
    return np.array([_ssim(a / 255.0, b / 255.0) for a, b in zip(queries, exemplars, strict=True)])


def _ssim(true: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    def mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndi.gaussian_filter(image, _SSIM_SIGMA, truncate=3.5))

    mean_a, mean_b = mean(true), mean(other)
    variance_a = mean(true * true) - mean_a**2
    variance_b = mean(other * other) - mean_b**2
    covariance = mean(true * other) - mean_a * mean_b
    ssim = ((2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)) / (
        (mean_a**2 + mean_b**2 + 1e-4) * (variance_a + variance_b + 9e-4)
    )
    head = mean_a > 0.01
    return float(ssim[head].mean()) if head.any() else 1.0


@dataclass(frozen=True)
class Retrieval:
    """Figures of one encoder.

    Attributes
    ----------
    median_mm, p90_mm : float
        Position error of top-1 of another subject, position check off.
    ssim : float
        Of the exemplar (position check on) against the true slice, mean.
    tau, accepted : dict of float
        By percentage.
    reidentified : float
        Table 3.
    """

    median_mm: float
    p90_mm: float
    ssim: float
    tau: Mapping[float, float]
    accepted: Mapping[float, float]
    reidentified: float


def assess(
    queries: Slices,
    query_slices: NDArray[np.uint8],
    base: Slices,
    base_slices: NDArray[np.uint8],
    window_mm: float,
) -> Retrieval:
    """Compute all figures of one encoder.

    Parameters
    ----------
    queries, base : Slices
        Held-out heads, and training heads.
    query_slices, base_slices : ndarray of uint8
        (n, rows, columns) each, brain window.
    window_mm : float
        Of the slice-position check, as in the node.
    """
    errors = position_errors_mm(queries, base)
    found = search(queries, base, window_mm)
    taus = thresholds(base)
    ssim = retrieved_ssim(query_slices[found.any], base_slices[found.row[found.any]])
    return Retrieval(
        median_mm=float(np.median(errors)),
        p90_mm=float(np.percentile(errors, 90)),
        ssim=float(ssim.mean()) if len(ssim) else float("nan"),
        tau=taus,
        accepted=acceptance(found, taus),
        reidentified=reidentification(queries, seed=0),
    )


def size_curve(
    queries: Slices,
    base: Slices,
    measure: Callable[[Slices, Slices], float],
    sizes: Sequence[float] = SIZES,
    seed: int = 0,
) -> dict[float, float]:
    """Return `measure(queries, base)` with whole subjects left out of the base (Table 5).

    A smaller base is part of the larger one; at least one subject stays.
    """
    order = np.random.default_rng(seed).permutation(np.unique(base.subject))
    curve = {}
    for size in sizes:
        kept = order[: max(1, round(size * len(order)))]
        curve[size] = measure(queries, base[np.isin(base.subject, kept)])
    return curve


def curve_of(queries: Slices, base: Slices, window_mm: float) -> dict[float, dict[str, float]]:
    """Return position error and acceptance at p = 5 by the size of the base.

    Tau is that of the whole base, as in Table 5: what is measured is how much harder a smaller
    base makes it to find something similar enough.
    """
    tau = {5.0: thresholds(base)[5.0]}
    median = size_curve(queries, base, lambda q, b: float(np.median(position_errors_mm(q, b))))
    accepted = size_curve(queries, base, lambda q, b: acceptance(search(q, b, window_mm), tau)[5.0])
    return {size: {"median_mm": median[size], "accepted": accepted[size]} for size in median}
