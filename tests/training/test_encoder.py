"""Training the encoder: the losses by hand, what attracts and repels, the same run twice."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from rebrain_node.model.encoder import COLUMNS, ROWS
from trainer.config import EncoderTraining
from trainer.sample_rng import SampleRng
from trainer.simulate.stacks import Stacks
from trainer.train.encoder import (
    SliceBatch,
    augmented,
    contrast,
    draw_batch,
    fresh_state,
    loss_of,
    pairs,
    pairs_across,
    percept,
    train,
)
from trainer.train.workers import TrainingError

ROOT = Path(__file__).resolve().parents[2]
DEMO = tomllib.loads((ROOT / "conf/train/demo.toml").read_text())["encoder"]
TINY = EncoderTraining(
    **{**DEMO, "runs": 2, "run_length": 4, "steps": 2, "warm_up": 1, "checkpoint_every": 1}
)


@pytest.fixture(scope="module")
def stacks() -> Stacks:
    """Two subjects with two series of four slices each: a disc that grows with its position."""
    position = np.tile(np.arange(4) * 5.0, 4)
    y, x = np.mgrid[:ROWS, :COLUMNS] - np.array([ROWS / 2, COLUMNS / 2])[:, None, None]
    discs = [(np.hypot(y, x) < 20 + z) * np.uint8(120) for z in position]
    return Stacks(
        slices=np.stack(discs).astype(np.uint8),
        mr=np.zeros((16, ROWS, COLUMNS), np.uint8),
        position_mm=position,
        subject=np.repeat(np.arange(2, dtype=np.int32), 8),
        stack=np.repeat(np.arange(4, dtype=np.int32), 4),
        rank=np.tile(np.arange(4, dtype=np.int32), 4),
        names=("one", "two"),
        digest="0" * 64,
    )


def _batch(
    positives: list[tuple[int, int]], negatives: list[tuple[int, int]], n: int
) -> SliceBatch:
    matrices = []
    for listed in (positives, negatives):
        matrix = torch.zeros(n, n, dtype=torch.bool)
        for row, column in listed:
            matrix[row, column] = True
        matrices.append(matrix)
    none = torch.zeros(n, n, dtype=torch.bool)
    return SliceBatch(torch.zeros(n, 1, ROWS, COLUMNS), *matrices, across=none, apart=none)


def test_the_contrast_is_equation_8_computed_by_hand():
    """Anchor (1, 0) with a positive at cosine 0.6 and negatives at 0 and -1; alpha 0.5."""
    embedding = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    batch = _batch([(0, 1)], [(0, 2), (0, 3)], 4)
    expected = -math.log(math.exp(1.2) / (math.exp(1.2) + math.exp(0.0) + math.exp(-2.0)))
    assert contrast(embedding, batch, 0.5).item() == pytest.approx(expected, rel=1e-6)


def test_several_positives_are_summed_before_the_logarithm():
    embedding = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]])
    batch = _batch([(0, 1), (0, 2)], [(0, 3)], 4)
    attracted = math.exp(0.6) + math.exp(0.8)
    expected = -math.log(attracted / (attracted + math.exp(-1.0)))
    assert contrast(embedding, batch, 1.0).item() == pytest.approx(expected, rel=1e-6)


def test_the_percept_is_equation_10_on_normalised_channels():
    """One token of two channels: normalised it is (1, -1) or (-1, 1), 4 apart or 0."""
    middle = torch.tensor([[[3.0, 1.0]], [[9.0, 2.0]], [[0.0, 5.0]]])
    batch = _batch([(0, 1)], [(0, 2)], 3)
    expected = -math.log(1.0 / (1.0 + math.exp(-4.0 / 2.0)))
    assert percept(middle, batch, 2.0).item() == pytest.approx(expected, abs=1e-4)


def test_the_logarithm_of_sums_stays_finite_where_exponentials_would_not():
    embedding = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    loss = contrast(embedding, _batch([(0, 1)], [(0, 2)], 3), 1e-3)
    loss.backward()
    assert loss.item() == pytest.approx(2000.0)
    assert embedding.grad is not None
    assert torch.isfinite(embedding.grad).all()


def test_the_gradient_pulls_the_positive_and_pushes_the_negative():
    embedding = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], requires_grad=True)
    contrast(embedding, _batch([(0, 1)], [(0, 2)], 3), 0.1).backward()
    assert embedding.grad is not None
    assert embedding.grad[1, 0] < 0  # descending moves it towards the anchor
    assert embedding.grad[2, 0] > 0


def test_turning_all_embeddings_together_changes_nothing():
    torch.manual_seed(0)
    embedding = torch.nn.functional.normalize(torch.randn(6, 5), dim=1)
    turn, _ = torch.linalg.qr(torch.randn(5, 5))
    batch = _batch([(0, 1), (2, 3)], [(0, 4), (2, 5), (0, 5)], 6)
    same = contrast(embedding @ turn, batch, 0.1)
    assert contrast(embedding, batch, 0.1).item() == pytest.approx(same.item(), rel=1e-4)


def test_only_the_next_k_slices_attract_and_the_k_before_are_left_alone():
    rank = np.arange(6, dtype=np.int32)
    positives, negatives = pairs(np.zeros(6, np.int32), rank, rank * 5.0, reach=2, near_mm=5.0)
    assert positives[2].tolist() == [False, False, False, True, True, False]
    assert negatives[2].tolist() == [False, False, False, False, False, True]
    assert not (positives & negatives).any()


def test_slices_of_another_series_at_the_same_position_are_not_negatives():
    position = np.array([0.0, 4.9, 5.0, -5.0, 0.0])
    stack = np.array([0, 1, 1, 1, 0], dtype=np.int32)
    rank = np.array([0, 0, 1, 2, 9], dtype=np.int32)
    positives, negatives = pairs(stack, rank, position, reach=2, near_mm=5.0)
    assert not positives[0].any()
    assert negatives[0].tolist() == [False, False, True, True, True]


def test_across_series_position_alone_attracts_and_repels():
    position = np.array([0.0, 1.0, 3.0, 6.0, 0.0])
    stack = np.array([0, 1, 1, 2, 0], dtype=np.int32)
    across, apart = pairs_across(stack, position, across_mm=2.5, near_mm=5.0)
    assert across[0].tolist() == [False, True, False, False, False]  # the last is its own series
    assert apart[0].tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("has", [True, False])
def test_the_encoder_learns_in_the_precision_that_the_processor_has(stacks, has, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    state, seen = fresh_state(TINY, stacks), set()
    for layer in state.network.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(lambda _layer, _given, answer: seen.add(answer.dtype))
    loss_of(state.network, draw_batch(stacks, TINY, SampleRng(1, 0)), TINY)
    assert seen == {torch.bfloat16 if has else torch.float32}


def test_a_term_across_series_is_added_where_two_of_them_meet(stacks):
    state = fresh_state(TINY, stacks)
    batches = (draw_batch(stacks, TINY, SampleRng(1, step)) for step in range(20))
    batch = next(drawn for drawn in batches if drawn.across.any())
    alone = TINY.model_copy(update={"across_mm": 0.0})
    with torch.no_grad():
        extra = loss_of(state.network, batch, TINY) - loss_of(state.network, batch, alone)
    assert extra > 0


def test_an_augmented_slice_keeps_its_air_its_range_and_about_its_size():
    images = torch.full((3, 1, ROWS, COLUMNS), -1.0)
    images[:, :, 40:80, 30:70] = 0.4
    moved = augmented(images, SampleRng(1, 0))
    assert moved.min() == -1
    assert moved.max() <= 1
    assert (moved[:, :, :5] == -1).all()
    assert ((moved > -0.9).float().mean() / (images > -0.9).float().mean()).item() == pytest.approx(
        1.0, abs=0.3
    )


def test_a_batch_is_made_of_runs_and_depends_on_seed_and_step_alone(stacks):
    first, again = (draw_batch(stacks, TINY, SampleRng(TINY.seed, 5)) for _ in range(2))
    other = draw_batch(stacks, TINY, SampleRng(TINY.seed, 6))
    assert first.images.shape == (8, 1, ROWS, COLUMNS)
    assert first.positives[0].tolist()[:3] == [False, True, True]
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_without_weight_the_perceptual_loss_is_left_out(stacks):
    state = fresh_state(TINY, stacks)
    batch = draw_batch(stacks, TINY, SampleRng(1, 1))
    with torch.no_grad():
        both = loss_of(state.network, batch, TINY)
        alone = loss_of(state.network, batch, TINY.model_copy(update={"percept_weight": 0.0}))
    assert both > alone > 0


def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(stacks, tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    for folder in (whole, parted):
        folder.mkdir()
    straight = fresh_state(TINY, stacks)
    train(TINY, stacks, straight, whole, lambda *_: None)

    with pytest.raises(KeyboardInterrupt):
        train(TINY, stacks, fresh_state(TINY, stacks), parted, _interrupt)
    resumed = fresh_state(TINY, stacks)
    resumed.resume(parted / "checkpoint.pt")
    assert resumed.step == 1
    train(TINY, stacks, resumed, parted, lambda *_: None)
    for name, value in straight.mean.items():
        assert torch.equal(value, resumed.mean[name]), name

    changed = fresh_state(TINY.model_copy(update={"alpha": 1.0}), stacks)
    with pytest.raises(TrainingError, match="other parameters"):
        changed.resume(parted / "checkpoint.pt")


def _interrupt(step: int, _: float) -> None:
    """Stop at the end, when the checkpoint is still that of the step before."""
    assert step == TINY.steps
    raise KeyboardInterrupt
