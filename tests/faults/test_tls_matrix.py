"""TLS in and out against openssl, dcmtk and Orthanc, case by case."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import tls_matrix
from tests.faults.tls_matrix import CASES, Bench, Case, agrees


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with tls_matrix.bench(tmp_path_factory.mktemp("tls")) as made:
        yield made


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.direction}-{case.peer}-{case.what}".replace(" ", "-")
)
def test_a_connection_ends_as_it_must(bench: Bench, case: Case) -> None:
    if not case.runs_here:
        pytest.skip(f"{case.peer} is not installed")
    seen = case.seen(bench)
    assert agrees(case, seen), seen


def test_every_case_is_asked_once_and_there_are_refusals_and_admissions_both_ways() -> None:
    named = [(case.direction, case.peer, case.what) for case in CASES]
    assert len(set(named)) == len(named) >= 30
    for direction in ("in", "out"):
        ends = {case.expected == "accepted" for case in CASES if case.direction == direction}
        assert ends == {True, False}
