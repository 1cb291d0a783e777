"""Every status of a C-STORE response over a socket, and the state that follows."""

from __future__ import annotations

from tests.faults.statuses import CASES, answered


def test_every_status_of_the_standard_has_its_state_and_its_end() -> None:
    found = answered()
    assert found.states == {case.status: case.state for case in CASES}
    assert found.final == {case.status: case.final for case in CASES}
