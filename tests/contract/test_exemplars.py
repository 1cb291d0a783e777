"""Every search for exemplars through the same test, and against its definition in numpy."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from rebrain_node.retrieval.knowledge_base import Cells
from rebrain_node.retrieval.search import PROBES, FaissExemplars, cluster
from tests.support.knowledge_bases import (
    NumpyExemplars,
    random_base,
    subject_hash,
    verified,
    with_index,
)

BASE = verified(random_base(entries=400, subjects=5))


def _in_few_cells(base, tau):
    """Cells as in a large base; here every cell is looked into, so that nothing is missed."""
    cells = cluster(base.embeddings[:])
    few = replace(cells, centroids=cells.centroids[:PROBES], of_row=cells.of_row % PROBES)
    return FaissExemplars(verified(replace(base, cells=few)), tau)


SEARCHES = {"numpy": NumpyExemplars, "exact": FaissExemplars, "cells": _in_few_cells}


@pytest.fixture(scope="module", params=sorted(SEARCHES))
def exemplars(request):
    return SEARCHES[request.param](BASE, 0.5)


def _query(rng):
    query = rng.standard_normal(BASE.index.dimension, dtype=np.float32)
    return query / np.linalg.norm(query)


def test_the_answer_is_the_one_of_the_definition(exemplars):
    rng, twin = np.random.default_rng(1), NumpyExemplars(BASE, 0.5)
    for _ in range(200):
        query, position, window = _query(rng), rng.uniform(-80, 130), rng.uniform(1, 20)
        excluded = subject_hash(int(rng.integers(6))) if rng.random() < 0.5 else None
        found = exemplars.nearest(query, position, window, excluded)
        expected = twin.nearest(query, position, window, excluded)
        assert (found is None) == (expected is None)
        if found is not None:
            assert found.key == expected.key
            assert found.similarity == pytest.approx(expected.similarity, abs=1e-6)
            assert found.position_mm == expected.position_mm
            assert np.array_equal(found.hu, expected.hu)


def test_a_slice_finds_itself_and_never_one_of_an_excluded_subject(exemplars):
    for row in range(0, 400, 7):
        query, position = BASE.embeddings[row], float(BASE.position_mm[row])
        own = BASE.subject[row].decode()
        assert exemplars.nearest(query, position, 6.0).key == BASE.key(row)
        other = exemplars.nearest(query, position, 30.0, own)
        assert not other.key.startswith(own)


def test_the_position_comes_first(exemplars):
    row = 200
    query, position = BASE.embeddings[row], float(BASE.position_mm[row])
    far = exemplars.nearest(query, position + 20.0, 6.0)
    assert far.key != BASE.key(row)
    assert abs(far.position_mm - (position + 20.0)) <= 6.0
    edge = exemplars.nearest(query, position + 6.0, 6.0)
    assert edge.similarity == pytest.approx(1.0, abs=1e-5)


def test_nothing_in_the_window_is_nothing_and_never_the_nearest_beyond_it(exemplars):
    query = BASE.embeddings[0]
    assert exemplars.nearest(query, 300.0, 6.0) is None
    assert exemplars.nearest(query, -300.0, 6.0) is None
    assert exemplars.nearest(query, float(BASE.position_mm[0]) - 1e-6, 0.0) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_query_that_is_not_finite_finds_nothing(exemplars, value):
    query = BASE.embeddings[0].copy()
    query[3] = value
    assert exemplars.nearest(query, 0.0, 50.0) is None
    assert exemplars.nearest(BASE.embeddings[0], float(value), 50.0) is None


@pytest.mark.parametrize("search", [NumpyExemplars, FaissExemplars])
def test_where_all_candidates_are_of_the_one_who_asks_nothing_is_found(search):
    one = subject_hash(1)
    base = with_index(
        embeddings=BASE.embeddings[:50],
        position_mm=BASE.position_mm[:50],
        subject=np.array([one.encode()] * 50, dtype="S32"),
        ct=BASE.ct[:50],
    )
    query, position = BASE.embeddings[9], float(BASE.position_mm[9])
    assert search(base, 0.5).nearest(query, position, 50.0) is not None
    assert search(base, 0.5).nearest(query, position, 50.0, one) is None


def test_where_the_cells_hold_no_candidate_the_range_is_compared_row_by_row():
    base = verified(random_base(entries=400, dimension=PROBES + 1, subjects=5))
    centroids = np.eye(PROBES + 1, dtype=np.float32)
    # every row lies in the last cell, and the query looks into the others
    of_row = np.full(base.index.entries, PROBES, dtype=np.int32)
    cells = Cells(centroids=centroids, of_row=of_row)
    found = FaissExemplars(verified(replace(base, cells=cells)), 0.5)
    query = centroids[:PROBES].sum(axis=0) / np.sqrt(np.float32(PROBES))
    for excluded in (None, subject_hash(1)):
        expected = NumpyExemplars(base, 0.5).nearest(query, 20.0, 6.0, excluded)
        assert found.nearest(query, 20.0, 6.0, excluded).key == expected.key


_BOTH = """
import numpy as np
from rebrain_node.retrieval.search import FaissExemplars, cluster
from tests.support.knowledge_bases import random_base, verified
from dataclasses import replace
base = random_base(entries=400)
base = verified(replace(base, cells=cluster(base.embeddings)))
found = FaissExemplars(base, 0.5).nearest(base.embeddings[7], float(base.position_mm[7]), 6.0)
assert found.key == base.key(7), found.key
"""


@pytest.mark.parametrize("first", ["import faiss, SimpleITK", "import SimpleITK, faiss"])
def test_cells_are_made_and_searched_in_whichever_order_the_libraries_are_imported(first):
    """With faiss first, Kmeans and the serialisation of faiss fail (findings)."""
    run = subprocess.run(
        [sys.executable, "-c", first + _BOTH], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
