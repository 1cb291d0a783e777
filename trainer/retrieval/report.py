"""How well the encoder finds the same anatomy in other subjects: figures of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from rebrain_node.domain.volume import FloatArray, MillimetreArray
from rebrain_node.model.similarity import RADIUS, SIGMA, ssim_map
from trainer.retrieval.knowledge_base import tau_table
from trainer.simulate.stacks import Slices

SIZES = (1.0, 0.7, 0.5, 0.3)
_AIR = 0.01  # mean intensity below which a pixel is air


@dataclass(frozen=True)
class SearchResult:
    """The most similar slice of another subject, for every query.

    Attributes
    ----------
    row : ndarray of int
        (n,) row of the base; -1 where there is no candidate.
    similarity : FloatArray
        (n,) cosine; NaN where there is no candidate.
    """

    row: NDArray[np.intp]
    similarity: FloatArray

    @property
    def matched(self) -> NDArray[np.bool_]:
        """Return where there is a candidate, (n,)."""
        return np.asarray(self.row >= 0)


def search(queries: Slices, base: Slices, window_mm: float | None = None) -> SearchResult:
    """Find the most similar slice of another subject for every query.

    Parameters
    ----------
    window_mm : float or None
        Slice-position check: largest distance of a candidate in mm; None: no check.
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
    """Return the position error of the best slice of another subject, without the check, (n,)."""
    best = search(queries, base)
    query_mm, row = queries.position_mm[best.matched], best.row[best.matched]
    return np.asarray(np.abs(query_mm - base.position_mm[row]))


def thresholds(base: Slices) -> dict[float, float]:
    """Return tau by percentage, as a knowledge base of these slices would store it.

    Raises
    ------
    ValueError
        All slices are of one subject.
    """
    table = tau_table(base.embedding, base.subject, base.position_mm)
    if not table:
        raise ValueError("tau needs at least two subjects, found one")
    return {float(record.percent): record.tau for record in table}


def acceptance(best: SearchResult, taus: Mapping[float, float]) -> dict[float, float]:
    """Return the share of the queries whose similarity reaches tau, by percentage."""
    similarity = np.nan_to_num(best.similarity, nan=-2.0)
    return {percent: float((similarity >= tau).mean()) for percent, tau in taus.items()}


def reidentification(slices: Slices, seed: int) -> float:
    """Return the share of slices whose nearest slice is of the same subject (Table 3).

    As in the paper, a random half of the slices queries the other half. The node never does this:
    the subject of a query is not in its knowledge base.
    """
    order = np.random.default_rng(seed).permutation(len(slices.subject))
    queries, base = slices[order[::2]], slices[order[1::2]]
    nearest = (queries.embedding @ base.embedding.T).argmax(axis=1)
    return float((base.subject[nearest] == queries.subject).mean())


def retrieved_ssim(queries: NDArray[np.uint8], exemplars: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the SSIM of each slice with its exemplar, both (n, rows, columns) brain window, (n,).

    Gaussian window of sigma 1.5 in the plane, range 1, averaged where the slice is not air.
    """
    return np.array([_ssim(a / 255.0, b / 255.0) for a, b in zip(queries, exemplars, strict=True)])


def _ssim(true: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    head = ndi.gaussian_filter(true, SIGMA, radius=RADIUS) > _AIR
    return float(ssim_map(true, other)[head].mean()) if head.any() else 1.0


@dataclass(frozen=True)
class Retrieval:
    """Figures of one encoder.

    Attributes
    ----------
    median_mm, p90_mm : float
        Position error of the best slice of another subject, without the position check.
    ssim : float
        Mean, of the true slice with its exemplar, with the position check.
    tau, accepted : mapping of float to float
        By percentage.
    reidentified : float
        See `reidentification`.
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
        Of held-out subjects, and of training subjects.
    query_slices, base_slices : ndarray of uint8
        (n, rows, columns) each, brain window.
    window_mm : float
        Of the slice-position check.
    """
    errors = position_errors_mm(queries, base)
    best = search(queries, base, window_mm)
    taus = thresholds(base)
    ssim = retrieved_ssim(query_slices[best.matched], base_slices[best.row[best.matched]])
    return Retrieval(
        median_mm=float(np.median(errors)),
        p90_mm=float(np.percentile(errors, 90)),
        ssim=float(ssim.mean()) if len(ssim) else float("nan"),
        tau=taus,
        accepted=acceptance(best, taus),
        reidentified=reidentification(queries, seed=0),
    )


def subsets(base: Slices, sizes: Sequence[float] = SIZES, seed: int = 0) -> dict[float, Slices]:
    """Return parts of a base by their share of its subjects (Table 5).

    A smaller part is contained in each larger one and has at least one subject.
    """
    order = np.random.default_rng(seed).permutation(np.unique(base.subject))
    return {
        size: base[np.isin(base.subject, order[: max(1, round(size * len(order)))])]
        for size in sizes
    }


def curve_of(queries: Slices, base: Slices, window_mm: float) -> dict[float, dict[str, float]]:
    """Return position error and acceptance at p = 5 by the size of the base.

    Tau is that of the whole base, as in Table 5, so that the curve shows how much less often a
    smaller base has an exemplar that is similar enough.
    """
    tau = {5.0: thresholds(base)[5.0]}
    return {
        size: {
            "median_mm": float(np.median(position_errors_mm(queries, part))),
            "accepted": acceptance(search(queries, part, window_mm), tau)[5.0],
        }
        for size, part in subsets(base).items()
    }
