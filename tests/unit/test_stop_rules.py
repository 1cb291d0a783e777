"""The statistics of the stop rules and of the acceptance report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from scipy.stats import binomtest

from rebrain_node.app.compose import stop_limits
from rebrain_node.domain.acceptance import AcceptanceLimits, shadow_times, wilson
from rebrain_node.domain.stop_rules import (
    ResultMeasures,
    SeriesOutcome,
    StopLimits,
    drift_of,
    read_rule,
)
from rebrain_node.settings import Settings, StopSettings

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("successes", "trials"), [(0, 7), (3, 10), (20, 20), (180, 200)])
def test_the_interval_of_a_share_is_that_of_scipy(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_no_trial_says_nothing_about_a_share():
    assert wilson(0, 0) == (0.0, 1.0)


def outcomes(*uncertainties, limit=0.35):
    return [
        SeriesOutcome(sequence=k, measures=ResultMeasures(uncertainty=u, uncertainty_limit=limit))
        for k, u in enumerate(uncertainties)
    ]


def test_only_the_newest_results_count():
    reading = read_rule(
        "uncertainty",
        outcomes(*[0.9] * 20, *[0.1] * 5),
        StopLimits(results=5, least_results=5),
    )
    assert (reading.value, reading.results, reading.exceeded) == (pytest.approx(0.1), 5, False)


def test_the_setting_goes_before_the_limit_of_the_bundle():
    limits = StopLimits(results=5, least_results=1, uncertainty=0.6)
    assert not read_rule("uncertainty", outcomes(0.5), limits).exceeded
    assert read_rule("uncertainty", outcomes(0.7), limits).exceeded


def test_without_a_limit_the_uncertainty_stops_nothing():
    limits = StopLimits(results=5, least_results=1)
    reading = read_rule("uncertainty", outcomes(0.9, limit=None), limits)
    assert (reading.limit, reading.exceeded) == (None, False)
    assert "without a limit" in reading.sentence


def test_results_of_a_bundle_with_another_limit_do_not_count():
    limits = StopLimits(results=9, least_results=1)
    both = [*outcomes(0.9, 0.9), *outcomes(0.2, limit=0.3)]
    assert read_rule("uncertainty", both, limits).results == 1


def test_before_any_result_no_rule_is_exceeded():
    limits = StopLimits(least_results=1)
    for rule in limits.rules:
        reading = read_rule(rule, [], limits)
        assert (reading.value, reading.exceeded) == (None, False)
        assert reading.sentence


def test_the_measure_farthest_beyond_its_limit_is_named():
    measures = ResultMeasures(
        brain_hu=43.0, expected_hu=34.0, deviations={"noise": -2.0, "fat": 3.3}
    )
    first, *others = drift_of([measures], StopLimits())
    assert (first.name, first.value) == ("fat", 3.3)
    assert [one.name for one in others] == ["level of brain tissue", "noise"]


def test_a_measure_of_too_few_results_does_not_hide_another():
    measures = [
        ResultMeasures(brain_hu=50.0, expected_hu=34.0, deviations={} if k else {"noise": 40.0})
        for k in range(3)
    ]
    made = [SeriesOutcome(sequence=k, measures=one) for k, one in enumerate(measures)]
    reading = read_rule("drift", made, StopLimits(results=3, least_results=3))
    assert reading.exceeded
    assert reading.setting == "stop.drift_hu"


def test_measures_come_back_from_the_log_and_other_keys_are_left_out():
    made = ResultMeasures(uncertainty=0.2, deviations={"noise": 1.0})
    assert ResultMeasures.from_json({**made.to_json(), "set": 1, "new": 2}) == made


def test_times_of_shadow_mode_are_cut_to_the_period():
    day = timedelta(days=1)
    changes = [(START, True), (START + 2 * day, False), (START + 5 * day, True)]
    found = shadow_times(changes, START + day, START + 6 * day)
    assert found == ((START + day, START + 2 * day), (START + 5 * day, START + 6 * day))
    assert shadow_times(changes, START + 3 * day, START + 4 * day) == ()


def test_the_defaults_of_the_rules_are_those_of_the_settings():
    assert stop_limits(Settings()) == StopLimits()
    assert AcceptanceLimits(**Settings().acceptance.model_dump()) == AcceptanceLimits()


def test_a_rule_that_could_never_stop_delivery_is_refused_with_both_settings():
    with pytest.raises(ValueError, match=r"stop\.results.*lower least_results, or raise results"):
        StopSettings(results=5, least_results=6)
