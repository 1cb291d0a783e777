"""The known domain: what it was fitted to is usual, what lies beyond is not."""

from __future__ import annotations

import numpy as np
import pytest

from rebrain_node.model.ood import OodModel
from tests.support.ood_models import SUBJECTS, in_distribution_series, ood_features, ood_model
from trainer.ood.fit import fit, gaussian, threshold_of


@pytest.mark.hazard("H13")
@pytest.mark.parametrize("dimension", [None, 24])
def test_new_people_are_usual_and_what_lies_four_deviations_off_is_not(dimension):
    known, rng = ood_model(dimension), np.random.default_rng(11)
    usual = [known.score_of(ood_features(rng, 0.0, dimension)) for _ in range(60)]
    off = [known.score_of(ood_features(rng, 4.0, dimension)) for _ in range(20)]
    assert np.mean([s.score > s.threshold for s in usual]) <= 0.1
    assert min(s.score for s in off) > 2 * known.threshold
    assert set(usual[0].parts) == {"head frame", "picture", *(["embedding"] if dimension else [])}


def test_each_part_alone_can_make_a_series_strange():
    known, rng = ood_model(24), np.random.default_rng(5)
    sound, off = ood_features(rng, 0.0, 24), ood_features(rng, 6.0, 24)
    for part in ("frame", "picture", "embeddings"):
        mixed = type(sound)(**{**vars(sound), part: getattr(off, part)})
        strange = known.score_of(mixed)
        assert strange.score > known.threshold, part
    assert known.score_of(sound).score < known.threshold


def test_the_statistic_that_deviates_is_named_first():
    known, rng = ood_model(), np.random.default_rng(6)
    sound = ood_features(rng)
    sound.picture[:, 8] += 20.0
    assert known.score_of(sound).farthest[0] == "noise"


def test_a_number_that_is_not_known_counts_as_usual_and_one_beyond_the_scale_is_bounded():
    known, rng = ood_model(), np.random.default_rng(7)
    gaps, wild = ood_features(rng), ood_features(rng)
    gaps.picture[::2] = np.nan
    wild.picture[0, 0] = 1e30
    assert known.score_of(gaps).score < known.threshold
    assert np.isfinite(known.score_of(wild).score)


def test_the_threshold_is_the_quantile_over_people_each_of_equal_weight():
    people = [f"{k:02}" for k in range(39) for _ in range(2)]
    scores = np.arange(78.0)
    # 39 people, weight 1 / 80 a series: 0.95 is reached by the 76th score
    assert threshold_of(scores, people, 0.05) == 75.0
    assert threshold_of(scores[:20], people[:20], 0.05) == 19.0  # ten people promise no 5 %


def test_mean_and_spread_follow_the_position():
    rng, position = np.random.default_rng(8), np.linspace(-60.0, 80.0, 4000)
    vectors = np.column_stack([position, rng.normal(0, 1 + (position > 10), 4000)])
    fitted = gaussian(("a", "b"), vectors, position, np.arange(-60.0, 81.0, 10.0))
    mean, sd = np.array(fitted.mean), np.array(fitted.sd)
    assert mean[7, 0] == pytest.approx(10.0, abs=0.5)
    assert sd[1, 1] == pytest.approx(1.0, abs=0.15)
    assert sd[-2, 1] == pytest.approx(2.0, abs=0.2)


def test_the_file_gives_the_same_scores_and_names_its_calibration():
    known = ood_model(24)
    again = OodModel.model_validate_json(known.to_json())
    sound = ood_features(np.random.default_rng(9), 1.0, 24)
    assert again.score_of(sound) == known.score_of(sound)
    assert (again.people, again.series) == (SUBJECTS, 4 * SUBJECTS)
    assert (
        again.calibration_sha256
        != fit(in_distribution_series(24)[:-1], "a" * 64, 0.9).calibration_sha256
    )


def test_one_person_is_not_enough():
    with pytest.raises(ValueError, match="1 person has series"):
        fit(in_distribution_series()[:4], None, 0.9)
