"""`rebrain-train` from the outside."""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import typer.main
from typer.testing import CliRunner, Result

from rebrain_node.errors import BundleError
from rebrain_node.model.bundle import load_bundle, write_bundle
from rebrain_node.model.card import Score
from rebrain_node.model.signature import read_public_key, signing_key
from tests.support.ball_head import ball_maps
from tests.support.plain_bundle import plain_contents
from trainer.cli import options, program, renamed
from trainer.config import TrainConfig
from trainer.heads import Head
from trainer.release.requirements import ReleaseError
from trainer.stages import Folders, release_run, sampling_name, simulate_head, write_scores
from trainer.train.bridge import fresh_state
from trainer.train.workers import TrainingError

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "conf" / "train" / "demo.toml"
COMMANDS = typer.main.get_command(program).commands


def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner(env=env).invoke(program, list(map(str, arguments)))


def test_every_command_is_in_a_how_to() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))

    assert [name for name in COMMANDS if f"rebrain-train {name} " not in pages] == []


def _command_lines() -> dict[str, list[str]]:
    """Words of every line of the documents and of `deploy/demo-bundle` that calls the program."""
    calls = re.compile(r"^(?: {4}|[^#\n]*\|\| |)rebrain-train (.*)$", re.MULTILINE)
    files = (ROOT / "deploy" / "demo-bundle", ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    lines = [
        line for file in files for line in calls.findall(file.read_text().replace("\\\n", " "))
    ]
    return {
        line: shlex.split(line.replace("[", "").replace("]", ""), comments=True) for line in lines
    }


@pytest.mark.parametrize("line", _command_lines())
def test_every_command_line_of_the_documents_has_a_command_and_its_options(line: str) -> None:
    words = _command_lines()[line]
    names = words[:2] if words[0] == "knowledge-base" else words[:1]
    options = {word for word in words if word.startswith("--")}

    result = run(*names, "--help", env={"COLUMNS": "200"})

    assert words[0] in COMMANDS  # no old name
    assert result.exit_code == 0
    assert {option for option in options if option not in result.output} == set()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("head --maps m", "tissue-maps --maps m"),
        ("bridge --run r", "train-bridge --run r"),
        ("encoder --run r", "train-encoder --run r"),
        ("control --run r", "train-control --run r"),
        ("objectives --out o", "compare-objectives --out o"),
        ("guide --p 5", "add-retrieval --p 5"),
        ("domain b --kept k --draws=5", "fit-ood b --cache k --series=5"),
        ("domain-report b", "ood-report b"),
        ("gates --draws 5", "input-checks --series 5"),
        ("knowledge-base build b --people 5", "knowledge-base build b --subjects 5"),
        ("evaluate --beside x2", "evaluate --other-report x2"),
        ("evaluate --report scores --out o", "evaluate --out o"),
        ("evaluate --out o --report ablation", "guidance-report --out o"),
        ("evaluate --report=retrieval --out o", "retrieval-report --out o"),
    ],
)
def test_old_names_are_accepted_and_named_in_a_notice(old: str, new: str) -> None:
    current, notices = renamed(old.split())

    assert current == new.split()
    assert notices


@pytest.mark.parametrize(
    "line", ["knowledge-base build b --subjects 5", "evaluate --report no", "evaluate --report"]
)
def test_other_command_lines_are_not_changed(line: str) -> None:
    assert renamed(line.split()) == (line.split(), [])


def test_an_old_command_runs_and_prints_one_line_on_standard_error(tmp_path: Path) -> None:
    result = run("domain", tmp_path, "--kept", "k", "--maps", "m", "--out", "o")

    assert isinstance(result.exception, BundleError)
    assert result.stderr.count("\n") == 1
    assert "deprecated" in result.stderr
    assert "domain (now fit-ood), --kept (now --cache)" in result.stderr


def test_help_loads_neither_torch_nor_simpleitk() -> None:
    code = "import sys, trainer.cli; print([m for m in ('torch', 'SimpleITK') if m in sys.modules])"

    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert answer.stdout.strip() == "[]"


def _head(name: str) -> Head:
    return Head(name, Path("none"), None, "made of spheres", "train", False, True)


def test_a_missing_package_is_one_line_with_the_command_that_installs_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom trainer.cli import app; app(sys.argv[1:])"
    arguments = ["evaluate", "--bundle", "demo", "--data", "d", "--out", str(tmp_path / "o")]

    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )

    assert ended.returncode == 1
    assert ended.stderr == (
        "rebrain-train: torch is not installed: pip install 'rebrain-node[train]'\n"
    )


def test_a_run_that_is_not_finished_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    config = ROOT / "conf" / "train" / "flair.toml"
    (tmp_path / "evaluation.json").write_text(
        '{"dataset": {"name": "d", "split": "test"}, "protocol": "none", '
        '"bundle": {"digest": "0"}, "methods": {}}'
    )

    with pytest.raises(TrainingError, match=r"holds no checkpoint\.pt: it is no run"):
        program(
            ["release-prepared", "--config", str(config), "--data", "d", "--run", str(tmp_path),
             "--out", str(tmp_path / "b"), "--title", "a:1",
             "--evaluation", str(tmp_path / "evaluation.json")],
            standalone_mode=False,
        )  # fmt: skip


