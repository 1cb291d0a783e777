"""The out-of-distribution model: fit and threshold, simulated series, report."""

from __future__ import annotations

import numpy as np
import pytest

from rebrain_node.limits_file import shipped_limits
from rebrain_node.model.bundle import load_bundle, write_bundle
from rebrain_node.model.ood import OodModel
from tests.support import phantom_conditions as conditions
from tests.support.ball_head import ball_maps
from tests.support.ood_models import SUBJECTS, in_distribution_series, ood_features, ood_model
from tests.support.phantoms import Ellipsoid
from tests.support.plain_bundle import plain_contents
from tests.support.tiny_bundle import tiny_recipe
from trainer.ood.fit import OodFitError, fit, gaussian, threshold_of
from trainer.ood.report import exact_interval, markdown, rows, verdict
from trainer.ood.series import (
    CONDITIONS,
    IN_DISTRIBUTION,
    EvaluatedSeries,
    SeriesEvaluator,
    cached_series,
    in_distribution,
)
from trainer.release.bundle import release_ood
from trainer.simulate.conditions import BODIES
from trainer.simulate.hounsfield import tissues

EVALUATOR = SeriesEvaluator(limits=shipped_limits(), recipe=tiny_recipe())
SINUS = Ellipsoid((0.0, -66.0, -42.0), (14.0, 14.0, 14.0), -1000.0)


@pytest.mark.hazard("H13")
@pytest.mark.parametrize("dimension", [None, 24])
def test_a_series_four_deviations_off_is_above_the_threshold_and_a_new_one_is_not(dimension):
    model, rng = ood_model(dimension), np.random.default_rng(11)
    usual = [model.score_of(ood_features(rng, 0.0, dimension)) for _ in range(60)]
    off = [model.score_of(ood_features(rng, 4.0, dimension)) for _ in range(20)]
    assert np.mean([s.score > s.threshold for s in usual]) <= 0.1
    assert min(s.score for s in off) > 2 * model.threshold
    assert set(usual[0].parts) == {"head frame", "picture", *(["embedding"] if dimension else [])}


def test_each_part_alone_can_exceed_the_threshold():
    model, rng = ood_model(24), np.random.default_rng(5)
    sound, off = ood_features(rng, 0.0, 24), ood_features(rng, 6.0, 24)
    for part in ("frame", "picture", "embeddings"):
        mixed = type(sound)(**{**vars(sound), part: getattr(off, part)})
        assert model.score_of(mixed).score > model.threshold, part
    assert model.score_of(sound).score < model.threshold


def test_the_statistic_that_deviates_is_named_first():
    model, rng = ood_model(), np.random.default_rng(6)
    sound = ood_features(rng)
    sound.picture[:, 8] += 20.0
    assert model.score_of(sound).farthest[0] == "noise"


def test_an_unmodel_feature_is_ignored_and_an_extreme_one_is_bounded():
    model, rng = ood_model(), np.random.default_rng(7)
    gaps, wild = ood_features(rng), ood_features(rng)
    gaps.picture[::2] = np.nan
    wild.picture[0, 0] = 1e30
    assert model.score_of(gaps).score < model.threshold
    assert np.isfinite(model.score_of(wild).score)


def test_the_threshold_is_a_quantile_with_equal_weight_of_each_subject():
    subjects = [f"{k:02}" for k in range(39) for _ in range(2)]
    scores = np.arange(78.0)
    # 39 subjects, weight 1 / 80 a series: 0.95 is reached by the 76th score
    assert threshold_of(scores, subjects, 0.05) == 75.0
    assert threshold_of(scores[:20], subjects[:20], 0.05) == 19.0  # ten subjects guarantee no 5 %


def test_mean_and_spread_follow_the_position():
    rng, position = np.random.default_rng(8), np.linspace(-60.0, 80.0, 4000)
    vectors = np.column_stack([position, rng.normal(0, 1 + (position > 10), 4000)])
    fitted = gaussian(("a", "b"), vectors, position, np.arange(-60.0, 81.0, 10.0))
    mean, sd = np.array(fitted.mean), np.array(fitted.sd)
    assert mean[7, 0] == pytest.approx(10.0, abs=0.5)
    assert sd[1, 1] == pytest.approx(1.0, abs=0.15)
    assert sd[-2, 1] == pytest.approx(2.0, abs=0.2)


def test_the_file_gives_the_same_scores_and_names_its_calibration():
    model = ood_model(24)
    again = OodModel.model_validate_json(model.to_json())
    sound = ood_features(np.random.default_rng(9), 1.0, 24)
    assert again.score_of(sound) == model.score_of(sound)
    assert (again.people, again.series) == (SUBJECTS, 4 * SUBJECTS)
    assert (
        again.calibration_sha256
        != fit(in_distribution_series(24)[:-1], "a" * 64, 0.9).calibration_sha256
    )


def test_one_subject_is_not_enough():
    with pytest.raises(OodFitError, match="series of 1 subject"):
        fit(in_distribution_series()[:4], None, 0.9)


class _Means:
    """An encoder of two numbers that counts its calls."""

    identity = "means"

    def __init__(self):
        self.calls = 0

    def embed(self, image):
        self.calls += 1
        mean = float(image.mean())
        return np.array([mean, np.sqrt(1.0 - mean**2)], dtype=np.float32)


