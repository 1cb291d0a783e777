"""A study is complete when it has been quiet, or waited for, long enough; on no other clock."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebrain_node.domain.ledger import ListeningTime, StudyInReception
from rebrain_node.errors import StoreUnavailableError
from rebrain_node.reception.completeness import QuietPeriodTracker
from rebrain_node.reception.listening import LONGEST_BEAT_S, count_listening


class Watched:
    """A tracker and the clock of the receiver, which a poll reads every 0.1 s."""

    def __init__(self) -> None:
        self.now = self.began = 1000.0
        self.run = 1
        self.restart_worker()

    def restart_worker(self) -> None:
        self.tracker = QuietPeriodTracker(quiet_period_s=30, maximum_wait_s=100, resume_wait_s=300)

    def restart_receiver(self) -> None:
        self.run, self.began = self.run + 1, self.now

    def poll(self, *studies: StudyInReception):
        time = ListeningTime(run=self.run, run_began_s=self.began, listened_s=self.now)
        return self.tracker.settled(studies, time)

    def listen(self, seconds: float, *studies: StudyInReception):
        """Let the receiver listen so long; what was settled by the end."""
        self.now += 0.1
        found = self.poll(*studies)
        self.now += seconds - 0.1
        return self.poll(*studies) or found


def study(last: int, uid: str = "1.2", run: int = 1) -> StudyInReception:
    return StudyInReception(
        study_instance_uid=uid, instance_count=last, last_ledger_id=last, last_run=run
    )


def test_a_quiet_study_is_complete_and_says_why() -> None:
    watched = Watched()
    assert watched.poll(study(1)) == ()
    assert watched.listen(30.0, study(1)) == ()
    ((found, verdict),) = watched.listen(0.4, study(1))
    assert found == study(1)
    assert verdict.details == {"reason": "QUIET", "quiet_s": 30.3, "waited_s": 30.4}


def test_news_begin_the_quiet_period_again_but_not_for_ever() -> None:
    watched = Watched()
    for number in range(10):
        assert watched.poll(study(number)) == ()
        watched.now += 10
    ((_, verdict),) = watched.poll(study(11))
    assert (verdict.reason, verdict.quiet_s, verdict.waited_s) == ("MAXIMUM-WAIT", 0, 100)


def test_a_restart_of_the_worker_begins_the_quiet_period_again() -> None:
    watched = Watched()
    watched.poll(study(1))
    watched.listen(20, study(1))
    watched.restart_worker()
    watched.poll(study(1))
    assert watched.listen(20, study(1)) == ()


@pytest.mark.hazard("H18")
def test_the_time_in_which_the_receiver_does_not_listen_is_no_silence() -> None:
    watched = Watched()
    watched.poll(study(1))
    watched.listen(1, study(1))
    for _ in range(1000):  # polls of the worker, however long: the clock of the receiver stands
        assert watched.poll(study(1)) == ()


@pytest.mark.hazard("H18")
def test_a_study_in_reception_when_the_receiver_stopped_waits_for_its_sender() -> None:
    watched = Watched()
    watched.poll(study(1))
    watched.listen(29, study(1))
    watched.restart_receiver()
    assert watched.listen(299.9, study(1)) == ()  # neither quiet nor waited for too long
    ((_, verdict),) = watched.listen(0.2, study(1))
    assert verdict.reason == "NOT-RESUMED"
    assert verdict.quiet_s == pytest.approx(300.1)


def test_a_study_whose_sender_resumed_is_judged_by_the_quiet_period_again() -> None:
    watched = Watched()
    watched.poll(study(1))
    watched.restart_receiver()
    watched.listen(100, study(1))
    assert watched.poll(study(2, run=2))[0][1].reason == "MAXIMUM-WAIT"
    watched.restart_worker()
    watched.poll(study(2, run=2))
    assert watched.listen(30, study(2, run=2)) == ()
    assert watched.listen(0.2, study(2, run=2))[0][1].reason == "QUIET"


def test_an_interrupted_study_waits_although_the_worker_was_restarted_too() -> None:
    watched = Watched()
    watched.restart_receiver()
    watched.poll(study(1, run=1))
    assert watched.listen(200, study(1, run=1)) == ()
    watched.restart_worker()
    watched.poll(study(1, run=1))
    assert watched.listen(300, study(1, run=1)) == ()
    assert watched.listen(0.2, study(1, run=1))[0][1].reason == "NOT-RESUMED"


def test_studies_do_not_wait_for_each_other() -> None:
    watched = Watched()
    watched.poll(study(1, "1.1"), study(2, "1.2"))
    watched.listen(20, study(1, "1.1"), study(3, "1.2"))
    ((found, _),) = watched.listen(10.2, study(1, "1.1"), study(3, "1.2"))
    assert found.study_instance_uid == "1.1"


def test_a_late_instance_begins_anew() -> None:
    watched = Watched()
    watched.poll(study(1))
    assert len(watched.listen(30.2, study(1))) == 1
    watched.poll()  # complete, so no longer in reception
    watched.now += 1000
    assert watched.poll(study(2)) == ()
    assert watched.listen(29, study(2)) == ()


@pytest.mark.hazard("H18")
@given(st.lists(st.tuples(st.floats(0.1, 40), st.booleans()), min_size=1, max_size=60))
def test_complete_means_quiet_or_waited_for_long_enough(steps: list[tuple[float, bool]]) -> None:
    watched = Watched()
    last, news_s, begun_s = 1, watched.now, watched.now
    watched.poll(study(last))
    for pause_s, arrives in steps:
        watched.now += pause_s
        if arrives:
            last, news_s = last + 1, watched.now
        if watched.poll(study(last)):
            assert watched.now - news_s >= 30 or watched.now - begun_s >= 100
        else:
            assert watched.now - begun_s < 100


class Counter:
    def __init__(self, stop: threading.Event, beats: int) -> None:
        self.counted: list[float] = []
        self._stop, self._beats = stop, beats

    def begin(self) -> None:
        pass

    def add(self, seconds: float) -> None:
        self._beats -= 1
        if self._beats == 0:
            self._stop.set()
        if self._beats == 1:
            raise StoreUnavailableError("locked")
        self.counted.append(seconds)


def test_listening_is_counted_and_a_database_that_is_down_ends_nothing() -> None:
    stop = threading.Event()
    counter = Counter(stop, beats=4)
    count_listening(counter, lambda: True, stop, beat_s=0.01)
    assert len(counter.counted) == 3
    assert all(0.0 < seconds <= LONGEST_BEAT_S for seconds in counter.counted)


def test_nothing_is_counted_while_nothing_is_in_reception() -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    counter = Counter(stop, beats=99)
    count_listening(counter, lambda: False, stop, beat_s=0.01)
    assert counter.counted == []
