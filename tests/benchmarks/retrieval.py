"""Time of an exemplar search on one thread, and recall of the search by cells.

Run: ``OMP_NUM_THREADS=1 python -m tests.benchmarks.retrieval [exact] [cells] [registration]``.
Target: exact search at 100 000 x 384 <= 1.1 x the time to read the rows once; by cells at
1 000 000 x 192 the best exemplar in 97 of 100 queries.

Embeddings are simulated like those of a contrastive encoder: 400 subjects along a smooth curve
through the head, each with its own offset, and noise per slice. Queries are held-out slices of
subjects in the base, in a window of 6 mm: as in the node, and with their own subject excluded as
in the trainer. Times are processor time of the thread. The time of BLAS for one pass through the
rows of the window is printed beside the exact search: the memory bandwidth allows no faster one.
"""

from __future__ import annotations

import statistics
import sys
import time
from importlib import resources

import faiss
import numpy as np

from rebrain_node.model.bundle import load_bundle
from rebrain_node.model.registration import moved, register
from rebrain_node.model.resample import halved
from rebrain_node.retrieval.knowledge_base import KnowledgeBase, parse
from rebrain_node.retrieval.search import PROBES, FaissExemplars, cluster
from tests.support.knowledge_bases import NumpyExemplars, subject_hash, with_index

SUBJECTS, WINDOW_MM, QUERIES = 400, 6.0, 300
LOW_MM, HIGH_MM = -60.0, 110.0
_HOW = {False: "", True: ", own subject excluded"}


def simulated(rows: int, dimension: int, seed: int = 0) -> tuple[KnowledgeBase, list[tuple]]:
    """A base and queries (embedding, position, subject)."""
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
    names = np.array([subject_hash(k).encode() for k in range(SUBJECTS)], dtype="S32")
    base = with_index(
        embeddings=embeddings[order],
        position_mm=position[order],
        subject=names[who[order]],
        ct=np.zeros((rows, 1, 1), dtype=np.uint8),
    )
    queries = [
        (embeddings[k], float(position[k]), subject_hash(int(who[k]))) for k in range(rows, count)
    ]
    return base, queries


def timed(
    search: FaissExemplars, queries: list[tuple], *, excluding: bool
) -> tuple[list[float], list[float]]:
    """Milliseconds of processor time and similarity of each query."""
    milliseconds, similarities = [], []
    for embedding, position, own in queries:
        begun = time.thread_time()
        found = search.nearest(embedding, position, WINDOW_MM, own if excluding else None)
        milliseconds.append(1e3 * (time.thread_time() - begun))
        similarities.append(-1.0 if found is None else found.similarity)
    return milliseconds, similarities


def reading(base: KnowledgeBase, queries: list[tuple]) -> list[float]:
    """Milliseconds of processor time to read the rows of each query's window once."""
    rows, milliseconds = np.ascontiguousarray(base.embeddings), []
    for _, position, _ in queries:
        ends = (position - WINDOW_MM, position + WINDOW_MM)
        first, last = np.searchsorted(base.position_mm, ends)
        flat = rows[first:last].ravel()
        begun = time.thread_time()
        flat @ flat
        milliseconds.append(1e3 * (time.thread_time() - begun))
    return milliseconds


def _row(name: str, milliseconds: list[float], more: str = "") -> str:
    tenths = statistics.quantiles(milliseconds, n=10)
    return (
        f"{name}: median {statistics.median(milliseconds):.3f} ms, "
        f"nine in ten below {tenths[8]:.3f} ms, {len(milliseconds)} queries{more}\n"
    )


def exact(rows: int = 100_000, dimension: int = 384) -> None:
    """Exact search."""
    base, queries = simulated(rows, dimension)
    search = FaissExemplars(base, 0.0)
    for how in (False, True):
        milliseconds, _ = timed(search, queries, excluding=how)
        sys.stdout.write(_row(f"exact, {rows} x {dimension}{_HOW[how]}", milliseconds))
    sys.stdout.write(_row("the same rows read once", reading(base, queries)))


def cells(rows: int = 1_000_000, dimension: int = 192) -> None:
    """Search by cells, and its recall against the definition."""
    base, queries = simulated(rows, dimension)
    begun = time.perf_counter()
    divided = cluster(base.embeddings)
    made = time.perf_counter() - begun
    begun = time.perf_counter()
    search = FaissExemplars(
        with_index(
            embeddings=base.embeddings,
            position_mm=base.position_mm,
            subject=base.subject,
            ct=base.ct,
            cells=divided,
        ),
        0.0,
    )
    opened = time.perf_counter() - begun
    milliseconds, _ = timed(search, queries, excluding=False)
    sys.stdout.write(_row(f"cells, {rows} x {dimension}", milliseconds))
    milliseconds, found = timed(search, queries, excluding=True)
    twin = NumpyExemplars(base, 0.0)
    best = [twin.nearest(e, p, WINDOW_MM, own) for e, p, own in queries[:100]]
    hits = [abs(f - b.similarity) < 1e-5 for f, b in zip(found, best, strict=False)]
    loss = [b.similarity - f for f, b in zip(found, best, strict=False)]
    more = (
        f"; {len(divided.centroids)} cells, {PROBES} looked into: recall of the best "
        f"{np.mean(hits):.2f}, mean loss of similarity {np.mean(loss):.4f}; "
        f"cells made in {made:.0f} s, base opened in {opened:.1f} s"
    )
    sys.stdout.write(_row(f"cells, {rows} x {dimension}{_HOW[True]}", milliseconds, more))


def registration() -> None:
    """Registration between slices of different heads of the shipped knowledge base."""
    with resources.as_file(resources.files("rebrain_node") / "bundles" / "demo") as folder:
        bundle = load_bundle(folder)
    base, recipe = parse(bundle.exemplars, "exemplars"), bundle.recipe
    planes = [recipe.brain_window.apply(base.hu(row)) for row in range(base.index.entries)]
    milliseconds, before, after = [], [], []
    for fixed in range(20, 150, 5):
        near = np.abs(base.position_mm - base.position_mm[fixed]) < 3.0
        for row in np.flatnonzero(near & (base.subject != base.subject[fixed])):
            begun = time.thread_time()
            by = register(planes[row], planes[fixed], base.index.pixel_mm)
            milliseconds.append(1e3 * (time.thread_time() - begun))
            if by is None:
                continue
            image = halved(moved(planes[row], by, recipe.grid.pixel_mm, -1.0))
            brain = (planes[fixed] > -0.6) & (planes[fixed] < 0.4)
            before.append(np.abs(planes[row] - planes[fixed])[brain].mean())
            after.append(np.abs(image - planes[fixed])[brain].mean())
    nearer = int(np.sum(np.array(after) < np.array(before)))
    more = (
        f"; at most {max(milliseconds):.1f} ms; {len(after)} registered, {nearer} nearer inside "
        f"the brain: mean difference {np.mean(before):.3f} before, {np.mean(after):.3f} after, of 2"
    )
    sys.stdout.write(_row("registration", milliseconds, more))


if __name__ == "__main__":
    faiss.omp_set_num_threads(1)
    for name in sys.argv[1:] or ("exact", "cells"):
        {"exact": exact, "cells": cells, "registration": registration}[name]()