def test_off_a_terminal_progress_is_told_in_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options, "LINE_EVERY_S", 0.05)

    with options.bar_of("steps", 200) as (bar, task):
        bar.advance(task, 50)
        time.sleep(0.12)
        bar.update(task, completed=200, description="steps (loss 0.1)")
    with options.bar_of("quick", 1):
        pass

    told = capsys.readouterr().err.splitlines()
    assert told[0] == "steps: 50 of 200, 0:00"
    assert told[-1] == "steps (loss 0.1): 200 of 200, 0:00"


def test_a_head_that_has_samples_is_not_simulated_again(tmp_path: Path) -> None:
    simulation = TrainConfig.load(DEMO).simulate.model_copy(update={"samples_2mm": 2})
    np.savez(tmp_path / "ball.npz", **ball_maps())
    first = simulate_head(_head("ball"), tmp_path, tmp_path / "pool", simulation)
    (tmp_path / "ball.npz").unlink()

    assert simulate_head(_head("ball"), tmp_path, tmp_path / "pool", simulation) == first


def _scores(ssim: dict[tuple[float, ...], float]) -> tuple[Score, ...]:
    named = {sampling_name(time_steps): value for time_steps, value in ssim.items()}
    return tuple(
        Score(test=f"held-out simulated heads, {kind}", method=method, figures={"ssim": value})
        for kind in ("measured", "missing")
        for method, value in {**named, "lookup table": 0.45}.items()
    )


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
    write_scores(folders.run, _scores({(1.0,): 0.6, (1.0, 0.5): 0.5}))

    bundle = release_run(config, folders, tmp_path / "bundle", "0.0.1")

    assert load_bundle(tmp_path / "bundle").digest == bundle.digest
    assert "time steps 1.0: 0.600" in bundle.card.choices[0]


def test_a_recipe_is_not_released_if_other_time_steps_score_better(
    finished: tuple[TrainConfig, Folders], tmp_path: Path
) -> None:
    config, folders = finished
    write_scores(folders.run, _scores({(1.0,): 0.5, (1.0, 0.5): 0.6}))

    with pytest.raises(ReleaseError, match=r"time steps 1\.0 0\.5 has SSIM 0\.600"):
        release_run(config, folders, tmp_path / "bundle", "0.0.1")


def test_a_run_no_better_than_the_lookup_table_is_released_for_a_reason_only(
    finished: tuple[TrainConfig, Folders], tmp_path: Path
) -> None:
    config, folders = finished
    write_scores(folders.run, _scores({(1.0,): 0.4}))

    with pytest.raises(ReleaseError, match=r"0\.400 is not above that of the lookup table, 0\.450"):
        release_run(config, folders, tmp_path / "bundle", "0.0.1")


def test_scores_of_other_weights_release_nothing(
    finished: tuple[TrainConfig, Folders], tmp_path: Path
) -> None:
    config, folders = finished
    write_scores(folders.run, _scores({(1.0,): 0.6}))
    state = fresh_state(config, torch.device("cpu"))
    state.step, state.seconds = 1, 9.0
    state.save(folders.run / "checkpoint.pt")

    with pytest.raises(ReleaseError, match="not of the weights"):
        release_run(config, folders, tmp_path / "bundle", "0.0.1")
    (folders.run / "scores.json").unlink()
    with pytest.raises(ReleaseError, match="`rebrain-train score"):
        release_run(config, folders, tmp_path / "bundle", "0.0.1")


def test_a_run_that_has_not_ended_is_not_released(
    finished: tuple[TrainConfig, Folders], tmp_path: Path
) -> None:
    config, folders = finished
    state = fresh_state(config, torch.device("cpu"))
    state.save(folders.run / "checkpoint.pt")

    with pytest.raises(ReleaseError, match="at step 0 of 1"):
        release_run(config, folders, tmp_path / "bundle", "0.0.1")


def test_a_released_bundle_is_never_overwritten(
    finished: tuple[TrainConfig, Folders], tmp_path: Path
) -> None:
    config, folders = finished
    (tmp_path / "bundle").mkdir()

    with pytest.raises(FileExistsError):
        release_run(config, folders, tmp_path / "bundle", "0.0.1")


def test_a_key_is_made_and_signs_a_bundle_whose_digest_stays(tmp_path: Path) -> None:
    folder, private, public = tmp_path / "b", tmp_path / "site.key", tmp_path / "site.pub"
    write_bundle(folder, "tiny", "0.1", plain_contents())
    digest = load_bundle(folder).digest

    made = run("key", private)
    signed = run("sign", folder, "--key", private)

    key = read_public_key(public.read_bytes(), public)
    assert (made.exit_code, signed.exit_code) == (0, 0)
    assert key in made.output
    assert f"signed by {key}" in signed.output
    assert signing_key(load_bundle(folder)) == key
    assert load_bundle(folder).digest == digest


def test_a_private_key_does_not_have_the_name_of_a_public_one(tmp_path: Path) -> None:
    result = run("key", tmp_path / "site.pub")

    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []
