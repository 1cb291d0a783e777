"""Simulated stacks: every slice lies where it says, and files are what their index says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rebrain_node.model.encoder import COLUMNS, ROWS
from tests.support.ball_head import SCALE, ball_maps
from trainer.config import TrainConfig
from trainer.heads import Head
from trainer.simulate.hounsfield import Tissues, tissues
from trainer.simulate.mni import MOST_STRETCH, mni_from_voxel, stretch
from trainer.simulate.stacks import (
    Stack,
    StackIndex,
    StackRecord,
    Stacks,
    draw_stack,
    stack_head,
    write_index,
    write_subject,
)

RECIPE = TrainConfig.load(Path(__file__).resolve().parents[3] / "conf/train/demo.toml").recipe


@pytest.fixture(scope="module")
def head() -> Tissues:
    return tissues(ball_maps())


def test_the_affine_is_that_of_the_coordinates(head):
    affine = mni_from_voxel(head)
    assert np.abs(affine[:3, :3] - np.diag([-SCALE, -SCALE, SCALE])).max() < 0.02
    assert stretch(affine) == pytest.approx(1.0, abs=0.01)


def test_a_stack_is_widest_in_the_middle_of_the_ball_and_steps_evenly(head):
    stack = draw_stack(head, np.random.default_rng(5), 4.0, 2.0, RECIPE)
    assert stack.slices.shape[1:] == (ROWS, COLUMNS)
    steps = np.diff(stack.position_mm) / np.diff(stack.rank)
    assert steps.min() > 0
    assert np.ptp(steps) < 1e-6
    widest = (stack.slices > 0).sum(axis=(1, 2)).argmax()
    assert abs(stack.position_mm[widest]) < 5.0 * SCALE


def _stack(first: int, count: int) -> Stack:
    slices = np.full((count, ROWS, COLUMNS), first, dtype=np.uint8)
    return Stack(slices, slices // 2, 5.0 * np.arange(count), np.arange(count, dtype=np.int32))


def test_stacks_are_numbered_through_all_subjects_and_the_dense_one_is_left_out(tmp_path):
    records = []
    for name, role in (("a", "train"), ("b", "validation"), ("c", "train")):
        drawn = [_stack(1, 3), _stack(2, 2)]
        count, digest = write_subject(tmp_path / f"{name}.npz", iter(drawn))
        records.append(
            StackRecord(name=name, role=role, licence="none", slices=count, sha256=digest)
        )
    write_index(tmp_path, StackIndex(seed=1, subjects=tuple(records)))
    read = Stacks.open(tmp_path, "train")
    assert read.names == ("a", "c")
    assert read.stack.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert read.thick().stack.tolist() == [0, 0, 0, 2, 2, 2]

    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes() + b" ")
    with pytest.raises(ValueError, match="expected SHA-256"):
        Stacks.open(tmp_path, "train")
    with pytest.raises(ValueError, match="no subject with a role of demonstration"):
        Stacks.open(tmp_path, "demonstration")


def test_a_head_whose_coordinates_went_astray_is_left_out(tmp_path):
    maps = ball_maps()
    maps["mni_z"] = np.clip(maps["mni_z"] * (MOST_STRETCH + 0.1), -125, 125).astype(np.int8)
    np.savez(tmp_path / "ball.npz", **maps)
    ball = Head("ball", Path(), None, "none", "train", sharp=False, whole_head_truth=True)
    assert stack_head(ball, tmp_path, tmp_path / "stacks", 1, RECIPE) is None
