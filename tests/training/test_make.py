"""`rebrain-train make`: from pairs to a bundle, resumed after a kill, refused where useless."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from typer.testing import CliRunner

from rebrain_node.model.bundle import load_bundle
from rebrain_node.model.signature import make_key
from tests.support.ball_head import ball_subject
from trainer.calibrate import run as calibration
from trainer.cli import program
from trainer.config import preset_config
from trainer.data.dataset import DatasetError, PreparedData
from trainer.evaluate.networks import NetworkError, open_network
from trainer.train.loop import checkpoint

ROOT = Path(__file__).parents[2]
STEPS = 60
NAMES = ("a", "b", "c", "d")
ABOVE = ["--override", "to try it"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs of MR volumes as NIfTI, and one that is cut off."""
    folder = tmp_path_factory.mktemp("source")
    for seed, name in enumerate((*NAMES, "cut")):
        ball = ball_subject(name, (12, 32, 28), seed)
        for part, array in (
            ("source", np.where(ball.mask, ball.source + 1000, 0)),
            ("target", np.where(ball.mask, ball.target, 0)),
            ("mask", ball.mask),
        ):
            image = sitk.GetImageFromArray(array.astype(np.float32))
            image.SetSpacing((1.25, 1.5, 2.5))
            (folder / part).mkdir(exist_ok=True)
            sitk.WriteImage(image, str(folder / part / f"{name}.nii.gz"))
    cut = folder / "target" / "cut.nii.gz"
    cut.write_bytes(cut.read_bytes()[:3000])
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small preset at the size of a ball."""
    text = (ROOT / "conf" / "train" / "small.toml").read_text()
    for pattern, value in (
        (r"^steps = .*$", f"steps = {STEPS}"),
        (r"^learning_rate = [^ ]*", "learning_rate = 1e-5"),  # it learns next to nothing
        (r"^checkpoint_every = .*$", "checkpoint_every = 5"),
        (r"^widths = .*$", "widths = [8, 16]"),
        (r"^grid = .*$", "grid = { rows = 32, columns = 32, pixel_mm = 1.5 }"),
    ):
        text, found = re.subn(pattern, value, text, flags=re.MULTILINE)
        assert found == 1
    path = tmp_path_factory.mktemp("conf") / "tiny.toml"
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the calibration take seconds."""
    monkeypatch.setattr(calibration, "STEPS", 3)
    monkeypatch.setattr(calibration, "TRAINING_SLICES", 2)
    monkeypatch.setattr(calibration, "HELD_OUT_SLICES", 2)


def arguments(source: Path, tiny: Path, out: Path, *more: str) -> list[str]:
    return [
        "make", "--data", str(source), "--layout", "nifti", "--source-kind", "mr",
        "--config", str(tiny), "--out", str(out), "--split", "0.5/0.25/0.25", "--json", *more,
    ]  # fmt: skip


Run = Callable[..., tuple[int, dict[str, object], str]]


@pytest.fixture
def run(source: Path, tiny: Path) -> Run:
    """Call the command; return exit code, document, and what it told."""

    def call(out: Path, *more: str) -> tuple[int, dict[str, object], str]:
        result = CliRunner().invoke(
            program, arguments(source, tiny, out, *more), catch_exceptions=False
        )
        return result.exit_code, json.loads(result.stdout), result.stderr

    return call


