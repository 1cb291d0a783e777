"""Widths of intervals: the formula by hand, its promise by simulation, and the label."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rebrain_node.domain.uncertainty import LEAST_SUBJECTS, RULE_OF_THUMB
from rebrain_node.domain.uncertainty import UncertaintyInterpretation as Interpretation
from trainer.calibrate.conformal import conformal, plain, width


def people(*scores):
    return [np.array(each, dtype=np.float32) for each in scores]


def test_the_formula_by_hand_with_four_people_of_one_voxel():
    # n = 4, alpha = 0.5: 4/5 miss + 1/5 <= 0.5, so miss <= 0.375: at most one of four outside
    assert conformal(people([1.0], [2.0], [3.0], [4.0]), 0.5) == 3.0
    # alpha = 0.2: miss <= 0, nobody outside
    assert conformal(people([1.0], [2.0], [3.0], [4.0]), 0.2) == 4.0


def test_a_person_counts_once_however_many_voxels_the_person_has():
    many = people([1.0] * 90 + [9.0] * 10, [2.0, 9.0])
    # n = 2, alpha = 0.6: 2/3 miss + 1/3 <= 0.6, so miss <= 0.4. Outside 2.0 lie a tenth of the
    # first and half of the second person: 0.3. Outside 1.0 lie 0.1 / 2 + 1 / 2 = 0.55.
    assert conformal(many, 0.6) == 2.0
    # pooled over voxels 2.0 would leave 11 of 102 outside; per person it is 0.3 > 0.25
    assert plain(many, 0.25) == 9.0


def test_equal_scores_are_inside_together():
    assert conformal(people([1.0, 2.0, 2.0, 2.0]), 0.7) == 2.0
    assert plain(people([2.0, 2.0, 2.0, 2.0]), 0.5) == 2.0


@pytest.mark.parametrize(("n", "finite"), [(1, False), (8, False), (9, True), (10, True)])
def test_lambda_is_infinite_below_nine_people_at_a_tenth(n, finite):
    scores = people(*([float(k)] for k in range(n)))
    assert math.isfinite(conformal(scores, 0.1)) == finite


def test_too_few_people_get_the_plain_quantile_and_say_so():
    found = width(people([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]), 0.1)
    assert (found.scales, found.people, found.conformal) == (9.0, 1, False)


def test_a_new_person_is_covered_in_nine_voxels_of_ten():
    rng = np.random.default_rng(3)

    def person():  # people differ in how wrong their scale is: not one distribution of voxels
        return rng.laplace(size=300) * rng.lognormal(0.0, 0.3)

    covered = []
    for _ in range(60):
        found = conformal([np.abs(person()).astype(np.float32) for _ in range(50)], 0.1)
        covered += [float((np.abs(person()) <= found).mean()) for _ in range(20)]
    # the promise is from below; 1 / (n + 1) is the price of not knowing more of a new person
    assert 0.90 <= np.mean(covered) <= 0.90 + 2 / 51


def test_the_plain_quantile_of_few_people_promises_too_much():
    # Negative control: without the correction nine people cover a new one too seldom.
    rng = np.random.default_rng(4)

    def person():
        return np.abs(rng.laplace(size=200) * rng.lognormal(0.0, 0.6)).astype(np.float32)

    shares = {plain: [], conformal: []}
    for _ in range(150):
        known, new = [person() for _ in range(9)], person()
        for rule, found in shares.items():
            found.append(float((new <= rule(known, 0.1)).mean()))
    assert np.mean(shares[plain]) < 0.90 < np.mean(shares[conformal])


def test_the_label_says_who_stands_behind_it():
    assert Interpretation(alpha=0.1, subjects=LEAST_SUBJECTS).label == "calibrated, n = 20"
    assert Interpretation(alpha=0.1, subjects=LEAST_SUBJECTS - 1).label == "UNCALIBRATED, n = 19"
    assert RULE_OF_THUMB.label == "UNCALIBRATED"
    assert Interpretation(alpha=0.1, subjects=25).quantity == "Half-width of 90% interval"
    assert RULE_OF_THUMB.quantity == "Expected absolute error"
