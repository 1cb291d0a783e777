"""How slices lie: thousands of series with one slice deleted, repeated or shifted."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rebrain_node.domain.arrangement import arrange, judge_arrangement
from rebrain_node.domain.findings import unlike
from rebrain_node.limits_file import shipped_limits

LIMITS = shipped_limits().geometry
COUNT = 1000


def random_series(rng):
    """Positions (n, 3), normal and thickness of an oblique, tilted series of one or two groups."""
    normal = rng.normal(size=3)
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, rng.normal(size=3))
    across /= np.linalg.norm(across)
    tilt = np.radians(rng.uniform(-29, 29))
    table = np.cos(tilt) * normal + np.sin(tilt) * across
    thickness = np.full(int(rng.integers(12, 24)), float(rng.choice([2.5, 3, 4, 5])))
    steps = np.diff(np.arange(len(thickness)) * thickness[0] * rng.choice([1.0, 1.2, 0.8]))
    if rng.random() < 0.5:
        second = np.full(int(rng.integers(6, 16)), float(thickness[0]) + float(rng.choice([2, 3])))
        junction = (thickness[0] + second[0]) / 2 - rng.choice([0.0, 0.6, 1.1])
        steps = np.concatenate([steps, [junction], np.full(len(second) - 1, second[0])])
        thickness = np.concatenate([thickness, second])
    along = np.concatenate([[0.0], np.cumsum(steps)]) / np.cos(tilt)
    positions = rng.uniform(-200, 200, 3) + along[:, None] * table
    return np.round(positions, 3), normal, thickness


def codes(positions, normal, thickness, rng):
    order = rng.permutation(len(positions))
    arrangement = arrange(positions[order], normal, [float(t) for t in thickness[order]])
    return {finding.code for finding in judge_arrangement(arrangement, LIMITS)}


def deleted(positions, thickness, normal, rng):
    place = int(rng.integers(1, len(positions) - 1))
    return np.delete(positions, place, axis=0), np.delete(thickness, place)


def repeated(positions, thickness, normal, rng):
    place = int(rng.integers(len(positions)))
    return np.append(positions, positions[place : place + 1], axis=0), np.append(
        thickness, thickness[place]
    )


def shifted(positions, thickness, normal, rng):
    place = int(rng.integers(len(positions)))
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    moved = positions.copy()
    moved[place] += direction * rng.uniform(0.8, 20)
    return moved, thickness


@pytest.mark.hazard("H5")
@pytest.mark.parametrize("damage", [deleted, repeated, shifted])
def test_every_deleted_repeated_or_shifted_slice_is_found(damage):
    missed = []
    for seed in range(COUNT):
        rng = np.random.default_rng([seed, len(damage.__name__)])
        positions, normal, thickness = random_series(rng)
        damaged = damage(positions, thickness, normal, rng)
        if not codes(damaged[0], normal, damaged[1], rng):
            missed.append(seed)
    assert missed == []


@pytest.mark.hazard("H5")
def test_no_sound_series_is_blamed_whatever_its_order_tilt_and_groups():
    blamed = []
    for seed in range(COUNT):
        rng = np.random.default_rng([seed, 99])
        if codes(*random_series(rng), rng):
            blamed.append(seed)
    assert blamed == []


@pytest.mark.hazard("H5")
def test_a_missing_slice_is_named_a_gap_and_a_repeated_one_a_duplicate():
    rng = np.random.default_rng(5)
    positions, normal, thickness = random_series(rng)
    gap = np.delete(positions, 4, axis=0), np.delete(thickness, 4)
    assert codes(gap[0], normal, gap[1], rng) == {"GEOM-GAP"}
    twice = repeated(positions, thickness, normal, rng)
    assert codes(twice[0], normal, twice[1], rng) == {"GEOM-DUPLICATE"}


def stack(steps, thickness, tilt_deg=0.0):
    along = np.concatenate([[0.0], np.cumsum(steps)])
    shear = along * np.tan(np.radians(tilt_deg))
    positions = np.stack([np.zeros_like(along), shear, along], axis=1)
    return arrange(positions, np.array([0.0, 0.0, 1.0]), thickness)


@pytest.mark.hazard("H5")
def test_fourteen_slices_of_4_mm_then_14_of_7_with_an_overlap_and_tilt_are_accepted():
    steps = [4.0] * 13 + [4.4] + [7.0] * 13
    arrangement = stack(steps, [4.0] * 14 + [7.0] * 14, tilt_deg=18.0)
    assert judge_arrangement(arrangement, LIMITS) == ()
    assert arrangement.tilt_deg == pytest.approx(18.0, abs=0.01)


@pytest.mark.hazard("H5")
def test_a_missing_slice_at_the_junction_of_two_groups_is_a_gap():
    steps = [4.0] * 12 + [8.4] + [7.0] * 13
    findings = judge_arrangement(stack(steps, [4.0] * 13 + [7.0] * 14), LIMITS)
    assert [finding.code for finding in findings] == ["GEOM-GAP"]
    assert "8.40 mm lie between slices 13 and 14" in findings[0].sentence


@pytest.mark.hazard("H5")
@pytest.mark.parametrize(
    ("tilt_deg", "codes_found"), [(29.9, []), (-29.9, []), (31.0, ["GEOM-TILT"])]
)
def test_a_tilt_is_refused_beyond_the_limit_only(tilt_deg, codes_found):
    findings = judge_arrangement(stack([5.0] * 20, [5.0] * 21, tilt_deg), LIMITS)
    assert [finding.code for finding in findings] == codes_found


def test_without_a_declared_thickness_every_second_slice_missing_is_still_a_gap():
    findings = judge_arrangement(stack([5.0] * 8 + [10.0] * 6, [None] * 15), LIMITS)
    assert "GEOM-GAP" in {finding.code for finding in findings}


def noisy(values, spread, seed=1):
    return [
        float(v + e)
        for v, e in zip(
            values, np.random.default_rng(seed).uniform(-spread, spread, len(values)), strict=True
        )
    ]


@pytest.mark.hazard("H5")
@pytest.mark.parametrize(
    ("steps", "thickness"),
    [
        ([4.998, 5.002] * 12, [5.002, 4.998] * 12 + [5.0]),
        (noisy([5.0] * 24, 0.07), noisy([5.0] * 25, 0.05)),
        ([4.9, 5.0, 4.9, 4.9] * 6, [4.92] * 25),
    ],
    ids=["4.998 and 5.002", "noise", "rounded to 0.1 mm"],
)
def test_noise_in_distances_and_thickness_is_no_fault(steps, thickness):
    assert judge_arrangement(stack(steps, thickness), LIMITS) == ()


@pytest.mark.hazard("H5")
def test_two_slices_closer_than_the_noise_of_positions_are_one_place():
    findings = judge_arrangement(stack([5.0] * 9 + [0.12] + [5.0] * 9, [5.0] * 20), LIMITS)
    assert [finding.code for finding in findings] == ["GEOM-DUPLICATE"]
    assert "closer than 0.15 mm" in findings[0].sentence


UNEVEN = {
    "a step of 5.3 among 5": [5.0] * 9 + [5.3] + [5.0] * 9,
    "from 5 to 5.4": [5.0] * 9 + [5.4] * 9,
    "from 5.4 to 5": [5.4] * 9 + [5.0] * 9,
    "one slice to the side of its place": [5.0] * 8 + [4.7, 5.3] + [5.0] * 8,
    "5 between two of 7": [5.0] * 6 + [7.0, 5.0, 7.0] + [5.0] * 6,
}


@pytest.mark.hazard("H5")
@pytest.mark.parametrize("series", UNEVEN)
def test_no_sentence_of_an_uneven_series_is_untrue(series):
    steps = UNEVEN[series]
    findings = judge_arrangement(stack(steps, [5.0] * (len(steps) + 1)), LIMITS)
    assert {finding.code for finding in findings} == {"GEOM-SPACING"}
    for finding in findings:
        assert "missing" not in finding.sentence
        shown = re.findall(r"[0-9]+\.[0-9]+ mm", finding.sentence)
        assert shown[0] != shown[1]
        assert "geometry.step_mm" in finding.sentence
        assert any(shown[0] == f"{step:.2f} mm" for step in steps)


@pytest.mark.hazard("H5")
def test_one_slice_of_another_thickness_is_told_as_that():
    findings = judge_arrangement(stack([5.0] * 18, [5.0] * 9 + [3.0] + [5.0] * 9), LIMITS)
    assert {finding.code for finding in findings} == {"GEOM-SPACING"}
    assert "slice 9 is 5 mm thick and slice 10 is 3 mm thick" in findings[0].sentence


@pytest.mark.parametrize(
    ("value", "limit", "digits", "text"),
    [
        (5.3, 5.0, 2, "5.30"),
        (30.004, 30.0, 1, "30.004"),
        (2.0, 2.0, 1, "2.0"),
        (0.65, 0.7, 1, "0.65"),
    ],
)
def test_a_value_reads_other_than_its_limit(value, limit, digits, text):
    assert unlike(value, limit, digits) == text
