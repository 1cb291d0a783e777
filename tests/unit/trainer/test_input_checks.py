"""The measurement of the input checks: its arithmetic, and the conditions that it simulates."""

from __future__ import annotations

import numpy as np
import pytest

from rebrain_node.limits_file import shipped_limits
from rebrain_node.steps.check import check_volume
from tests.support import phantom_conditions as conditions
from tests.support.phantoms import Ellipsoid
from trainer.evaluate.input_checks import (
    CLASSES,
    IN_DOMAIN,
    DetectionRate,
    SeriesResult,
    detection_rates,
    table,
)
from trainer.simulate.conditions import OUTSIDE, motion, noise, scanner_noise


@pytest.mark.parametrize(
    ("n", "hits", "low", "high"),
    [(23, 23, 0.857, 1.0), (100, 95, 0.888, 0.978), (20, 0, 0.0, 0.161)],
)
def test_the_interval_is_wilson_s(n, hits, low, high):
    assert DetectionRate("X", n, hits).interval == pytest.approx((low, high), abs=0.001)


def test_a_class_is_caught_by_its_own_code_only_and_a_sound_head_by_any():
    found = [
        SeriesResult("a", "METAL", ("METAL", "NOISE")),
        SeriesResult("a", "NOISE", ("MOTION",)),
        SeriesResult("a", IN_DOMAIN, ()),
        SeriesResult("b", IN_DOMAIN, ("OOD",)),
    ]
    counted = {score.code: (score.n, score.hits) for score in detection_rates(found)}
    assert counted == {IN_DOMAIN: (2, 1), "METAL": (1, 1), "NOISE": (1, 0)}
    assert "| METAL | 1 | 1 | 100.0 % |" in table(detection_rates(found))


def test_the_classes_are_those_that_the_node_names():
    named = {"AGE", "CRANIECTOMY", "CONTRAST", "METAL", "NOISE", "MOTION"}
    assert set(CLASSES) == named | OUTSIDE.keys()


def test_noise_has_the_level_asked_for_and_motion_moves():
    still = np.full((12, 64, 64), -1000.0, np.float32)
    still[:, 16:48, 16:48] = 40.0
    assert 17.0 < (noise(still, 0.9, np.random.default_rng(1)) - still).std() < 46.0
    assert (scanner_noise(still, np.random.default_rng(1)) - still)[:, :8].std() < 9.0
    moved = motion(still, 0.9, np.random.default_rng(2))
    assert np.array_equal(moved[:3], still[:3])
    assert np.abs(moved - still).max() > 300.0


SINUS = Ellipsoid((0.0, -66.0, -42.0), (14.0, 14.0, 14.0), -1000.0)


@pytest.mark.hazard("H13")
@pytest.mark.parametrize("name", OUTSIDE)
def test_each_class_is_caught_by_one_of_its_codes(name):
    places = tuple(-52.0 + 6.0 * k for k in range(24))
    head = conditions.changed(parts=(SINUS,), slice_distances_mm=places)
    for seed in range(3):
        changed = OUTSIDE[name].change(head, np.random.default_rng(seed))
        found = {finding.code for finding in check_volume(changed, shipped_limits())}
        assert found & OUTSIDE[name].codes, (seed, found)
        assert np.isfinite(changed.hu).all()
        assert changed.hu.shape == head.hu.shape
