"""Search for the most similar exemplar near a position (faiss)."""

from __future__ import annotations

from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from rebrain_node.ports import Exemplar
from rebrain_node.retrieval.knowledge_base import Cells, FloatArray, KnowledgeBase

#: from this number of rows on, the search is approximate (inverted file), by cells of embeddings
CELLS_FROM_ROWS: Final = 1_000_000
#: cells searched per query (nprobe); for the recall see tests/benchmarks/retrieval.py
PROBES: Final = 4
_CELLS_PER_ROOT: Final = 2
_TRAINING_ROWS_PER_CELL: Final = 40
_ROUNDS: Final = 8
_SEED: Final = 20250101


class FaissExemplars:
    """A knowledge base in memory (port ``Exemplars``); safe for any number of threads.

    Rows rise in position, so the slices near a position are one range of rows, and only that range
    is compared.

    Parameters
    ----------
    base : KnowledgeBase
        Verified.
    tau : float
        Minimum similarity of an exemplar; applied by the caller, not here.
    """

    def __init__(self, base: KnowledgeBase, tau: float) -> None:
        self.tau = tau
        self._base = base
        names, of_row = np.unique(base.subject, return_inverse=True)
        self._rows_of = {
            name.decode("ascii"): np.flatnonzero(of_row == k) for k, name in enumerate(names)
        }
        self._index = _flat(base.embeddings) if base.cells is None else _inverted_file(base)

    @property
    def digest(self) -> str:
        """SHA-256 of the base's index."""
        return self._base.digest

    def nearest(
        self,
        embedding: npt.NDArray[np.float32],
        position_mm: float,
        window_mm: float,
        excluded: str | None = None,
    ) -> Exemplar | None:
        """Find the most similar slice within ``window_mm`` of a position.

        Parameters
        ----------
        embedding : ndarray
            (d,), length 1.
        position_mm : float
            Head frame.
        window_mm : float
            Largest distance from it.
        excluded : str, optional
            Keyed hash of a subject whose slices are left out.

        Returns
        -------
        Exemplar or None
            None where no slice lies there, or where the query is not finite.
        """
        if not (np.isfinite(embedding).all() and np.isfinite(position_mm)):
            return None
        positions = self._base.position_mm
        first = int(np.searchsorted(positions, position_mm - window_mm, side="left"))
        last = int(np.searchsorted(positions, position_mm + window_mm, side="right"))
        left_out = self._count_of(excluded, first, last)
        if last - first <= left_out:
            return None
        for similarity, row in self._search(embedding, first, last, 1 + left_out):
            if excluded is None or self._base.subject[row] != excluded.encode():
                return Exemplar(
                    key=self._base.key(row),
                    similarity=similarity,
                    position_mm=float(positions[row]),
                    hu=self._base.hu(row),
                )
        return None

    def _count_of(self, subject: str | None, first: int, last: int) -> int:
        """Count the rows of one subject in a range of rows."""
        if subject is None or subject not in self._rows_of:
            return 0
        low, high = np.searchsorted(self._rows_of[subject], (first, last))
        return int(high - low)

    def _search(
        self, embedding: FloatArray, first: int, last: int, count: int
    ) -> list[tuple[float, int]]:
        selector = faiss.IDSelectorRange(first, last, True)
        if self._base.cells is None:
            parameters = _parameters("SearchParameters", sel=selector)
        else:
            parameters = _parameters("SearchParametersIVF", sel=selector, nprobe=PROBES)
        query = np.ascontiguousarray(embedding, dtype=np.float32)[None]
        similarities, rows = self._index.search(query, count, params=parameters)
        return [(float(s), int(r)) for s, r in zip(similarities[0], rows[0], strict=True) if r >= 0]


def cluster(embeddings: FloatArray) -> Cells:
    """Cluster the rows of a large base into cells of similar embeddings by k-means.

    Parameters
    ----------
    embeddings : ndarray
        (n, d), length 1.
    """
    rows = np.ascontiguousarray(embeddings, dtype=np.float32)
    count = max(1, _CELLS_PER_ROOT * round(len(rows) ** 0.5))
    quantiser = faiss.IndexFlatIP(rows.shape[1])
    # Not faiss.Kmeans: it fails once SimpleITK is imported after faiss, as in the trainer.
    index = faiss.IndexIVFFlat(quantiser, rows.shape[1], count, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed, index.cp.spherical = _ROUNDS, _SEED, True
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = _TRAINING_ROWS_PER_CELL
    index.train(rows)
    _, cells = quantiser.search(rows, 1)
    centroids = np.array(quantiser.reconstruct_n(0, count), dtype=np.float32)
    return Cells(centroids=centroids, of_row=cells[:, 0].astype(np.int32))


def _parameters(kind: str, **values: object) -> Any:
    """Make faiss's search parameters; its stubs do not know that they take keywords."""
    return getattr(faiss, kind)(**values)


def _flat(rows: FloatArray) -> Any:
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.ascontiguousarray(rows))
    return index


def _inverted_file(base: KnowledgeBase) -> Any:
    cells = base.cells
    assert cells is not None  # noqa: S101 - checked by the caller
    quantiser = _flat(cells.centroids)
    index = faiss.IndexIVFFlat(
        quantiser, base.index.dimension, len(cells.centroids), faiss.METRIC_INNER_PRODUCT
    )
    index.is_trained = True
    rows = np.ascontiguousarray(base.embeddings)
    of_row = cells.of_row.astype(np.int64)
    index.add_core(len(rows), faiss.swig_ptr(rows), None, faiss.swig_ptr(of_row))
    return index
