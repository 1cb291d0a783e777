"""When a process counts as silent: its count stands still while another one watches."""

from rebrain_node.domain.executor import LONGEST_LOOK_S, SILENT_S, ExecutorRecord, SilenceTracker


def record(beats, token="a", **changes):
    return ExecutorRecord(
        machine="m", process="worker-1", token=token, run="r", pid=1, beats=beats, silent_s=0.0,
        **changes,
    )  # fmt: skip


def watched(tracker, beats_of, until_s, pause_s=2.0):
    """Look every ``pause_s``; when the process was first found silent, s, or None."""
    now_s = 0.0
    while now_s <= until_s:
        if tracker.silent([record(beats_of(now_s))], now_s):
            return now_s
        now_s += pause_s
    return None


def test_a_process_whose_count_grows_is_never_silent():
    assert watched(SilenceTracker(), lambda now_s: int(now_s / 14.0), 300.0) is None


def test_a_process_whose_count_stands_still_is_silent_after_15_s_and_not_before():
    assert watched(SilenceTracker(), lambda now_s: min(int(now_s), 40), 300.0) == 40.0 + 16.0
    assert SILENT_S == 15.0


def test_who_stood_still_itself_begins_to_watch_anew():
    """After a pause of the watcher, or of the database, nobody is dead at once."""
    tracker = SilenceTracker()
    assert tracker.silent([record(5)], 0.0) == []
    late_s = 100.0 + LONGEST_LOOK_S
    assert tracker.silent([record(5)], late_s) == []
    assert watched(tracker, lambda _: 5, 14.0) is None


def test_the_clock_of_the_database_decides_nothing():
    tracker = SilenceTracker()
    far_behind = ExecutorRecord(
        machine="m", process="p", token="t", run="r", pid=1, beats=1, silent_s=3600.0
    )
    assert tracker.silent([far_behind], 0.0) == []
    assert far_behind.state == "no answer"  # shown, and not acted upon


def test_what_was_taken_over_is_not_found_again():
    tracker = SilenceTracker()
    for now_s in range(0, 60, 2):
        assert tracker.silent([record(5, is_fenced=True)], float(now_s)) == []
