"""The circuit breaker opens after five failures, tries rarely, closes at the first success."""

from __future__ import annotations

from rebrain_node.worker.breaker import LONGEST_TRIAL_PAUSE_S, OPENS_AFTER
from tests.faults.breaker import MOST_IN_14_DAYS, SETS, attempts_in, down


def test_a_destination_that_is_down_is_tried_rarely_and_gets_all_at_its_return() -> None:
    result = down(hours=2)
    assert result.opened_after == result.rows == OPENS_AFTER
    assert result.attempts < 45
    assert 0 <= result.late_s <= LONGEST_TRIAL_PAUSE_S
    assert result.closed["failures"] == result.attempts
    assert abs(float(str(result.closed["seconds"])) - 7200) <= LONGEST_TRIAL_PAUSE_S
    assert result.delivered_at_once == SETS


def test_in_14_days_there_are_no_more_attempts_than_the_bound() -> None:
    assert 0.6 * MOST_IN_14_DAYS < attempts_in(14) <= MOST_IN_14_DAYS
