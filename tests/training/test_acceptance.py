"""`rebrain-train acceptance` on a bundle with an untrained network, without the shared data."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.tiny_bundle import tiny_recipe, write_tiny_bundle
from trainer.cli import program
from trainer.evaluate.acceptance import TARGETS


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the command prints, and the folder it writes."""
    folder = tmp_path_factory.mktemp("acceptance")
    grid = tiny_recipe().grid.model_copy(update={"rows": 256, "columns": 208, "pixel_mm": 0.9})
    recipe = tiny_recipe().model_copy(update={"grid": grid, "widths": (8, 8, 8, 8)})
    write_tiny_bundle(folder / "bundle", recipe.model_copy(update={"sampling": (1.0,)}))
    (folder / "data").mkdir()
    out = folder / "out"
    arguments = ["acceptance", str(folder / "bundle"), "--out", str(out)]
    result = CliRunner().invoke(program, [*arguments, "--data", str(folder / "data")])
    assert result.exit_code == 0, result.output
    return result.stdout, out


def test_the_table_is_printed_and_written(judged: tuple[str, Path]) -> None:
    printed, out = judged

    assert printed.endswith((out / "acceptance.md").read_text())
    assert len([line for line in printed.splitlines() if line.startswith("| ")]) == len(TARGETS) + 2


def test_an_untrained_network_reaches_no_target_of_the_picture(judged: tuple[str, Path]) -> None:
    rows = json.loads((judged[1] / "acceptance.json").read_bytes())["rows"]
    found = {(row["case"], row["figure"]): row for row in rows}

    assert found["demonstration head", "brain_correlation"]["reached"] is False
    assert found["demonstration head", "seconds"]["new"] > 0
    assert found["planted disease", "false_csf"]["new"] is not None


def test_data_that_are_not_there_are_named(judged: tuple[str, Path]) -> None:
    printed, _ = judged

    assert "ct_toshiba_head_study is not there: no real study was synthesised" in printed
    assert "ct_t1_pairs_7patients.npz is not there: no real pair was scored" in printed
    assert "the bundle has no calibrated uncertainty" in printed
