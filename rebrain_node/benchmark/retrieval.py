"""The search for an exemplar, beside one pass of BLAS through the rows that are compared.

The memory bandwidth allows no faster one. Embeddings are simulated like those of a contrastive
encoder: 400 subjects along a smooth curve through the head, each with its own offset, and noise for
each slice. Queries are held-out slices of subjects in the base.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from rebrain_node.benchmark.row import BenchmarkRow, Progress, Rows
from rebrain_node.domain.volume import FloatArray
from rebrain_node.model.head_template import load_head_template
from rebrain_node.retrieval.knowledge_base import Cells, Index, KnowledgeBase, SubjectRecord
from rebrain_node.retrieval.search import FaissExemplars

SUBJECTS: Final = 400
WINDOW_MM: Final = 6.0
QUERIES: Final = 300
LOW_MM, HIGH_MM = -60.0, 110.0
#: of the exact search at 100 000 x 384, of one pass
WANTED: Final = 1.1

Query = tuple[FloatArray, float, str]  #: embedding, position, subject


def measure_retrieval(
    progress: Progress, rows: int = 100_000, dimension: int = 384, repeats: int = 5
) -> Rows:
    """Search exactly and read the same rows once, in turns; processor time of the thread."""
    progress("retrieval")
    base, queries = simulated(rows, dimension)
    search = FaissExemplars(base, 0.0)
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(statistics.median(timed(search, queries, excluding=False)[0]))
        theirs.append(statistics.median(reading(base, queries)))
    return [
        BenchmarkRow(
            what=f"exact retrieval, {rows} x {dimension}",
            unit="ms",
            ours=statistics.median(ours),
            peer="one pass of BLAS through the rows",
            theirs=statistics.median(theirs),
            wanted=WANTED,
        )
    ]


def simulated(rows: int, dimension: int, seed: int = 0) -> tuple[KnowledgeBase, list[Query]]:
    """Make a base of slices of one pixel, and queries."""
    rng = np.random.default_rng(seed)
    count = rows + QUERIES
    position = rng.uniform(LOW_MM, HIGH_MM, count)
    who = rng.integers(SUBJECTS, size=count)
    waves = rng.standard_normal((2, 12, dimension)).astype(np.float32)
    subjects = rng.standard_normal((SUBJECTS, dimension), dtype=np.float32)
    embeddings = np.empty((count, dimension), dtype=np.float32)
    for first in range(0, count, 50_000):
        part = slice(first, first + 50_000)
        angle = 2 * np.pi * (position[part, None] - LOW_MM) / (HIGH_MM - LOW_MM)
        angle = (angle * np.arange(1, 13)).astype(np.float32)
        curve = np.cos(angle) @ waves[0] + np.sin(angle) @ waves[1]
        noise = rng.standard_normal(curve.shape, dtype=np.float32)
        mixed = curve + 1.5 * subjects[who[part]] + 0.8 * noise
        embeddings[part] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    order = np.argsort(position[:rows])
    names = np.array([f"{k:032x}".encode() for k in range(SUBJECTS)], dtype="S32")
    base = base_of(embeddings[order], position[order], names[who[order]])
    queries = [
        (embeddings[k], float(position[k]), f"{int(who[k]):032x}") for k in range(rows, count)
    ]
    return base, queries


def base_of(
    embeddings: FloatArray, position_mm: np.ndarray, subject: np.ndarray, cells: Cells | None = None
) -> KnowledgeBase:
    """Make a base of arrays, with slices of one pixel; nothing is verified."""
    names, counts = np.unique(subject, return_counts=True)
    index = Index(
        encoder_sha256="0" * 64,
        template_sha256=load_head_template().digest,
        dimension=embeddings.shape[1],
        plane=(1, 1),
        pixel_mm=1.8,
        window_hu=(0.0, 80.0),
        entries=len(embeddings),
        subjects={
            name.decode(): SubjectRecord(entries=int(n), licence="CC0-1.0")
            for name, n in zip(names, counts, strict=True)
        },
        tau=(),
        files={},
    )
    return KnowledgeBase(
        index=index,
        embeddings=embeddings,
        position_mm=position_mm,
        subject=subject,
        ct=np.zeros((len(embeddings), 1, 1), dtype=np.uint8),
        cells=cells,
    )


def timed(
    search: FaissExemplars, queries: Sequence[Query], *, excluding: bool
) -> tuple[list[float], list[float]]:
    """Return milliseconds of processor time and similarity of each query."""
    milliseconds, similarities = [], []
    for embedding, position, own in queries:
        begun = time.thread_time()
        found = search.nearest(embedding, position, WINDOW_MM, own if excluding else None)
        milliseconds.append(1e3 * (time.thread_time() - begun))
        similarities.append(-1.0 if found is None else found.similarity)
    return milliseconds, similarities


def reading(base: KnowledgeBase, queries: Sequence[Query]) -> list[float]:
    """Return milliseconds of processor time to read the rows of each query's window once."""
    rows, milliseconds = np.ascontiguousarray(base.embeddings), []
    for _, position, _ in queries:
        ends = (position - WINDOW_MM, position + WINDOW_MM)
        first, last = np.searchsorted(base.position_mm, ends)
        flat = rows[first:last].ravel()
        begun = time.thread_time()
        flat @ flat
        milliseconds.append(1e3 * (time.thread_time() - begun))
    return milliseconds
