"""Seventeen destinations that misbehave: none loses an object, none holds up the next study."""

from __future__ import annotations

import pytest

from tests.faults.destinations import CASES, Case, outcome


def test_there_are_seventeen() -> None:
    assert len({case.fault for case in CASES}) == len(CASES) == 17


@pytest.mark.parametrize("case", CASES, ids=[case.fault for case in CASES])
def test_the_set_ends_visibly_the_next_study_goes_on_and_a_repair_brings_all(case: Case) -> None:
    found = outcome(case)
    assert found.states == case.states
    assert (found.series, found.other) == (case.series, case.other)
    assert found.repaired == case.repaired
    assert (found.reason is None) == (set(found.states) == {"taken"})
