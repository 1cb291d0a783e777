"""The experiment on objectives, from samples to its page, at the size of a ball."""

import csv
import json
from pathlib import Path

import pytest

from rebrain_node.model.recipe import Grid
from tests.support.ball_head import write_ball_pool, write_balls
from trainer.config import TrialConfig
from trainer.evaluate.objectives import (
    TrialData,
    TrialFolder,
    TrialResult,
    between_sequences,
    comparisons,
    conclusion,
    run_trial,
    simulated,
    verdict,
    write_results,
)

CONFIG = Path(__file__).parents[2] / "conf" / "train" / "objectives.toml"


@pytest.fixture(scope="module")
def config() -> TrialConfig:
    given = TrialConfig.load(CONFIG)
    trial = {"objectives": ("raw", "directional"), "samples": 4, "cases": 4}
    recipe = {"widths": (8, 16), "grid": Grid(rows=48, columns=48, pixel_mm=1.8)}
    return given.model_copy(
        update={
            "trial": given.trial.model_copy(update=trial),
            "train": given.train.model_copy(update={"steps": 2, "batch": 2}),
            "recipe": given.recipe.model_copy(update=recipe),
        }
    )


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory, config: TrialConfig) -> TrialData:
    folder = tmp_path_factory.mktemp("prepared") / "balls"
    write_balls(folder, {"train": ("a",), "validation": ("b",), "test": ("c",)}, "mr")
    small = config.recipe.model_copy(update={"grid": Grid(rows=32, columns=32, pixel_mm=1.0)})
    return between_sequences(folder, small, config.trial)


def test_held_out_positions_are_half_measured_half_missing(balls: TrialData) -> None:
    assert {case.subject for case in balls.held_out} == {"b"}
    assert sorted(case.missing for case in balls.held_out) == [False, False, True, True]
    assert all(case.truth.shape == case.head.shape == (32, 32) for case in balls.held_out)


def test_the_experiment_writes_its_page_and_does_not_repeat_a_run(
    config: TrialConfig, balls: TrialData, tmp_path: Path
) -> None:
    small = config.model_copy(
        update={"recipe": config.recipe.model_copy(update={"grid": Grid(
            rows=32, columns=32, pixel_mm=1.0)})}
    )  # fmt: skip
    places = [TrialFolder(tmp_path, o, seed) for seed in (1, 2) for o in config.trial.objectives]
    runs = [run_trial(small, balls, place, lambda _step: None) for place in places]

    stamps = [f.stat().st_mtime_ns for f in sorted(tmp_path.rglob("checkpoint.pt"))]
    again = [run_trial(small, balls, place, lambda _step: None) for place in places]
    write_results(small, runs, tmp_path)

    assert again == runs
    assert stamps == [f.stat().st_mtime_ns for f in sorted(tmp_path.rglob("checkpoint.pt"))]
    document = json.loads((tmp_path / "objectives.json").read_text())
    assert len(document["runs"]) == 4
    assert {c["objective"] for c in document["against_raw"]} == {"directional"}
    with (tmp_path / "curves.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 4
    page = (tmp_path / "objectives.md").read_text()
    assert "(objectives-1.png)" in page
    assert (tmp_path / "objectives-1.png").read_bytes().startswith(b"\x89PNG")


def test_samples_of_a_pool_are_halved_for_learning_and_for_scoring(
    config: TrialConfig, tmp_path: Path
) -> None:
    write_ball_pool(tmp_path, {"ball": "train", "other": "validation"}, count=3)

    trial_data = simulated(tmp_path, config.recipe, config.trial)

    assert trial_data.held_out
    assert trial_data.held_out[0].conditioning.channels.shape == (4, 48, 48)


def _run(objective: str, seed: int, end: float) -> TrialResult:
    return TrialResult("balls", objective, seed, (100, 200), (10.0, end), (0.1, end / 100))


def test_the_claim_stands_only_where_every_seed_agrees_beyond_the_noise() -> None:
    clear = [_run("raw", 1, 20.0), _run("raw", 2, 20.2)]
    clear += [_run("directional", 1, 21.0), _run("directional", 2, 21.2)]
    unclear = [*clear[:2], _run("directional", 1, 20.1), _run("directional", 2, 20.3)]
    worse = [*clear[:2], _run("directional", 1, 18.0), _run("directional", 2, 18.0)]

    assert "appears." in conclusion(comparisons(clear))
    for runs, word in ((unclear, "no difference"), (worse, "worse")):
        assert "does not appear." in conclusion(comparisons(runs))
        assert word in conclusion(comparisons(runs))


def test_seeds_that_disagree_are_no_verdict() -> None:
    assert verdict([3.0, -1.0], 0.1) == "no difference beyond the seeds"
    assert verdict([0.3, 0.2], 0.1) == "better"
