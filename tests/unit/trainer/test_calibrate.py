"""Calibration from maps to a bundle, at tiny size: who teaches, who sets widths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rebrain_node.engine.open import open_scale
from rebrain_node.model.bundle import load_bundle
from rebrain_node.steps.preprocess import preprocess
from tests.support.ball_head import ball_maps
from tests.support.tiny_bundle import tiny_recipe, write_tiny_bundle
from trainer.calibrate import run
from trainer.calibrate.report import NO_SPREAD, markdown
from trainer.calibrate.run import CalibrationError, Steps, SubjectSplit, calibrate
from trainer.calibrate.series import draw_series
from trainer.heads import Head, role_of
from trainer.simulate.hounsfield import tissues


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


def test_the_truth_lies_where_the_ct_does():
    series = draw_series(tissues(ball_maps()), np.random.default_rng(8))
    prepared = preprocess(series.source, tiny_recipe())
    apart = []
    for distance, inside in zip(prepared.distances_mm, prepared.head, strict=True):
        truth, known = series.truth(prepared.grid, float(distance), 4.0)
        assert known.all()
        if inside.sum() > 40:  # a slice off the poles of the ball
            middles = [np.argwhere(mask).mean(axis=0) for mask in (truth > 0.03, inside)]
            apart.append(np.abs(middles[0] - middles[1]).max())
    assert len(apart) > 4
    assert max(apart) < 0.6  # pixels of 4 mm


@pytest.fixture(scope="module")
def calibrated(maps, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    bundle = write_tiny_bundle(
        folder / "old", tiny_recipe().model_copy(update={"sampling": (1.0,), "spacing_mm": 1.5})
    )
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "STEPS", 3)
        patch.setattr(run, "TEACHING_SLICES", 3)
        patch.setattr(run, "CALIBRATING_SLICES", 12)
        patch.setattr(run, "CALIBRATING_SERIES", 1)
        steps = Steps(lambda what, count: told.append((what, count)), lambda: told.append("step"))
        report = calibrate(bundle, SubjectSplit.of(HEADS, maps), folder / "new", "0.1.0", steps)
    return bundle, load_bundle(folder / "new"), report, told


@pytest.mark.full
def test_the_new_bundle_holds_what_the_held_out_people_say(calibrated):
    old, new, report, _ = calibrated
    assert report["taught_by"] == ["sub01"]
    assert new.calibration.subjects == ("sub21", "colin27")
    assert new.calibration.label == new.meaning.label == "UNCALIBRATED, n = 2"
    widths = new.calibration.widths
    assert (widths["measured"].people, widths["measured"].conformal) == (2, False)
    assert widths["retrieved"].people == 0  # none was met: as wide as the widest
    assert widths["retrieved"].scales == max(each.scales for each in widths.values())
    assert new.recipe.abstain.series_share == 0.25
    assert new.card.version == new.version == "0.1.0"
    assert "UNCALIBRATED, n = 2" in new.card.choices[-1]
    assert load_bundle(old.path).digest == old.digest
    assert open_scale("openvino", new).identity.startswith("openvino")


@pytest.mark.full
def test_the_report_tells_coverage_order_and_cost(calibrated):
    _, new, report, told = calibrated
    assert set(report["kinds"]) == {"measured", "interpolated"}
    assert report["written"]["digest"] == new.digest
    assert report["cost"]["share"] > 0
    assert report["spread_of_samples"] == NO_SPREAD
    assert "spread of samples" not in report["order"]["ause"]
    page = markdown(report)
    assert "| measured | 2 |" in page
    assert NO_SPREAD in page
    assert [what for what in told if what != "step"] == [
        ("teaching heads", 1),
        ("held-out heads", 2),
        ("residual-scale head", 3),
        ("cost", 3),
    ]
    assert told.count("step") == 9


@pytest.mark.full
def test_a_bundle_is_never_overwritten(maps, calibrated):
    old, new, _, _ = calibrated
    quiet = Steps(lambda what, count: None, lambda: None)
    with pytest.raises(FileExistsError, match="never overwritten"):
        calibrate(old, SubjectSplit.of(HEADS, maps), new.path, "2", quiet)


def test_nobody_both_teaches_and_calibrates(tmp_path):
    for each in HEADS:
        (tmp_path / f"{each.name}.npz").touch()
    people = SubjectSplit.of(HEADS, tmp_path)
    assert [h.name for h in people.teaching] == ["sub01"]
    assert [h.name for h in people.calibrating] == ["sub21", "colin27"]
    for only, role in ((HEADS[:1], "validation or demonstration"), (HEADS[1:], "train")):
        with pytest.raises(CalibrationError, match=role):
            SubjectSplit.of(only, tmp_path)
    (tmp_path / "sub01.npz").unlink()
    with pytest.raises(CalibrationError, match="role train"):
        SubjectSplit.of(HEADS, tmp_path)
