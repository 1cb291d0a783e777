"""Methods and predictions on a tiny data set whose answers are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from rebrain_node.model.recipe import Grid, Image
from tests.support.ball_head import ball_subject, write_balls
from tests.support.tiny_bundle import tiny_recipe
from trainer.data.dataset import PreparedData
from trainer.data.protocols import Sparsity
from trainer.evaluate.methods import NetworkMethod, PredictionError, Predictions
from trainer.evaluate.networks import Network
from trainer.evaluate.run import Comparison, Outcome, Progress, summarise
from trainer.release.card import OURS

SILENT = Progress(lambda _: None, lambda: None)


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("balls")
    return write_balls(folder, {"train": ("a", "b"), "test": ("c", "d")}, "ct")


def unchanged() -> Network:
    """A network that says nothing is to be changed: it draws the source."""

    def evaluate(x: Image, _: Image, guide: Image | None = None) -> Image:
        return np.zeros_like(x[:, :1])

    facts = {"name": "none", "version": "0", "digest": "0", "engine": "numpy"}
    grid = Grid(rows=64, columns=48, pixel_mm=1.25)
    recipe = tiny_recipe().model_copy(update={"grid": grid, "sampling": (1.0,)})
    return Network(recipe, evaluate, facts)  # type: ignore[arg-type]


def compare(data: PreparedData, protocol: str, predictions: list[Predictions]) -> Outcome:
    network = unchanged()
    return Comparison(
        data=data,
        sparsity=Sparsity.parse(protocol),
        mode="standard",
        recipe=network.recipe,
        bridges=[NetworkMethod(OURS, network, data, 0), NetworkMethod("other", network, data, 0)],
        predictions=predictions,
    ).run(data.split["test"], SILENT)


def truths(data: PreparedData, folder: Path, scale: float = 1.0) -> Path:
    folder.mkdir()
    for name in data.split["test"]:
        np.save(folder / f"{name}.npy", data.subject(name).target * scale)
    return folder


@pytest.fixture(scope="module")
def thinned(balls: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = truths(balls, tmp_path_factory.mktemp("perfect") / "truths")
    return compare(balls, "decimate:2", [Predictions("perfect", folder)])


@pytest.fixture(scope="module")
def whole(balls: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = truths(balls, tmp_path_factory.mktemp("small") / "truths", scale=1 / 1000)
    return compare(balls, "none", [Predictions("small", folder)])


def test_the_truth_as_a_prediction_scores_full_marks_and_nobody_else_does(thinned: Outcome) -> None:
    for found in thinned.found["perfect"].values():
        assert found["psnr"] == found["psnr_filled"] == pytest.approx(100)
        assert found["ssim"] == found["brain_correlation"] == pytest.approx(1)
        assert found["nrmse"] == found["i_ssim_gap"] == found["spectrum_error"] == 0
    others = thinned.found.keys() - {"perfect"}
    assert all(thinned.found[other]["c"]["psnr"] < 60 for other in others)
    assert thinned.remarks == []


def test_every_method_has_a_row_where_slices_are_missing(thinned: Outcome) -> None:
    found = thinned.found

    assert list(found) == [
        "constant", "identity", "lut", "linear-lut", "exemplar",
        "rebrain", "bridge-average", "bridge-linear", "bridge-slerp", "other", "other-average",
        "perfect",
    ]  # fmt: skip
    assert {"psnr_measured", "psnr_filled", "ssim_filled"} <= found["lut"]["c"].keys()
    assert found["bridge-average"] == found["bridge-linear"]  # the middle of two
    assert thinned.skipped["template"].startswith("no training head can be placed")


def test_nothing_fills_where_nothing_is_missing(whole: Outcome) -> None:
    found = whole.found

    assert list(found) == ["constant", "identity", "lut", "exemplar", "rebrain", "other", "small"]
    assert not [name for name in found["lut"]["c"] if name.endswith("_filled")]


def test_the_same_comparison_has_the_same_outcome(tmp_path: Path) -> None:
    data = write_balls(tmp_path / "balls", {"train": ("a",), "test": ("c",)}, "mr")

    assert compare(data, "decimate:3", []).found == compare(data, "decimate:3", []).found


def test_the_lookup_table_learns_what_brightness_means(whole: Outcome) -> None:
    found = whole.found

    assert found["lut"]["c"]["brain_correlation"] > 0.8
    assert found["identity"]["c"]["brain_correlation"] < -0.8  # warm is dark in these balls
    assert found["constant"]["c"]["brain_correlation"] == 0


def test_a_network_that_changes_nothing_draws_the_source(
    balls: PreparedData, whole: Outcome
) -> None:
    (montage,) = whole.montages
    brain = balls.subject("c").brain

    apart = np.abs(montage.predictions["rebrain"] - montage.predictions["identity"])[brain]

    assert np.median(apart) < 0.01  # all but the rim, where the grid mixes in bone
    assert np.ptp(montage.predictions["identity"][brain]) > 0.1


def test_without_a_training_split_nobody_learns_from_the_subject_scored(tmp_path: Path) -> None:
    data = write_balls(tmp_path / "balls", {"test": ("c", "d")}, "mr")
    comparison = compare(data, "none", [])
    only_other = write_balls(tmp_path / "other", {"test": ("c",), "train": ("d",)}, "mr")

    assert comparison.found["lut"]["c"] == compare(only_other, "none", []).found["lut"]["c"]


def test_the_montage_shows_the_first_subject(thinned: Outcome) -> None:
    (montage,) = thinned.montages

    assert montage.subject == "c"
    assert montage.predictions.keys() >= {"lut", "rebrain"}
    assert montage.source.shape == montage.reference.shape == montage.predictions["lut"].shape
    assert 0 <= montage.source.min() <= montage.source.max() <= 1


def test_a_prediction_in_another_unit_is_remarked_on(whole: Outcome) -> None:
    (remark, _) = whole.remarks

    assert remark.startswith("small: the volume of c spans less than 1 %")


def nifti(volume: np.ndarray, spacing: tuple[float, float, float]) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(volume)
    image.SetSpacing(spacing)
    return image


def test_a_nifti_is_read_whatever_way_it_is_stored(tmp_path: Path) -> None:
    subject = ball_subject("c")
    image = nifti(subject.target, (1.25, 1.5, 2.0))  # column, row, slice
    stored = SimpleITK.DICOMOrient(image, "RAS")
    SimpleITK.WriteImage(stored, str(tmp_path / "c.nii.gz"))

    np.testing.assert_array_equal(Predictions("x", tmp_path).read(subject), subject.target)


def _cut(target: np.ndarray) -> np.ndarray:
    return target[:-1]


def _spoiled(target: np.ndarray) -> np.ndarray:
    return np.where(target > 300, np.nan, target)


@pytest.mark.parametrize(
    ("damage", "reason"), [(_cut, r"shape \(9, 24, 20\), expected"), (_spoiled, "not finite")]
)
def test_a_prediction_that_does_not_fit_is_refused_with_its_file(
    tmp_path: Path, damage: type, reason: str
) -> None:
    subject = ball_subject("c")
    np.savez(tmp_path / "c.npz", damage(subject.target))

    with pytest.raises(PredictionError, match=rf"c\.npz: .*{reason}"):
        Predictions("x", tmp_path).read(subject)


def test_a_nifti_of_other_voxels_is_refused(tmp_path: Path) -> None:
    subject = ball_subject("c")
    SimpleITK.WriteImage(nifti(subject.target, (1.0, 1.0, 2.0)), str(tmp_path / "c.nii"))

    with pytest.raises(PredictionError, match=r"c\.nii: voxels of 2\.000 x 1\.000 x 1\.000 mm"):
        Predictions("x", tmp_path).read(subject)


def test_a_missing_prediction_is_refused_before_anything_is_drawn(
    balls: PreparedData, tmp_path: Path
) -> None:
    np.save(tmp_path / "c.npy", balls.subject("c").target)

    with pytest.raises(PredictionError, match="0 files for subject d"):
        compare(balls, "none", [Predictions("half", tmp_path)])


def test_a_figure_sums_up_subjects() -> None:
    found = summarise({"a": 1.0, "b": 3.0}, seed=0)

    assert found["mean"] == 2
    assert found["sd"] == pytest.approx(np.sqrt(2))
    assert found["ci95"] == [1, 3]
    assert summarise({"a": 5.0}, seed=0)["ci95"] == [5, 5]


@pytest.mark.parametrize("protocol", ["none", "decimate:2"])
def test_volumes_that_an_evaluation_writes_score_the_same_when_they_are_read_back(
    tmp_path: Path, balls: PreparedData, protocol: str
) -> None:
    network = unchanged()
    comparison = Comparison(
        data=balls,
        sparsity=Sparsity.parse(protocol),
        mode="standard",
        recipe=network.recipe,
        bridges=[NetworkMethod(OURS, network, balls, 0)],
        written=tmp_path,
    )
    first = comparison.run(("c",), SILENT)
    again = replace(comparison, bridges=[], predictions=[Predictions("again", tmp_path / OURS)])

    ours, read = first.found[OURS]["c"], again.run(("c",), SILENT).found["again"]["c"]
    assert read.keys() == ours.keys()
    # A file is in the unit of the data, in float32: values one rounding apart may come back equal,
    # and the matching of ranks then gives them one rank, which changes PSNR by 0.0002 dB here.
    assert read == pytest.approx(ours, abs=5e-4)
