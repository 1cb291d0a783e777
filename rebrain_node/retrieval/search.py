"""Search for the most similar exemplar near a position.

Rows rise in position, so the slices near a position are one range of rows, and only that range is
compared: row by row, or in a large base by cells of similar embeddings (faiss, which is
imported for such a base alone).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rebrain_node.ports import Exemplar
from rebrain_node.retrieval.knowledge_base import Cells, FloatArray, KnowledgeBase

#: from this number of rows on, the search is approximate (inverted file), by cells of embeddings
CELLS_FROM_ROWS: Final = 1_000_000
#: cells searched per query (nprobe); for the recall see tests/benchmarks/retrieval.py
PROBES: Final = 16
_CELLS_PER_ROOT: Final = 2
_TRAINING_ROWS_PER_CELL: Final = 40
_ROUNDS: Final = 8
_SEED: Final = 20250101
_RowNumbers = npt.NDArray[np.intp]
_NO_ROWS: Final[_RowNumbers] = np.empty(0, dtype=np.intp)


class FaissExemplars:
    """A knowledge base in memory (port ``Exemplars``); safe for any number of threads.

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
        self._rows = np.ascontiguousarray(base.embeddings)
        self._cells = None if base.cells is None else _inverted_file(base, base.cells)

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
        left_out = self._rows_of_subject(excluded, first, last)
        if last - first <= len(left_out):
            return None
        query = np.ascontiguousarray(embedding, dtype=np.float32)
        best = self._in_cells(query, first, last, left_out)
        if best is None:
            best = self._in_range(query, first, last, left_out)
        similarity, row = best
        return Exemplar(
            key=self._base.key(row),
            similarity=similarity,
            position_mm=float(positions[row]),
            hu=self._base.hu(row),
        )

    def _rows_of_subject(self, subject: str | None, first: int, last: int) -> _RowNumbers:
        """Rows of one subject in a range of rows."""
        rows = _NO_ROWS if subject is None else self._rows_of.get(subject, _NO_ROWS)
        low, high = np.searchsorted(rows, (first, last))
        return rows[low:high]

    def _in_range(
        self, query: FloatArray, first: int, last: int, left_out: _RowNumbers
    ) -> tuple[float, int]:
        """Compare every row of a range: exact, one pass through it."""
        # a matrix product of numpy takes 2.5 times as long here as row by row
        similarities = np.vecdot(self._rows[first:last], query)
        similarities[left_out - first] = -np.inf
        row = int(similarities.argmax())
        return float(similarities[row]), first + row

    def _in_cells(
        self, query: FloatArray, first: int, last: int, left_out: _RowNumbers
    ) -> tuple[float, int] | None:
        """Compare the rows of a range in the cells nearest to the query; None: none is there."""
        if self._cells is None:
            return None
        import faiss

        # the rows left out may be the most similar ones
        wanted = 1 + len(left_out)
        selector = faiss.IDSelectorRange(first, last, True)
        # the stubs of faiss do not know that its parameters take keywords
        parameters_of: Any = faiss.SearchParametersIVF
        parameters = parameters_of(sel=selector, nprobe=PROBES)
        similarities, rows = self._cells.search(query[None], wanted, params=parameters)
        kept = (rows[0] >= 0) & ~np.isin(rows[0], left_out)
        if not kept.any():
            return None
        place = int(kept.argmax())
        return float(similarities[0, place]), int(rows[0, place])


def cluster(embeddings: FloatArray) -> Cells:
    """Cluster the rows of a large base into cells of similar embeddings by k-means.

    Parameters
    ----------
    embeddings : ndarray
        (n, d), length 1.
    """
    import faiss

    rows = np.ascontiguousarray(embeddings, dtype=np.float32)
    count = max(1, _CELLS_PER_ROOT * round(len(rows) ** 0.5))
    quantiser = faiss.IndexFlatIP(rows.shape[1])
    # Not faiss.Kmeans: it fails where faiss was imported first and SimpleITK after it, as in the
    # trainer; the other order works (findings/faiss_after_simpleitk.sh).
    index = faiss.IndexIVFFlat(quantiser, rows.shape[1], count, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.seed, index.cp.spherical = _ROUNDS, _SEED, True
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = _TRAINING_ROWS_PER_CELL
    index.train(rows)
    _, cells = quantiser.search(rows, 1)
    centroids = np.array(quantiser.reconstruct_n(0, count), dtype=np.float32)
    return Cells(centroids=centroids, of_row=cells[:, 0].astype(np.int32))


def _inverted_file(base: KnowledgeBase, cells: Cells) -> Any:
    import faiss

    quantiser = faiss.IndexFlatIP(base.index.dimension)
    quantiser.add(np.ascontiguousarray(cells.centroids))
    index = faiss.IndexIVFFlat(
        quantiser, base.index.dimension, len(cells.centroids), faiss.METRIC_INNER_PRODUCT
    )
    index.is_trained = True
    rows = np.ascontiguousarray(base.embeddings)
    of_row = cells.of_row.astype(np.int64)
    index.add_core(len(rows), faiss.swig_ptr(rows), None, faiss.swig_ptr(of_row))
    return index