@pytest.fixture(scope="module")
def whole(source: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder made without interruption, and without a reason to release it all the same."""
    out = tmp_path_factory.mktemp("made") / "whole"
    result = CliRunner().invoke(program, arguments(source, tiny, out), catch_exceptions=False)
    assert result.exit_code == 3, result.stderr
    return out


def test_a_useless_bundle_is_refused_by_name_and_the_report_is_there(whole: Path, run: Run) -> None:
    code, document, told = run(whole)

    assert code == 3
    assert document["released"] is False
    assert re.search(r"SSIM 0\.\d+ is not above that of the lookup table", document["reason"])
    assert "--override REASON" in document["reason"]
    assert (whole / "report" / "evaluation.html").is_file()
    assert not (whole / "network").exists()
    assert "[2/7] bridge: done before" in told
    assert "[3/7] evaluation: done before" in told


def test_an_unusable_subject_is_refused_by_file_and_the_others_go_on(whole: Path, run: Run) -> None:
    _, document, _ = run(whole)

    assert list(document["refused"]) == ["cut"]
    assert re.search(r"target/cut\.nii\.gz (is damaged|cannot be read)", document["refused"]["cut"])
    split = json.loads(next(whole.glob("data/*/dataset.json")).read_text())["split"]
    assert {role: len(names) for role, names in split.items()} == {
        "train": 2, "validation": 1, "test": 1,
    }  # fmt: skip


@pytest.mark.slow
def test_a_run_killed_in_the_middle_ends_with_the_numbers_of_one_that_was_not(
    source: Path, tiny: Path, whole: Path, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments(source, tiny, out)],
        cwd=ROOT, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    while not (out / "run" / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    step = checkpoint(out / "run" / "checkpoint.pt")["step"]
    assert 0 < step < STEPS

    code, document, told = run(out)

    assert code == 3
    assert f"training goes on from step {step} of {STEPS}" in told
    resumed, uninterrupted = (
        checkpoint(folder / "run" / "checkpoint.pt") for folder in (out, whole)
    )
    assert resumed["step"] == uninterrupted["step"] == STEPS
    for name, value in uninterrupted["mean"].items():
        assert torch.equal(resumed["mean"][name], value), name
    methods = [
        json.loads((folder / "report" / "evaluation.json").read_text())["methods"]
        for folder in (out, whole)
    ]
    assert methods[0] == methods[1]
    assert document["reason"] == run(whole)[1]["reason"]


@pytest.mark.slow
def test_a_stage_that_was_altered_or_interrupted_is_done_again(
    source: Path, tiny: Path, whole: Path, run: Run
) -> None:
    evaluation = whole / "report" / "evaluation.json"
    before = evaluation.read_bytes()
    evaluation.write_bytes(before[:-20])

    _, _, told = run(whole)

    assert "[2/7] bridge: done before" in told
    assert "[3/7] evaluation: begins" in told
    assert evaluation.read_bytes() == before


def test_other_parameters_for_the_same_folder_are_refused(
    source: Path, tiny: Path, whole: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(tiny.read_text().replace("seed = 5", "seed = 6"))

    result = CliRunner().invoke(program, arguments(source, other, whole))

    assert "was trained with other data or parameters" in str(result.exception)
    assert checkpoint(whole / "run" / "checkpoint.pt")["step"] == STEPS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_reason_and_a_key_give_a_signed_bundle_with_intervals_and_no_domain_for_mr(
    whole: Path, run: Run, tmp_path: Path
) -> None:
    make_key(tmp_path / "site.key", tmp_path / "site.pub")

    code, unsigned, _ = run(whole, *ABOVE)
    assert (code, unsigned["released"], unsigned["signed_by"]) == (0, True, None)
    again, signed, told = run(whole, *ABOVE, "--key", str(tmp_path / "site.key"))

    bundle = load_bundle(whole / "bundle")
    assert again == 0
    assert signed["digest"] == unsigned["digest"] == bundle.digest
    assert len(signed["signed_by"]) == 64
    assert "[7/7] bundle: done before" in told
    assert (bundle.name, bundle.version) == ("site-t1", "1.0.0")
    assert any("Reason given: to try it" in choice for choice in bundle.card.choices)
    assert bundle.meaning.label == signed["uncertainty"] == "UNCALIBRATED, n = 2"
    assert bundle.calibration.source == "paired scans"
    assert bundle.ood_model is None
    assert "describes volumes of CT in HU" in signed["left_out"]["fit-ood"]
    assert (whole / "calibrated-uncertainty.md").is_file()


def test_a_folder_with_too_few_subjects_says_how_many_are_needed(
    source: Path, tiny: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(
        f"subject,source,target\na,{source}/source/a.nii.gz,{source}/target/a.nii.gz\n"
    )

    result = CliRunner().invoke(program, arguments(table, tiny, tmp_path / "out"))

    assert "1 of 1 subjects can be used" in str(result.exception)
    assert "at least 3 are needed" in str(result.exception)


def test_a_folder_one_level_too_high_is_answered_with_the_right_one(whole: Path) -> None:
    (data,) = (path.parent for path in whole.glob("data/*/dataset.json"))

    with pytest.raises(DatasetError, match=rf"not finished; {data} is one: give that"):
        PreparedData.open(whole / "data")
    with pytest.raises(NetworkError, match=rf"nor checkpoint.pt of a run; {whole / 'run'} is one"):
        open_network(str(whole))


@pytest.mark.parametrize("name", ["small", "standard", "paper"])
def test_the_presets_are_the_files_of_conf_train(name: str) -> None:
    packaged = ROOT / "trainer" / "presets" / f"{name}.toml"

    assert packaged.read_bytes() == (ROOT / "conf" / "train" / f"{name}.toml").read_bytes()
    assert preset_config(name).train.steps > 0
