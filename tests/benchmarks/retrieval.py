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

from rebrain_node.benchmark.retrieval import WINDOW_MM, base_of, reading, simulated, timed
from rebrain_node.model.bundle import load_bundle
from rebrain_node.model.registration import moved, register
from rebrain_node.model.resample import halved
from rebrain_node.retrieval.knowledge_base import parse
from rebrain_node.retrieval.search import PROBES, FaissExemplars, cluster
from tests.support.knowledge_bases import NumpyExemplars

_HOW = {False: "", True: ", own subject excluded"}


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
        base_of(base.embeddings, base.position_mm, base.subject, divided),
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
