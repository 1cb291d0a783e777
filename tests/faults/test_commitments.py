"""Every answer to storage commitment, over either association, and the state that follows."""

from __future__ import annotations

import pytest

from tests.faults.commitments import CASES, CONFIRMED, Case, outcome


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case.answer} {'+'.join(case.over)}" for case in CASES]
)
def test_an_answer_decides_and_in_the_end_every_object_is_confirmed(case: Case) -> None:
    found = outcome(case)
    assert found.replies == case.replies
    assert (found.states, found.series) == (case.states, case.series)
    assert found.unknown == case.unknown
    assert found.requests == case.requests
    assert found.final == CONFIRMED
