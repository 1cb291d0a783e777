"""A study is complete when it has been quiet, or waited for, long enough; on no other clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebrain_node.domain.ledger import StudyInReception
from rebrain_node.reception.completeness import QuietPeriodTracker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def study(last: int, uid: str = "1.2") -> StudyInReception:
    return StudyInReception(study_instance_uid=uid, instance_count=last, last_ledger_id=last)


def settling(clock: Clock) -> QuietPeriodTracker:
    return QuietPeriodTracker(quiet_period_s=30, maximum_wait_s=100, clock=clock)


def test_a_quiet_study_is_complete_and_says_why() -> None:
    clock = Clock()
    watch = settling(clock)
    assert watch.settled([study(1)]) == ()
    clock.now += 29.9
    assert watch.settled([study(1)]) == ()
    clock.now += 0.1
    ((found, verdict),) = watch.settled([study(1)])
    assert found == study(1)
    assert verdict.completeness == "UNVERIFIED"
    assert verdict.details == {"reason": "QUIET", "quiet_s": 30.0, "waited_s": 30.0}


def test_news_begin_the_quiet_period_again_but_not_for_ever() -> None:
    clock = Clock()
    watch = settling(clock)
    for number in range(10):
        assert watch.settled([study(number)]) == ()
        clock.now += 10
    ((_, verdict),) = watch.settled([study(11)])
    assert (verdict.reason, verdict.quiet_s, verdict.waited_s) == ("MAXIMUM-WAIT", 0, 100)


def test_a_restart_begins_the_quiet_period_again() -> None:
    clock = Clock()
    settling(clock).settled([study(1)])
    clock.now += 60
    assert settling(clock).settled([study(1)]) == ()


def test_studies_do_not_wait_for_each_other() -> None:
    clock = Clock()
    watch = settling(clock)
    watch.settled([study(1, "1.1"), study(2, "1.2")])
    clock.now += 20
    watch.settled([study(1, "1.1"), study(3, "1.2")])
    clock.now += 10
    ((found, _),) = watch.settled([study(1, "1.1"), study(3, "1.2")])
    assert found.study_instance_uid == "1.1"


def test_a_late_instance_begins_anew() -> None:
    clock = Clock()
    watch = settling(clock)
    watch.settled([study(1)])
    clock.now += 30
    assert len(watch.settled([study(1)])) == 1
    watch.settled([])  # complete, so no longer in reception
    clock.now += 1000
    assert watch.settled([study(2)]) == ()


@pytest.mark.hazard("H18")
@given(st.lists(st.tuples(st.floats(0.1, 40), st.booleans()), min_size=1, max_size=60))
def test_complete_means_quiet_or_waited_for_long_enough(steps: list[tuple[float, bool]]) -> None:
    clock = Clock()
    watch = settling(clock)
    last, news_s, begun_s = 1, clock.now, clock.now
    watch.settled([study(last)])
    for pause_s, arrives in steps:
        clock.now += pause_s
        if arrives:
            last, news_s = last + 1, clock.now
        expected = clock.now - news_s >= 30 or clock.now - begun_s >= 100
        assert bool(watch.settled([study(last)])) == expected
