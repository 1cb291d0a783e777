"""A destination that was down for 14 days gets everything once, in order."""

from __future__ import annotations

from tests.faults.outage import RESTARTS, outage


def test_after_an_outage_everything_arrives_once_and_in_the_order_of_its_study() -> None:
    result = outage(studies=30, seed=7)
    assert result.attempts_while_down > 0
    assert result.starts == RESTARTS
    assert result.exactly_once
    assert result.in_study_order
    assert set(result.states) == {"published"}
