"""Tau: how similar slices of different people are, each person left out in turn."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rebrain_node.retrieval.knowledge_base import TauRecord

PERCENTS = (1, 2, 5, 10, 20)
WINDOW_MM = 6.0
_QUERIES_AT_ONCE = 256


def tau_table(
    embeddings: NDArray[np.float32],
    subject: NDArray[np.bytes_],
    position_mm: NDArray[np.float64],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[TauRecord, ...]:
    """Measure the thresholds of a knowledge base.

    Every slice asks the slices of all other people. Tau for p is the mean over these queries of
    the mean of their top p per cent similarities; its acceptance is the share of the queries whose
    best exemplar within `WINDOW_MM` of their position reaches it.

    Parameters
    ----------
    embeddings : ndarray
        (n, d), length 1.
    subject : ndarray
        (n,), whose slice it is.
    position_mm : ndarray
        (n,), head frame.
    progress : callable, optional
        Told queries done and queries in all.

    Returns
    -------
    tuple of TauRecord
        One for each of `PERCENTS`; empty where there are not two people.
    """
    _, people = np.unique(subject, return_inverse=True)
    if len(embeddings) == 0 or people.max() == 0:
        return ()
    sums = np.zeros(len(PERCENTS))
    best = np.empty(len(embeddings))
    for first in range(0, len(embeddings), _QUERIES_AT_ONCE):
        queries = slice(first, first + _QUERIES_AT_ONCE)
        similarity = embeddings[queries] @ embeddings.T
        similarity[people[queries, None] == people] = -np.inf
        sums += _sums_of_tops(similarity)
        near = np.abs(position_mm[queries, None] - position_mm) <= WINDOW_MM
        best[queries] = np.where(near, similarity, -np.inf).max(axis=1)
        if progress is not None:
            progress(min(first + _QUERIES_AT_ONCE, len(embeddings)), len(embeddings))
    return tuple(
        TauRecord(percent=p, tau=float(tau), acceptance=float((best >= tau).mean()))
        for p, tau in zip(PERCENTS, sums / len(embeddings), strict=True)
    )


def _sums_of_tops(similarity: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum over queries of the mean of the top p per cent, for each of `PERCENTS`."""
    others = np.isfinite(similarity).sum(axis=1)
    most = max(1, int(np.ceil(max(PERCENTS) / 100 * others.max())))
    falling = -np.sort(-np.partition(similarity, -most, axis=1)[:, -most:], axis=1)
    running = np.cumsum(falling, axis=1, dtype=np.float64)
    sums = []
    for percent in PERCENTS:
        count = np.maximum(1, np.ceil(percent / 100 * others).astype(int))
        sums.append(float((running[np.arange(len(count)), count - 1] / count).sum()))
    return np.array(sums)
