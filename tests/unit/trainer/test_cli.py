"""`rebrain-train` from the outside."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rebrain_node.model.bundle import load_bundle
from rebrain_node.model.card import Score
from tests.support.ball_head import ball_maps
from trainer.cli import program
from trainer.config import TrainConfig
from trainer.heads import Head
from trainer.stages import Folders, release_run, simulate_head, walk_name
from trainer.train.bridge import fresh_state

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "conf" / "train" / "demo.toml"
COMMANDS = [
    "head",
    "simulate",
    "bridge",
    "score",
    "release",
    "release-prepared",
    "encoder",
    "control",
    "guide",
    "key",
    "sign",
    "demo-head",
    "gates",
    "domain",
    "domain-report",
    "objectives",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_how_to(command: str) -> None:
    page = (ROOT / "docs" / "how-to" / "train-a-bundle.md").read_text()

    assert f"rebrain-train {command} " in page


def _stages() -> list[list[str]]:
    """The commands of `deploy/demo-bundle`, as words."""
    lines = (ROOT / "deploy" / "demo-bundle").read_text().splitlines()
    told = [line.partition("rebrain-train ")[2] for line in lines if not line.startswith("#")]
    return [shlex.split(words, comments=True) for words in told if words]


@pytest.mark.parametrize("words", _stages(), ids=" ".join)
def test_every_stage_of_the_demonstration_bundle_is_a_command(words: list[str]) -> None:
    options = [word for word in words if word.startswith("--")]
    names = words[:2] if words[0] == "knowledge-base" else words[:1]

    result = CliRunner().invoke(program, [*names, "--help"], env={"COLUMNS": "200"})

    assert result.exit_code == 0
    assert [option for option in options if option not in result.output] == []


def test_help_loads_neither_torch_nor_simpleitk() -> None:
    code = "import sys, trainer.cli; print([m for m in ('torch', 'SimpleITK') if m in sys.modules])"

    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert answer.stdout.strip() == "[]"


def _head(name: str) -> Head:
    return Head(name, Path("none"), None, "made of spheres", "train", False, True)


def test_a_head_that_has_samples_is_not_drawn_again(tmp_path: Path) -> None:
    simulation = TrainConfig.load(DEMO).simulate.model_copy(update={"samples_2mm": 2})
    np.savez(tmp_path / "ball.npz", **ball_maps())
    first = simulate_head(_head("ball"), tmp_path, tmp_path / "pool", simulation)
    (tmp_path / "ball.npz").unlink()

    assert simulate_head(_head("ball"), tmp_path, tmp_path / "pool", simulation) == first


def _scores(ssim: dict[tuple[float, ...], float]) -> list[dict[str, object]]:
    return [
        Score(
            test=f"held-out simulated heads, {kind}",
            method=walk_name(places),
            figures={"ssim": value},
        ).model_dump()
        for kind in ("measured", "missing")
        for places, value in ssim.items()
    ]


@pytest.fixture
def finished(tmp_path: Path, shared_data: Path) -> tuple[TrainConfig, Folders]:
    demo = TrainConfig.load(DEMO)
    config = demo.model_copy(update={"train": demo.train.model_copy(update={"steps": 1})})
    pool, run = tmp_path / "pool", tmp_path / "run"
    pool.mkdir()
    run.mkdir()
    record = {
        "name": "sub01",
        "role": "train",
        "sharp": False,
        "whole_head_truth": True,
        "samples": 1,
        "sha256": {},
    }
    (pool / "index.json").write_text(json.dumps({"seed": 1, "subjects": [record]}))
    state = fresh_state(config, torch.device("cpu"))
    state.step = 1
    state.save(run / "checkpoint.pt")
    return config, Folders(pool, run, shared_data)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_finished_run_becomes_a_bundle_that_loads(
    finished: tuple[TrainConfig, Folders], tmp_path: Path
) -> None:
    config, folders = finished
    scores = _scores({(1.0,): 0.6, (1.0, 0.5): 0.5})
    (folders.run / "scores.json").write_text(json.dumps(scores))

    bundle = release_run(config, folders, tmp_path / "bundle", "0.0.1")

    assert load_bundle(tmp_path / "bundle").digest == bundle.digest
    assert "places 1.0: 0.600" in bundle.card.choices[0]


def test_a_walk_that_is_not_the_best_is_not_released(
    finished: tuple[TrainConfig, Folders], tmp_path: Path
) -> None:
    config, folders = finished
    scores = _scores({(1.0,): 0.5, (1.0, 0.5): 0.6})
    (folders.run / "scores.json").write_text(json.dumps(scores))

    with pytest.raises(ValueError, match=r"places 1\.0 0\.5 scores better"):
        release_run(config, folders, tmp_path / "bundle", "0.0.1")


def test_a_run_that_has_not_ended_is_not_released(
    finished: tuple[TrainConfig, Folders], tmp_path: Path
) -> None:
    config, folders = finished
    state = fresh_state(config, torch.device("cpu"))
    state.save(folders.run / "checkpoint.pt")

    with pytest.raises(ValueError, match="at step 0 of 1"):
        release_run(config, folders, tmp_path / "bundle", "0.0.1")


def test_a_released_bundle_is_never_overwritten(
    finished: tuple[TrainConfig, Folders], tmp_path: Path
) -> None:
    config, folders = finished
    (tmp_path / "bundle").mkdir()

    with pytest.raises(FileExistsError):
        release_run(config, folders, tmp_path / "bundle", "0.0.1")
