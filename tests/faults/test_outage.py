"""A destination that was down for 14 days gets everything once, in order, and confirms it."""

from __future__ import annotations

import pytest

from rebrain_node.domain.delivery import Confirmation
from tests.faults.outage import RESTARTS, outage


@pytest.mark.parametrize(
    ("confirmation", "studies", "state"),
    [
        ("none", 20, "published, not confirmed"),
        ("commitment", 8, "published, confirmed"),
    ],
)
def test_after_an_outage_everything_arrives_once_and_in_the_order_of_its_study(
    confirmation: Confirmation, studies: int, state: str
) -> None:
    result = outage(studies, seed=7, confirmation=confirmation)
    assert result.attempts_while_down > 0
    assert result.starts == RESTARTS
    assert result.exactly_once
    assert result.in_study_order
    assert set(result.states) == {state}
