"""The measurement of the gates: its arithmetic and the conditions of the scan."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.evaluate.input_checks import (
    CLASSES,
    IN_DOMAIN,
    DetectionRate,
    SeriesResult,
    detection_rates,
    table,
)
from trainer.simulate.conditions import motion, noise, scanner_noise
from trainer.simulate.non_head import OUTSIDE


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
