"""`rebrain-train evaluate` from the outside, on a run of untrained weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from rebrain_node.errors import RebrainError
from rebrain_node.model.unet import network_of
from tests.support.ball_head import write_balls
from tests.support.tiny_bundle import tiny_recipe
from trainer.cli import program

EXAMPLE = Path(__file__).with_name("evaluation_example.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    (folder / "recipe.json").write_text(tiny_recipe().to_json())
    content = {"mean": network_of(tiny_recipe()).state_dict()}
    torch.save(content, folder / "checkpoint.pt")
    return folder


def evaluated(run: Path, data: Path, out: Path, *more: str) -> Result:
    arguments = ["evaluate", "--bundle", str(run), "--data", str(data), "--out", str(out), *more]
    return CliRunner().invoke(program, arguments)


def pairs(path: Path, patients: int = 2) -> Path:
    """Slices of a skull that is full of two brightnesses, 3 of each patient."""
    row, column = np.mgrid[:96, :96] - 47.5
    radius = np.hypot(row, column)
    rng = np.random.default_rng(0)
    ct, t1 = [], []
    for _ in range(3 * patients):
        spot = np.hypot(row - rng.uniform(-12, 12), column - rng.uniform(-12, 12)) < 12
        inside = radius < 36
        ct.append(np.where(inside, 100 + 60 * spot, np.where(radius < 44, 255, 0)))
        t1.append(np.where(inside, 150 - 90 * spot + rng.normal(0, 3, spot.shape), 20))
    owner = np.repeat(np.arange(1, patients + 1), 3)
    np.savez(
        path, ct=np.array(ct, np.uint8), t1=np.array(t1).clip(0, 255).astype(np.uint8),
        patient=owner, slice=np.tile([5, 6, 7], patients),
    )  # fmt: skip
    return path


def keys(node: object, depth: int = 0) -> object:
    """The shape of a document, names of methods and subjects left out."""
    if isinstance(node, dict) and depth < 2:
        return {key: keys(value, depth + 1) for key, value in node.items() if key != "methods"}
    return type(node).__name__


def test_a_report_has_the_shape_of_the_example(run: Path, tmp_path: Path) -> None:
    write_balls(tmp_path / "balls", {"train": ("a",), "test": ("c", "d")}, "mr")

    result = evaluated(run, tmp_path / "balls", tmp_path / "out", "--protocol", "thick:3", "--json")

    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    example = json.loads(EXAMPLE.read_text())
    example["dataset"]["slices"] = document["dataset"]["slices"]
    example["skipped"] = document["skipped"]
    assert "no CT in HU" in document["skipped"]["template"]
    assert keys(document) == keys(example)
    assert (
        document["methods"]["rebrain"]["psnr"].keys()
        == example["methods"]["rebrain"]["psnr"].keys()
    )
    assert document == json.loads((tmp_path / "out" / "evaluation.json").read_text())


def test_pairs_are_scored_by_slice_identity(run: Path, tmp_path: Path) -> None:
    archive = pairs(tmp_path / "pairs.npz")

    result = evaluated(run, archive, tmp_path / "out", "--json")

    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    found = document["methods"]
    assert "no positions in millimetres" in document["skipped"]["template"]
    assert found["lut"]["slice_id_exact"]["per_subject"] == {"1": 1.0, "2": 1.0}
    assert found["lut"]["slice_id_exact"]["pooled"] == 1.0
    assert found["constant"]["slice_id_within_one"]["mean"] == 0
    assert found["lut"]["lncc"]["mean"] > found["constant"]["lncc"]["mean"]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--protocol", "decimate:2"), "cannot be thinned"),
        (("--protocol", "decimate:9"), "expected none"),
        (("--split", "train"), "no subject is in the split"),
        (("--network", "lut=demo"), "is taken"),
        (("--predictions", "x=nowhere"), "0 files for subject 1"),
        (("--network", "x=nowhere"), "no such folder"),
    ],
)
def test_a_refusal_names_its_reason_and_leaves_nothing(
    run: Path, tmp_path: Path, more: tuple[str, str], reason: str
) -> None:
    archive = pairs(tmp_path / "pairs.npz")

    result = evaluated(run, archive, tmp_path / "out", *more)

    assert isinstance(result.exception, RebrainError)
    assert reason in str(result.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.npz"]


def test_a_damaged_run_is_refused_by_its_folder(run: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes((run / "recipe.json").read_bytes())
    (tmp_path / "checkpoint.pt").write_bytes(b"PK no")

    result = evaluated(tmp_path, pairs(tmp_path / "pairs.npz"), tmp_path / "out")

    assert isinstance(result.exception, RebrainError)
    assert str(tmp_path) in str(result.exception)


def test_only_a_report_is_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("keep me")

    result = evaluated(run, pairs(tmp_path / "pairs.npz"), tmp_path / "out")

    assert result.exit_code == 2
    assert (tmp_path / "out" / "precious.txt").read_text() == "keep me"
