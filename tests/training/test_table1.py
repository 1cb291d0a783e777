"""`rebrain-train table1`: runs that are not repeated, the tables, and volumes of others."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.support.ball_head import write_balls
from trainer.cli import program
from trainer.data.dataset import PreparedData
from trainer.data.protocols import thinned
from trainer.evaluate.methods import write_prediction
from trainer.evaluate.metrics import Reference
from trainer.evaluate.peer_runs import PROTOCOLS, ComparisonError, PeerRequest, run_peer
from trainer.evaluate.table1 import compare, write_comparison
from trainer.peers.fitting import Budget

PRESET = Path(__file__).parents[2] / "conf" / "train" / "flair.toml"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = PRESET.read_text().replace("[32, 64, 96, 128]", "[8, 16]")
    text = text.replace("rows = 112, columns = 96, pixel_mm = 2.0",
                        "rows = 32, columns = 32, pixel_mm = 1.5")  # fmt: skip
    path = tmp_path_factory.mktemp("conf") / "tiny.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "balls"
    write_balls(folder, {"train": ("a", "b"), "test": ("c", "d")}, "mr", (17, 24, 20))
    return folder


@pytest.fixture(scope="module")
def finished(config: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> PeerRequest:
    """Two seeds of our bridge, trained for two iterations."""
    request = PeerRequest(
        config=config,
        data=data,
        out=tmp_path_factory.mktemp("out"),
        budget=Budget(iterations=2),
        sampling_steps=2,
    )
    for seed in (1, 2):
        run_peer(request, "rebrain", seed)
    return request


def _table1(request: PeerRequest, *options: str):
    arguments = ["table1", "--config", request.config, "--data", request.data, "--out", request.out]
    return CliRunner().invoke(program, [*map(str, arguments), *options])


def test_runs_that_have_ended_are_not_repeated_and_the_others_are_made(finished: PeerRequest):
    path = finished.file("rebrain", 1)
    before = path.stat().st_mtime_ns
    options = ("--iterations", "2", "--sampling-steps", "2", "--method", "rebrain", "--seeds", "3")
    result = _table1(finished, *options, "--json")
    assert result.exit_code == 0, result.output
    assert path.stat().st_mtime_ns == before
    document = json.loads(result.stdout)
    assert document["methods"]["rebrain"]["seeds"] == [1, 2, 3]
    assert document["methods"]["rebrain"]["cost"]["memory_mib"] > 50
    assert set(document["methods"]) == {"rebrain", "constant", "linear-lut", "exemplar"}


def test_runs_of_another_budget_are_refused(finished: PeerRequest):
    result = _table1(finished, "--iterations", "3", "--sampling-steps", "2")
    assert isinstance(result.exception, ComparisonError)
    assert "give another --out" in str(result.exception)


def test_either_a_budget_or_iterations_are_asked_for(finished: PeerRequest):
    assert _table1(finished).exit_code == 2
    assert _table1(finished, "--budget", "1", "--iterations", "1").exit_code == 2
    assert _table1(finished, "--budget", "1", "--method", "other").exit_code == 2


def test_the_table_sums_up_over_seeds_and_subjects(finished: PeerRequest):
    runs = [finished.finished("rebrain", seed) for seed in (1, 2)]
    comparison = compare(finished, runs, {})
    found = comparison.document["methods"]["rebrain"]["protocols"]["decimate:2"]["psnr"]
    each = [[run.scores["decimate:2"][s]["psnr"] for s in ("c", "d")] for run in runs]
    assert found["summary"]["mean"] == pytest.approx(np.mean(each))
    assert found["seeds_sd"] == pytest.approx(np.std(np.mean(each, axis=1), ddof=1))
    assert found["summary"]["per_subject"]["c"] == pytest.approx((each[0][0] + each[1][0]) / 2)
    constant = comparison.document["methods"]["constant"]["protocols"]["thick:4"]["psnr"]
    assert constant["seeds_sd"] is None


def test_the_true_volumes_as_those_of_another_method_are_best(
    finished: PeerRequest, data: Path, tmp_path: Path
):
    prepared = PreparedData.open(data)
    for protocol in PROTOCOLS:
        for name in ("c", "d"):
            case = thinned(prepared.subject(name), protocol)
            truth = Reference.of(case, volumetric=True)
            folder = tmp_path / "oracle" / str(protocol).replace(":", "-")
            write_prediction(folder, case, truth.reference)
    runs = [finished.finished("rebrain", seed) for seed in (1, 2)]
    comparison = compare(finished, runs, {"oracle": tmp_path / "oracle"})
    write_comparison(comparison, tmp_path / "written")
    text = (tmp_path / "written" / "table1.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| oracle |")][:1]
    assert "**0.0000**" in row
    assert "**1.0000**" in row
    assert {path.name for path in (tmp_path / "written" / "figures").iterdir()} == {
        "montage.png",
        "points.png",
    }
    with pytest.raises(ComparisonError, match="taken"):
        compare(finished, runs, {"rebrain": tmp_path / "oracle"})