@pytest.mark.parametrize("name", BODIES)
def test_each_body_keeps_the_positions_of_the_scan_and_varies_between_slices(name):
    distances = tuple(-52.0 + 9.0 * k for k in range(16))
    head = conditions.changed(parts=(SINUS,), slice_distances_mm=distances)
    for seed in range(2):
        body = BODIES[name](head, np.random.default_rng(seed))
        assert body.hu.shape == head.hu.shape
        assert len(body.positions_mm) == len(head.positions_mm)
        assert np.isfinite(body.hu).all()
        assert (body.hu > -500).sum(axis=(1, 2)).std() > 50
        assert not np.array_equal(body.hu, head.hu)


def test_a_series_is_simulated_once_and_read_back_unchanged(tmp_path):
    wanted = {0: (IN_DISTRIBUTION,), 1: ("scale shifted",)}
    simulated = [
        *cached_series(EVALUATOR, lambda: tissues(ball_maps()), "ball", wanted, 0, tmp_path)
    ]

    def unread():
        raise AssertionError("simulated again")

    again = [*cached_series(EVALUATOR, unread, "ball", wanted, 0, tmp_path)]
    assert [each.condition for each in again] == [IN_DISTRIBUTION, "scale shifted"]
    for first, second in zip(simulated, again, strict=True):
        assert (first.refused, first.flagged) == (second.refused, second.flagged)
        assert np.array_equal(first.slices, second.slices)
    assert np.array_equal(simulated[0].features.picture, again[0].features.picture, equal_nan=True)
    assert "HU" in again[1].refused  # of refused series only the first is scored
    assert again[1].features is None
    assert len(list(tmp_path.iterdir())) == 2


def test_every_slice_used_is_embedded_once():
    series = _evaluated(IN_DISTRIBUTION, ood_features(np.random.default_rng(0)))
    encoder = _Means()
    assert series.embedded(encoder).features.embeddings.shape == (len(series.slices), 2)
    assert encoder.calls == len(series.slices)
    assert _evaluated(IN_DISTRIBUTION, None).embedded(encoder).features is None


def _evaluated(condition, features, refused=(), flagged=()):
    return EvaluatedSeries(
        subject="sub", condition=condition, number=0, refused=refused, flagged=flagged,
        features=features, slices=np.zeros((0 if features is None else 12, 32, 24), np.uint8),
    )  # fmt: skip


def test_a_series_counts_once_in_whatever_way_it_was_detected():
    rng, model = np.random.default_rng(4), ood_model()
    usual, outlier = ood_features(rng), ood_features(rng, 6.0)
    evaluated = [
        _evaluated(IN_DISTRIBUTION, usual),
        _evaluated(IN_DISTRIBUTION, usual, flagged=("OOD",)),
        _evaluated("METAL", None, refused=("METAL", "NOISE")),
        _evaluated("METAL", outlier, refused=("METAL",)),
        _evaluated("animal", outlier),
        _evaluated("animal", usual),
    ]
    table = {row["condition"]: row for row in rows([verdict(each, model) for each in evaluated])}
    assert list(table) == [IN_DISTRIBUTION, "METAL", "animal"]
    counted = ("n", "refused_by_rules", "flagged_by_rules_only", "by_score_only", "caught")
    assert [table[IN_DISTRIBUTION][name] for name in counted] == [2, 0, 1, 0, 1]
    assert [table["METAL"][name] for name in counted] == [2, 2, 0, 0, 2]
    assert [table["animal"][name] for name in counted] == [2, 0, 0, 1, 1]
    assert (table["METAL"]["looked_at"], table["METAL"]["above_threshold"]) == (1, 1)
    assert "| METAL | 2 | 2 | 0 | 0 | 100.0 % | 15.8 to 100.0 % |" in markdown([*table.values()])


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(20, 20, 0.832, 1.0), (0, 72, 0.0, 0.050), (57, 60, 0.861, 0.990)],
)
def test_the_interval_is_clopper_and_pearson_s(hits, n, low, high):
    assert exact_interval(hits, n) == pytest.approx((low, high), abs=0.001)


def test_the_report_counts_every_condition_that_must_be_detected():
    assert {"METAL", "CRANIECTOMY", "NOISE", "scale shifted", "upside down"} <= set(CONDITIONS)
    assert BODIES.keys() <= set(CONDITIONS)


def test_the_ood_model_is_written_into_a_new_bundle_and_no_other_file_changes(tmp_path):
    write_bundle(tmp_path / "old", "tiny", "0.1", plain_contents())
    old = load_bundle(tmp_path / "old")
    made = release_ood(old, ood_model(), tmp_path / "new")
    assert made.ood_model == ood_model()
    assert made.digest != old.digest == load_bundle(tmp_path / "old").digest
    assert all(made.read(name) == old.read(name) for name in old.manifest.files)
    with pytest.raises(FileExistsError, match="new folder"):
        release_ood(old, ood_model(), tmp_path / "new")


def test_the_model_is_not_fitted_to_a_refused_series():
    usual = ood_features(np.random.default_rng(0))
    chosen = in_distribution(
        [
            _evaluated(IN_DISTRIBUTION, usual),
            _evaluated(IN_DISTRIBUTION, usual, flagged=("OOD",)),
            _evaluated(IN_DISTRIBUTION, usual, refused=("MOTION",)),
            _evaluated(IN_DISTRIBUTION, None),
        ]
    )
    assert len(chosen) == 2
