"""The prepared data set: who teaches and who does not, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rebrain_node.model.bundle import load_bundle
from rebrain_node.model.recipe import Retrieval
from tests.support.ball_head import ball_subject, write_balls
from trainer.config import TrainConfig
from trainer.data.archive import open_any
from trainer.data.dataset import DatasetError, Meta, PreparedData, write_subject
from trainer.heads import catalogue, role_of

SPLIT = {"train": ("a", "b"), "validation": ("c",), "test": ("d",)}
META = Meta(pixel_mm=None, affine=None, files={}, inputs={}, notes=(), sha256={})


@pytest.mark.parametrize("kind", ["ct", "mr"])
def test_what_is_written_is_read(tmp_path, kind):
    data = write_balls(tmp_path, SPLIT, kind)

    assert data.split == SPLIT
    assert data.source_kind == kind
    subject, truth = data.subject("b"), ball_subject("b", seed=1)
    for field in ("source", "target", "mask", "brain", "positions_mm"):
        assert getattr(subject, field).dtype == getattr(truth, field).dtype
        np.testing.assert_array_equal(getattr(subject, field), getattr(truth, field))
    assert subject.pixel_mm == (1.5, 1.25)


@pytest.mark.parametrize("file", ["source.npy", "target.npy", "mask.npy", "brain.npy", "meta.json"])
def test_one_changed_byte_is_found_on_opening(tmp_path, file):
    write_balls(tmp_path, SPLIT, "ct")
    path = tmp_path / "c" / file
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)

    with pytest.raises(DatasetError, match=f"c/{file} differs"):
        PreparedData.open(tmp_path)


def test_a_missing_file_is_found_on_opening(tmp_path):
    write_balls(tmp_path, SPLIT, "ct")
    (tmp_path / "d" / "mask.npy").unlink()

    with pytest.raises(DatasetError, match=r"d/mask\.npy is missing"):
        PreparedData.open(tmp_path)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"train": ["a", "b"], "validation": ["c"], "test": ["a", "d"]}, "a .* train and test"),
        ({"train": ["a", "b"], "validation": [], "test": ["d"]}, "c .* no role"),
        ({"train": ["a", "b", "b"], "validation": ["c"], "test": ["d"]}, "b .* train and train"),
        ({"train": ["a", "b", "x"], "validation": ["c"], "test": ["d"]}, "x is listed 0 times"),
    ],
)
def test_a_split_in_which_somebody_does_not_play_exactly_one_role_is_refused(
    tmp_path, split, words
):
    write_balls(tmp_path, SPLIT, "ct")
    path = tmp_path / "dataset.json"
    document = json.loads(path.read_text())
    document["split"] = split
    path.write_text(json.dumps(document))

    with pytest.raises(DatasetError, match=words):
        PreparedData.open(tmp_path)


def test_a_folder_without_an_index_is_unfinished(tmp_path):
    write_balls(tmp_path, SPLIT, "ct")
    (tmp_path / "dataset.json").unlink()

    with pytest.raises(DatasetError, match=r"dataset\.json is missing"):
        open_any(tmp_path)


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path):
    write_balls(tmp_path, SPLIT, "ct")
    path = tmp_path / "dataset.json"
    path.write_text(path.read_text().replace('"d"', '"../d"'))

    with pytest.raises(DatasetError, match="pattern"):
        PreparedData.open(tmp_path)


BALL = ball_subject("x")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": BALL.target[1:]}, "shapes"),
        ({"mask": np.zeros_like(BALL.mask)}, "empty"),
        ({"target": np.full_like(BALL.target, np.nan)}, "4800 values of the target"),
        ({"positions_mm": BALL.positions_mm[::-1]}, "not rising"),
        ({"brain": BALL.brain[:, 1:]}, "shapes"),
    ],
)
def test_an_unfit_subject_is_not_written(tmp_path, changes, words):
    with pytest.raises(DatasetError, match=f"x: .*{words}"):
        write_subject(tmp_path, replace(BALL, **changes), "ct", META)

    assert list(tmp_path.iterdir()) == []


def _pairs(folder: Path, **changes: np.ndarray) -> Path:
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    radius = np.hypot(y, x)
    ct = np.where(radius < 0.7, 110, np.where(radius < 0.8, 250, 0)).astype(np.uint8)
    arrays = {
        "ct": np.stack([ct + i for i in range(5)]),
        "t1": np.stack([ct // 2] * 5),
        "patient": np.array([7, 7, 7, 10, 10]),
        "slice": np.array([2, 0, 1, 0, 1]),
        **changes,
    }
    np.savez(folder / "pairs.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder / "pairs.npz"


def test_an_archive_of_pairs_opens_as_a_test_set_in_slice_order(tmp_path):
    data = open_any(_pairs(tmp_path))
    subject = data.subject("7")

    assert data.split == {"train": (), "validation": (), "test": ("10", "7")}
    assert not data.volumetric
    assert data.source_kind == "ct-window"
    assert subject.source[:, 128, 128].tolist() == [111, 112, 110]
    assert subject.positions_mm.tolist() == [0, 1, 2]
    assert subject.pixel_mm is None
    assert 0.9 < subject.mask.mean() / (np.pi * 0.8**2 / 4) < 1.1
    assert 0.85 < subject.brain.mean() / (np.pi * 0.7**2 / 4) < 1.05


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"t1": None}, "keys t1 are missing"),
        ({"slice": np.arange(4)}, "one entry for each image"),
        ({"ct": np.zeros((5, 256, 256), np.float32)}, "ct uint8"),
    ],
)
def test_an_archive_that_is_not_one_is_refused_with_its_path(tmp_path, changes, words):
    with pytest.raises(DatasetError, match=rf"pairs\.npz: .*{words}"):
        open_any(_pairs(tmp_path, **changes))


def test_two_slices_of_a_patient_with_one_number_are_refused(tmp_path):
    data = open_any(_pairs(tmp_path, slice=np.array([0, 0, 1, 0, 1])))

    with pytest.raises(DatasetError, match=r"7: .*not rising"):
        data.subject("7")


def test_anything_else_is_neither(tmp_path):
    (tmp_path / "x.txt").write_text("no data")

    with pytest.raises(DatasetError, match="neither"):
        open_any(tmp_path / "x.txt")


def test_the_seven_patients_open(shared_data):
    data = open_any(shared_data / "ct_t1_pairs_7patients.npz")

    assert data.names == ("1", "3", "4", "6", "7", "8", "9")
    assert data.subject("4").source.shape == (9, 256, 256)
    assert data.subject("4").brain.any()


ROOT = Path(__file__).parents[3]


def test_the_demonstration_head_and_the_held_out_heads_never_teach() -> None:
    assert role_of("colin27") == "demonstration"
    assert {role_of(name) for name in ("sub21", "sub22", "sub02", "label02")} == {"validation"}
    assert {role_of(name) for name in ("sub01", "label01", "seg3d_mr")} == {"train"}


def test_the_catalogue_has_heads_to_learn_from_and_enough_to_calibrate_on(
    shared_data: Path,
) -> None:
    heads = catalogue(shared_data)

    assert sum(head.role == "train" for head in heads) >= 22
    assert sum(head.role != "train" and head.whole_head_truth for head in heads) >= 20
    assert all(head.t1.is_file() for head in heads)
    assert {head.kind for head in heads} == {"t1", "labels"}


def test_a_label_map_says_that_the_origin_of_its_scan_is_not_stated(shared_data: Path) -> None:
    (head,) = (each for each in catalogue(shared_data) if each.name == "label02")

    assert "Apache-2.0" in head.licence
    assert "origin of the scans not stated" in head.licence


def test_the_card_of_the_shipped_bundle_names_the_split_that_the_trainer_makes() -> None:
    card = load_bundle(ROOT / "rebrain_node" / "bundles" / "demo").card
    for use in card.data:
        if use.role != "external test":
            assert {role_of(name) for name in use.subjects} == {use.role}


def test_the_shipped_bundle_was_trained_with_the_parameters_in_the_repository() -> None:
    bundle = load_bundle(ROOT / "rebrain_node" / "bundles" / "demo")
    config = TrainConfig.load(ROOT / "conf" / "train" / "demo-second.toml")

    alone = bundle.recipe.model_copy(update={"retrieval": Retrieval(), "abstain": None})
    assert alone == config.recipe  # what `guide` and `calibrate` add is theirs
    assert bundle.card.training.steps == config.train.steps
    assert bundle.card.training.seed == config.train.seed
