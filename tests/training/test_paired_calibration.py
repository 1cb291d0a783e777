"""Calibration and OOD model from prepared pairs."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rebrain_node.domain.uncertainty import UncertaintyInterpretation
from rebrain_node.model.bundle import ModelBundle, load_bundle
from rebrain_node.model.calibration import Calibration
from tests.support.ball_head import write_balls
from tests.support.tiny_bundle import tiny_calibration, tiny_recipe, write_tiny_bundle
from trainer.calibrate import run
from trainer.calibrate.paired_series import paired_series
from trainer.calibrate.run import CalibrationError, CalibrationSet
from trainer.cli import program
from trainer.data.dataset import PreparedData, SourceKind, Subject
from trainer.data.placing import truth_unit
from trainer.evaluate.scanned_heads import demonstration_head
from trainer.ood.fit import OodFitError
from trainer.ood.paired_series import check_fit, protocols_received, received_series
from trainer.release.ood_model import evaluator_of, ood_model_of, prepared_series


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    recipe = tiny_recipe().model_copy(update={"sampling": (1.0,)})
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "b", recipe)


def balls(folder: Path, kind: SourceKind) -> PreparedData:
    return write_balls(folder, {"train": ("a", "b"), "validation": ("c",), "test": ("d",)}, kind)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["ct", "mr"])
def test_pairs_calibrate_a_bundle_that_says_so(
    kind: SourceKind, bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("STEPS", 2), ("TRAINING_SLICES", 1), ("HELD_OUT_SLICES", 1)):
        monkeypatch.setattr(run, name, value)
    balls(tmp_path / "data", kind)

    result = CliRunner().invoke(
        program,
        ["calibrate", "--bundle", str(bundle.path), "--prepared", str(tmp_path / "data"),
         "--out", str(tmp_path / "new"), "--version", "0.2.0", "--json"],
        catch_exceptions=False,
    )  # fmt: skip

    made, report = load_bundle(tmp_path / "new"), json.loads(result.stdout)
    assert report["taught_by"] == ["a", "b"]
    assert made.calibration.subjects == ("c", "d")
    assert made.calibration.source == made.meaning.source == "paired scans"
    assert set(report["kinds"]) == {"measured", "interpolated"}
    assert {s.test for s in made.card.scores} >= {
        "held-out paired scans, intervals set by the other subjects"
    }
    assert (tmp_path / "new-uncertainty.md").is_file()


def test_the_truth_of_a_position_is_the_slice_of_the_subject_there(
    bundle: ModelBundle, tmp_path: Path
) -> None:
    data = balls(tmp_path / "data", "ct")
    subject, series = data.subject("c"), next(paired_series(data, "c", bundle.recipe))
    t1 = truth_unit(subject.target, subject.mask)
    prepared = series.prepared(bundle.recipe)

    for row in (2, 3):
        truth, known = series.truth(prepared.grid, 2.0 * row, prepared.spacing_mm)
        np.testing.assert_allclose(truth, series.placement.onto(t1[row], 0.0))
        assert known.any()


def test_nobody_trains_and_calibrates(bundle: ModelBundle, tmp_path: Path) -> None:
    for split, words in (({"train": ("a",)}, "validation or test"), ({"test": ("a",)}, "train")):
        folder = tmp_path / words.split()[0]
        data = write_balls(folder, split, "ct")
        with pytest.raises(CalibrationError, match=f"no subject with the role {words}"):
            CalibrationSet.paired(data, bundle.recipe)


def test_a_calibration_on_pairs_is_never_called_one_on_simulated_ct() -> None:
    meaning = UncertaintyInterpretation(alpha=0.1, subjects=25, source="paired scans")
    assert meaning.label == "calibrated on paired scans, n = 25"
    files = {name: hashlib.sha256(name.encode()).hexdigest() for name in run.CALIBRATED_FILES}
    values = tiny_calibration().model_dump() | {"files": files}

    honest = Calibration.model_validate(values | {"source": "paired scans", "label": meaning.label})
    false = Calibration.model_validate(values | {"source": "paired scans"})

    assert honest.fault(files) is None
    assert "must be 'calibrated on paired scans, n = 25'" in false.fault(files)
    assert Calibration.model_validate_json(honest.to_json()) == honest
    assert "source" not in json.loads(tiny_calibration().to_json())  # nodes before it refuse it


def heads(scales: dict[str, float]) -> PreparedData:
    """Dense CT of the demonstration head at several sizes, slices 3 mm apart."""
    whole = demonstration_head()
    hu, t1 = whole.hu[::3, ::2, ::2], whole.t1[::3, ::2, ::2]

    def load(name: str) -> Subject:
        size = scales[name]
        return Subject(
            name=name,
            source=hu,
            target=t1,
            mask=hu > -300,
            brain=None,
            positions_mm=3.0 * size * np.arange(float(len(hu))),
            pixel_mm=(2.0 * size, 2.0 * size),
        )

    split = {"train": tuple(scales), "validation": (), "test": ()}
    return PreparedData("ct", True, split, "BSD-3-Clause", "demonstration heads", "0" * 64, load)


@pytest.mark.slow
def test_an_ood_model_describes_the_ct_of_a_prepared_data_set(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    grid = recipe.grid.model_copy(update={"rows": 64, "columns": 64, "pixel_mm": 4.0})
    bundle = write_tiny_bundle(tmp_path / "b", recipe.model_copy(update={"grid": grid}))
    data = heads({"a": 1.0, "b": 0.97})
    done: list[int] = []

    model = ood_model_of(bundle, prepared_series(bundle, data, lambda: done.append(1)))

    assert len(done) == model.people == 2
    assert model.series >= model.people
    evaluator = evaluator_of(bundle)
    usual = next(iter(received_series(data, "a", evaluator)))
    assert model.score_of(usual.features).score <= model.threshold


def test_series_are_as_far_apart_as_a_node_receives_them() -> None:
    subject = heads({"a": 1.0}).subject("a")

    assert [str(protocol) for protocol in protocols_received(subject)] == [
        "none", "decimate:2", "thick:2",
    ]  # fmt: skip
    sparse = replace(subject, positions_mm=3 * subject.positions_mm)
    assert [str(protocol) for protocol in protocols_received(sparse)] == ["none"]


def test_an_ood_model_is_of_ct_in_hu(tmp_path: Path) -> None:
    with pytest.raises(OodFitError, match="'mr': the OOD model describes volumes of CT in HU"):
        check_fit(balls(tmp_path / "data", "mr"))


@pytest.mark.parametrize("command", ["calibrate --bundle b --version 1", "fit-ood b"])
@pytest.mark.parametrize("subjects", ["", "--maps m --prepared p"])
def test_a_command_takes_subjects_from_one_place(
    bundle: ModelBundle, command: str, subjects: str, tmp_path: Path
) -> None:
    words = [str(bundle.path) if w == "b" else w for w in command.split()]
    result = CliRunner().invoke(program, [*words, "--out", str(tmp_path / "o"), *subjects.split()])

    assert result.exit_code == 2
    assert "give either --prepared" in result.stderr
