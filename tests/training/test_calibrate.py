"""Calibration: conformal widths, the residual-scale network, and the path from maps to a bundle."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load as load_tensors

from rebrain_node.domain.uncertainty import LEAST_SUBJECTS, RULE_OF_THUMB
from rebrain_node.domain.uncertainty import UncertaintyInterpretation as Interpretation
from rebrain_node.engine.open import open_scale
from rebrain_node.model.bundle import load_bundle
from rebrain_node.model.calibration import Calibration
from rebrain_node.model.recipe import CHANNELS
from rebrain_node.model.residual_scale import ResidualScaleHead
from rebrain_node.steps.preprocess import preprocess
from tests.support.ball_head import ball_maps
from tests.support.tiny_bundle import tiny_calibration, tiny_recipe, write_tiny_bundle
from trainer.calibrate import run
from trainer.calibrate.intervals import (
    SubjectResiduals,
    ause,
    by_kind,
    calibration_of,
    conformal,
    likelihood,
    order,
    plain,
    top_share,
    width,
)
from trainer.calibrate.report import NO_SPREAD, markdown
from trainer.calibrate.residuals import Residuals, doubtful, simulate_series, upward_spread
from trainer.calibrate.run import (
    CalibrationError,
    CalibrationSet,
    Steps,
    SubjectSplit,
    calibrate,
)
from trainer.calibrate.scale_head import FACTORS, ScaleTraining, rounded, scales, train_scale_head
from trainer.calibrate.width_curve import compare, curved, width_curve
from trainer.heads import Head, role_of
from trainer.simulate.hounsfield import tissues


def scores_of(*scores):
    return [np.array(each, dtype=np.float32) for each in scores]


def test_lambda_of_four_subjects_of_one_voxel_agrees_with_the_formula():
    # n = 4, alpha = 0.5: 4/5 miss + 1/5 <= 0.5, so miss <= 0.375: at most one of four outside
    assert conformal(scores_of([1.0], [2.0], [3.0], [4.0]), 0.5) == 3.0
    # alpha = 0.2, B = 0.6: 4/5 loss + 0.6/5 <= 0.2, so loss <= 0.1: none outside, one loses 0.15
    assert conformal(scores_of([1.0], [2.0], [3.0], [4.0]), 0.2) == 4.0


def test_a_subject_counts_once_whatever_the_number_of_its_voxels():
    many = scores_of([1.0] * 90 + [9.0] * 10, [2.0, 9.0])
    # n = 2, alpha = 0.6: 2/3 miss + 1/3 <= 0.6, so miss <= 0.4. Outside 2.0 lie a tenth of the
    # first and half of the second subject: 0.3. Outside 1.0 lie 0.1 / 2 + 1 / 2 = 0.55.
    assert conformal(many, 0.6) == 2.0
    # pooled over voxels 2.0 would leave 11 of 102 outside; per subject it is 0.3 > 0.25
    assert plain(many, 0.25) == 9.0


def test_equal_scores_are_inside_together():
    assert conformal(scores_of([1.0, 2.0, 2.0, 2.0]), 0.7) == 2.0
    assert plain(scores_of([2.0, 2.0, 2.0, 2.0]), 0.5) == 2.0


@pytest.mark.parametrize("seed", range(12))
def test_the_width_is_the_least_score_that_enough_others_do_not_exceed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    digits = int(rng.integers(0, 4))  # few digits: many equal scores
    scores = [
        rng.exponential(1, int(rng.integers(1, 60))).astype(np.float32).round(digits)
        for _ in range(int(rng.integers(1, 9)))
    ]
    alpha = float(rng.uniform(0, 0.6))

    def missed(limit: float) -> float:
        return float(np.mean([(each > limit).mean() for each in scores]))

    every = sorted({float(score) for each in scores for score in each})
    assert plain(scores, alpha) == next(v for v in every if missed(v) <= alpha + 1e-9)


def test_a_subject_far_off_counts_three_times_alpha_and_no_more():
    # n = 20, alpha = 0.1, B = 0.3: 20/21 loss + 0.3/21 <= 0.1, so loss <= 0.09. A subject all
    # outside loses 0.3 / 20 = 0.015; three tenths of each of three more lose 0.045: 0.06.
    near, far = [1.0] * 7 + [2.0] * 3, [9.0] * 10
    scores = [*scores_of(*[near] * 3), *scores_of(far), *scores_of(*[[0.5] * 10] * 16)]
    assert conformal(scores, 0.1) == 1.0  # without the bound 0.055 is allowed, and 0.095 missed
    # three such subjects more lose 0.105
    assert conformal([*scores[:-3], *scores_of(*[near] * 3)], 0.1) == 2.0


def test_subjects_that_miss_everything_are_no_bargain():
    # loss at 0.5: 5 * 0.3 / 20 = 0.075 <= 0.09, but a quarter of all voxels lies outside
    assert conformal(scores_of(*[[1.0]] * 5, *[[0.5]] * 15), 0.1) == 1.0


@pytest.mark.parametrize(("n", "finite"), [(1, False), (8, False), (9, True), (10, True)])
def test_lambda_is_infinite_below_nine_subjects_at_alpha_one_tenth(n, finite):
    scores = scores_of(*([float(k)] for k in range(n)))
    assert math.isfinite(conformal(scores, 0.1)) == finite


def test_too_few_subjects_have_the_plain_quantile_and_are_marked():
    found = width(scores_of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]), 0.1)
    assert (found.scales, found.people, found.conformal) == (9.0, 1, False)


def test_nine_voxels_of_ten_of_a_new_subject_are_covered():
    rng = np.random.default_rng(3)

    def subject():  # the error of the scale differs between subjects
        return rng.laplace(size=300) * rng.lognormal(0.0, 0.3)

    covered = []
    for _ in range(60):
        found = conformal([np.abs(subject()).astype(np.float32) for _ in range(50)], 0.1)
        covered += [float((np.abs(subject()) <= found).mean()) for _ in range(20)]
    # guaranteed from below; above it lies at most by 1 / (n + 1)
    assert 0.90 <= np.mean(covered) <= 0.90 + 2 / 51


def test_the_plain_quantile_of_few_subjects_covers_too_little():
    # Negative control: without the correction nine subjects cover too little of a new one.
    rng = np.random.default_rng(4)

    def subject():
        return np.abs(rng.laplace(size=200) * rng.lognormal(0.0, 0.6)).astype(np.float32)

    shares = {plain: [], conformal: []}
    for _ in range(150):
        known, new = [subject() for _ in range(9)], subject()
        for rule, found in shares.items():
            found.append(float((new <= rule(known, 0.1)).mean()))
    assert np.mean(shares[plain]) < 0.90 < np.mean(shares[conformal])


def test_the_label_states_the_number_of_subjects():
    assert (
        Interpretation(alpha=0.1, subjects=LEAST_SUBJECTS).label
        == "calibrated on simulated CT, n = 20"
    )
    assert Interpretation(alpha=0.1, subjects=LEAST_SUBJECTS - 1).label == "UNCALIBRATED, n = 19"
    assert RULE_OF_THUMB.label == "UNCALIBRATED"
    assert Interpretation(alpha=0.1, subjects=25).quantity == "Half-width of 90% interval"
    assert RULE_OF_THUMB.quantity == "Expected absolute error"


SHAPE = (32, 24)


def heteroscedastic(subject, seed, count=12):
    """Slices whose residuals are ten times as large where the image is bright."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.0, 0.05, (count, 5, *SHAPE)).astype(np.float32)
    bright = np.zeros((count, *SHAPE), dtype=bool)
    for k in range(count):
        at = rng.integers(0, SHAPE[0] // 2)
        bright[k, at : at + SHAPE[0] // 2] = True
    x[:, 0] += np.where(bright, 0.8, -0.8)
    scale = np.where(bright, 0.2, 0.02)
    return Residuals(
        subject=subject,
        x=x.astype(np.float16),
        s=np.tile(np.array([[2.0, 0.0]], dtype=np.float32), (count, 1)),
        error=np.abs(rng.laplace(0.0, scale)).astype(np.float16),
        rule=np.full((count, *SHAPE), 0.1, dtype=np.float16),
        spread=None,
        shift_spread=None,
        inside=np.ones((count, *SHAPE), dtype=bool),
        kinds=("measured", "interpolated") * (count // 2),
        series=np.zeros(count, dtype=np.int32),
    )


@pytest.fixture(scope="module")
def trained():
    return train_scale_head(heteroscedastic("train", 1), ScaleTraining(seed=1, steps=100))


@pytest.fixture(scope="module")
def held_out(trained):
    new = [heteroscedastic(name, seed) for name, seed in (("a", 2), ("b", 3), ("c", 4))]
    return [SubjectResiduals(each, scales(trained, each)) for each in new]


def ambiguous(subject, seed):
    """As above, and half of the dark voxels change with the level of the input."""
    residuals = heteroscedastic(subject, seed)
    rng = np.random.default_rng(seed + 50)
    unsure = residuals.x[:, 0] < 0.0
    unsure[:, :, : SHAPE[1] // 2] = False
    x = residuals.x.copy()
    x[:, 1] = np.where(unsure, 0.9, -0.9)
    error = np.where(unsure, np.abs(rng.laplace(0.0, 0.15, unsure.shape)), residuals.error)
    return replace(
        residuals,
        x=x,
        error=error.astype(np.float16),
        shift_spread=np.where(unsure, 0.2, 0.01).astype(np.float16),
    )


def test_the_head_predicts_the_spread_at_shifted_input_and_adds_it_to_the_scale():
    head = train_scale_head(ambiguous("train", 1), ScaleTraining(seed=1, steps=150))
    new = ambiguous("new", 2)
    x, s = torch.from_numpy(new.x.astype(np.float32)), torch.from_numpy(new.s)
    with torch.inference_mode():
        scale, spread = (part.numpy()[:, 0] for part in head.parts(x, s))
    unsure = new.shift_spread > 0.1
    assert spread[unsure].mean() > 3.0 * spread[~unsure].mean()
    assert float(head.factor) in FACTORS
    expected = np.sqrt(scale**2 + (float(head.factor) * spread) ** 2)
    assert np.allclose(scales(rounded(head), new), expected, rtol=0.02)


def test_without_shifts_the_head_is_that_of_earlier_bundles(trained):
    assert "spread.weight" not in trained.state_dict()
    assert set(ResidualScaleHead().state_dict()) == set(trained.state_dict())
    assert not ResidualScaleHead.of(trained.state_dict()).spreads


def test_a_curve_of_the_scale_is_kept_where_it_is_narrower(trained):
    new = [heteroscedastic(name, seed) for name, seed in (("a", 2), ("b", 3), ("c", 4))]
    subjects = [SubjectResiduals(each, scales(trained, each)) for each in new]
    wrong = [replace(each, scale=(each.scale**3).astype(np.float32)) for each in subjects]
    curve = width_curve(wrong)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(curve))
    found = compare(wrong, curve)
    assert found.kept
    assert found.curved < 0.9 * found.straight
    assert not compare(subjects, width_curve(subjects)).kept
    calibration = calibration_of(curved(wrong, curve)).model_copy(update={"curve": curve})
    half = calibration.half_width(wrong[0].scale, "measured")
    covered = wrong[0].residuals.error <= half
    assert 0.8 < covered.mean() < 0.98


def test_a_curve_that_falls_is_no_calibration():
    values = tiny_calibration().model_dump()
    assert "curve" not in json.loads(tiny_calibration().to_json())
    with pytest.raises(ValidationError, match="rise in both"):
        Calibration.model_validate(values | {"curve": ((0.1, 0.2), (0.2, 0.1))})
    rising = Calibration.model_validate(values | {"curve": ((0.1, 0.1), (0.2, 0.4))})
    scale = np.array([0.05, 0.1, 0.15, 0.2, 0.4], dtype=np.float32)
    assert np.allclose(rising.half_width(scale, "measured"), [0.1, 0.2, 0.5, 0.8, 1.6])
    assert Calibration.model_validate_json(rising.to_json()) == rising


def test_the_network_beats_the_best_constant_on_held_out_subjects(held_out):
    found = likelihood(held_out)
    assert found["scale"] < found["constant"] - 0.2


def test_its_map_orders_errors_better_than_a_constant_and_the_rule_of_thumb(held_out):
    found = order(held_out)
    assert found["spearman"]["scale"] > 0.4
    assert found["ause"]["scale"] < 0.75 * found["ause"]["constant"]
    assert found["ause"]["rule of thumb"] == found["ause"]["constant"]  # it is constant here


def test_the_widths_of_a_subject_are_set_by_the_others(held_out):
    found = by_kind(held_out)
    assert set(found) == {"measured", "interpolated"}
    for kind in found.values():
        assert kind["people"] == 3
        assert kind["levels"]["90%"]["mean"] == pytest.approx(0.9, abs=0.03)
        assert kind["levels"]["50%"]["mean"] == pytest.approx(0.5, abs=0.05)
        assert len(kind["quartiles"]) == 4
        assert kind["worst_series"] <= kind["levels"]["90%"]["mean"] + 1e-6


def test_the_same_seed_trains_the_same_weights_and_leaves_the_global_state():
    residuals = heteroscedastic("train", 1)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first, again = (train_scale_head(residuals, ScaleTraining(seed=5, steps=3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_ause_is_0_for_the_oracle_and_largest_for_reversed_errors():
    error = np.random.default_rng(0).exponential(size=4000).astype(np.float32)
    assert ause(error, error) == 0.0
    constant = ause(np.ones_like(error), error)
    assert 0.4 < constant < 0.8
    assert ause(-error, error) > constant


def head(name: str) -> Head:
    nowhere = Path("nowhere")
    return Head(name, nowhere, None, "MIT", role_of(name), True, True)


HEADS = [head(name) for name in ("sub01", "sub21", "colin27")]


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    for each in HEADS:
        np.savez_compressed(folder / f"{each.name}.npz", **ball_maps())
    return folder


def subjects_of(bundle, maps):
    return CalibrationSet.simulated(SubjectSplit.of(HEADS, maps), bundle.recipe)


def test_truth_and_ct_are_aligned():
    series = simulate_series(tissues(ball_maps()), np.random.default_rng(8))
    prepared = preprocess(series.source, tiny_recipe())
    offsets = []
    for distance, inside in zip(prepared.distances_mm, prepared.head, strict=True):
        truth, known = series.truth(prepared.grid, float(distance), 4.0)
        assert known.all()
        if inside.sum() > 40:  # a slice off the poles of the ball
            middles = [np.argwhere(mask).mean(axis=0) for mask in (truth > 0.03, inside)]
            offsets.append(np.abs(middles[0] - middles[1]).max())
    assert len(offsets) > 4
    assert max(offsets) < 0.6  # pixels of 4 mm


@pytest.fixture(scope="module")
def calibrated(maps, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    bundle = write_tiny_bundle(
        folder / "old",
        tiny_recipe().model_copy(
            update={
                "sampling": (1.0,),
                "spacing_mm": 1.5,
                "z_filter_mm": 1.0,
                "uncertainty_shifts_hu": (-4.0, 0.0, 5.0),
            }
        ),
    )
    progress = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "STEPS", 3)
        patch.setattr(run, "TRAINING_SLICES", 3)
        patch.setattr(run, "HELD_OUT_SLICES", 12)
        patch.setattr(run, "HELD_OUT_SERIES", 1)
        steps = Steps(
            lambda what, count: progress.append((what, count)), lambda: progress.append("step")
        )
        report = calibrate(bundle, subjects_of(bundle, maps), folder / "new", "0.1.0", steps)
    return bundle, load_bundle(folder / "new"), report, progress


@pytest.mark.full
def test_the_new_bundle_has_the_widths_of_the_held_out_subjects(calibrated):
    old, new, report, _ = calibrated
    assert report["taught_by"] == ["sub01"]
    assert new.calibration.subjects == ("sub21", "colin27")
    assert new.calibration.label == new.meaning.label == "UNCALIBRATED, n = 2"
    widths = new.calibration.widths
    assert (widths["measured"].people, widths["measured"].conformal) == (2, False)
    assert widths["retrieved"].people == 0  # no such slice: the largest width
    assert widths["retrieved"].scales == max(each.scales for each in widths.values())
    assert new.recipe.abstain.series_share == 0.25
    assert new.card.version == new.version == "0.1.0"
    assert "UNCALIBRATED, n = 2" in new.card.choices[-1]
    assert load_bundle(old.path).digest == old.digest
    assert open_scale("openvino", new).identity.startswith("openvino")


@pytest.mark.full
def test_the_report_has_coverage_correlation_and_cost(calibrated):
    _, new, report, progress = calibrated
    assert set(report["kinds"]) == {"measured", "interpolated"}
    assert report["written"]["digest"] == new.digest
    assert report["cost"]["share"] > 0
    assert report["spread_of_samples"] == NO_SPREAD
    assert "spread of samples" not in report["order"]["ause"]
    page = markdown(report)
    assert "lies outside at 90 %; in" in page
    assert "| measured | 2 |" in page
    assert NO_SPREAD in page
    assert [what for what in progress if what != "step"] == [
        ("training subjects", 1),
        ("held-out subjects", 2),
        ("residual-scale network", 3),
        ("cost", 3),
    ]
    assert progress.count("step") == 9


@pytest.mark.full
def test_the_calibrated_bundle_has_learned_the_spread(calibrated):
    _, new, report, _ = calibrated
    assert report["spread_factor"] in FACTORS
    assert "spread.weight" in load_tensors(new.read("scale.safetensors"))
    assert report["width_curve"]["sentence"] in markdown(report)
    x = np.zeros((1, 5, 64, 48), dtype=np.float32)
    s = np.zeros((1, 2), dtype=np.float32)
    found = [open_scale(name, new).estimate(x, s) for name in ("openvino", "torch")]
    assert np.allclose(found[0], found[1], rtol=1e-3)


@pytest.mark.full
def test_a_bundle_is_never_overwritten(maps, calibrated):
    old, new, _, _ = calibrated
    quiet = Steps(lambda what, count: None, lambda: None)
    with pytest.raises(FileExistsError, match="never overwritten"):
        calibrate(old, subjects_of(old, maps), new.path, "2", quiet)


def test_training_and_held_out_subjects_are_disjoint(tmp_path):
    for each in HEADS:
        (tmp_path / f"{each.name}.npz").touch()
    split = SubjectSplit.of(HEADS, tmp_path)
    assert [h.name for h in split.training] == ["sub01"]
    assert [h.name for h in split.held_out] == ["sub21", "colin27"]
    for only, role in ((HEADS[:1], "validation or demonstration"), (HEADS[1:], "train")):
        with pytest.raises(CalibrationError, match=role):
            SubjectSplit.of(only, tmp_path)
    (tmp_path / "sub01.npz").unlink()
    with pytest.raises(CalibrationError, match="role train"):
        SubjectSplit.of(HEADS, tmp_path)


def test_what_is_wrong_is_looked_for_among_the_most_uncertain_voxels_of_the_brain():
    uncertainty = np.arange(200, dtype=np.float32)
    among = uncertainty < 100  # e.g. the brain; beyond it, the skin is more uncertain still
    wrong = np.zeros(200, dtype=bool)
    wrong[[10, 96, 98]] = True
    assert top_share(uncertainty, among, wrong) == pytest.approx(2 / 3)
    assert top_share(uncertainty, among, wrong, share=0.95) == 1.0
    assert math.isnan(top_share(uncertainty, among, np.zeros(200, dtype=bool)))


def planted(subject, seed):
    """Slices in which a small patch changes with the level of the input; its errors are usual."""
    residuals = heteroscedastic(subject, seed)
    patch = np.zeros(residuals.error.shape, dtype=bool)
    patch[:, 12:16, 10:14] = True
    x = residuals.x.copy()
    x[:, 1] = np.where(patch, 0.9, -0.9)
    x[:, 0] = np.where(patch, -0.8, x[:, 0])
    spread = np.where(patch, 0.5, 0.01).astype(np.float16)
    return replace(residuals, x=x, shift_spread=spread), patch


def test_planted_disease_that_no_error_shows_lies_in_the_top_of_the_map_by_its_spread():
    taught, _ = planted("train", 1)
    new, patch = planted("new", 2)
    inside = np.ones_like(patch)
    maps = {}
    for name, residuals in (("spread", taught), ("none", replace(taught, shift_spread=None))):
        head = train_scale_head(residuals, ScaleTraining(seed=1, steps=200))
        maps[name] = scales(head, new)
    assert top_share(maps["spread"], inside, patch) > 0.5
    assert top_share(maps["none"], inside, patch) < 0.25


def test_a_small_rise_of_what_is_drawn_dark_is_a_large_spread_and_a_fall_is_none():
    drawn = np.array([0.1, 0.5, 0.5], dtype=np.float32)
    moved = [np.array([0.12, 0.52, 0.4], np.float32), np.array([0.14, 0.5, 0.3], np.float32)]
    assert np.allclose(upward_spread(drawn, moved), [0.2, 0.02 / 0.6, 0.0])


@pytest.mark.parametrize(
    ("hu", "share"), [(0, 0), (9, 0), (11.5, 0.5), (14, 1), (26, 1), (28.5, 0.5), (34, 0), (79, 0)]
)
def test_a_rise_counts_where_the_ct_may_show_fluid_as_well_as_tissue(hu: float, share: float):
    recipe = tiny_recipe()
    window = recipe.brain_window
    x = np.zeros((len(CHANNELS), 8, 8), dtype=np.float32)
    x[CHANNELS.index("source_brain")] = (
        2.0 * (hu - window.low_hu) / (window.high_hu - window.low_hu) - 1.0
    )
    assert np.allclose(doubtful(x, recipe), share, atol=1e-3)
