"""`rebrain-train acceptance` on a bundle with an untrained network, without the shared data."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rebrain_node.model.bundle import ModelBundle
from tests.support.ball_head import ball_maps
from tests.support.tiny_bundle import (
    calibrated,
    tiny_recipe,
    write_bundle_without_network,
    write_tiny_bundle,
)
from trainer.cli import program
from trainer.evaluate.acceptance import TARGETS
from trainer.evaluate.acceptance_cases import held_out_heads, uncertainty
from trainer.evaluate.scanned_heads import NodeRunner
from trainer.heads import Head


def write_wide_bundle(folder: Path, rows: int, columns: int, pixel_mm: float) -> ModelBundle:
    """Write an untrained bundle whose grid holds a whole head."""
    size = {"rows": rows, "columns": columns, "pixel_mm": pixel_mm}
    grid = tiny_recipe().grid.model_copy(update=size)
    changes = {"grid": grid, "widths": (8, 8, 8, 8), "sampling": (1.0,)}
    return write_tiny_bundle(folder, tiny_recipe().model_copy(update=changes))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the command prints, and the folder it writes."""
    folder = tmp_path_factory.mktemp("acceptance")
    calibrated(write_wide_bundle(folder / "plain", 128, 112, 1.8), folder / "bundle")
    (folder / "data").mkdir()
    out = folder / "out"
    arguments = ["acceptance", str(folder / "bundle"), "--out", str(out)]
    result = CliRunner().invoke(program, [*arguments, "--data", str(folder / "data")])
    assert result.exit_code == 0, result.output
    return result.stdout, out


def test_the_table_is_printed_and_written(judged: tuple[str, Path]) -> None:
    printed, out = judged

    assert (out / "demonstration-head.png").read_bytes().startswith(b"\x89PNG")
    assert printed.endswith((out / "acceptance.md").read_text())
    assert len([line for line in printed.splitlines() if line.startswith("| ")]) == len(TARGETS) + 2


def test_an_untrained_network_reaches_no_target_of_the_picture(judged: tuple[str, Path]) -> None:
    document = json.loads((judged[1] / "acceptance.json").read_bytes())
    rows = document["rows"]
    found = {(row["case"], row["figure"]): row for row in rows}

    assert found["demonstration head", "brain_correlation"]["reached"] is False
    assert found["demonstration head", "seconds"]["new"] > 0
    assert found["planted disease", "false_csf"]["new"] is not None
    assert found["uncertainty", "people"]["new"] == 25
    assert "map_stripe_ratio" in document["new"]["cases"]["demonstration head"]["figures"]


def test_data_that_are_not_there_are_named(judged: tuple[str, Path]) -> None:
    printed, _ = judged

    assert "ct_toshiba_head_study is not there: no real study was synthesised" in printed
    assert "ct_t1_pairs_7patients.npz is not there: no real pair was scored" in printed
    assert "the bundle has no calibrated uncertainty" not in printed


def test_a_bundle_without_calibration_has_no_figure_of_uncertainty(tmp_path: Path) -> None:
    outcome = uncertainty(write_bundle_without_network(tmp_path / "bundle"))

    assert outcome.figures == {}
    assert outcome.notes == ("the bundle has no calibrated uncertainty",)


def twice_as_large(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """So large that the skull is found in the thick slices."""
    return {
        name: each.repeat(2, 0).repeat(2, 1).repeat(2, 2) if each.ndim == 3 else each
        for name, each in maps.items()
    }


def test_volumes_of_held_out_heads_have_an_interval_over_the_heads(tmp_path: Path) -> None:
    heads = [
        Head(name, Path("nowhere"), None, "MIT", "validation", True, True)
        for name in ("sub21", "sub22")
    ]
    for head in heads:
        np.savez(tmp_path / f"{head.name}.npz", **twice_as_large(ball_maps()))
    synthesis = NodeRunner.of(write_wide_bundle(tmp_path / "bundle", 256, 208, 0.9))

    outcome = held_out_heads(synthesis, heads, tmp_path)

    found = [each["volume_error_grey_matter"] for each in outcome.subjects.values()]
    assert len(set(found)) == 2, "each head is drawn as another person"
    low, high = (outcome.figures[f"volume_error_grey_matter_{end}"] for end in ("low", "high"))
    assert low <= outcome.figures["volume_error_grey_matter"] <= high
    assert (low, high) == pytest.approx((min(found), max(found)))
