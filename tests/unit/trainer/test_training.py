"""Training is a function of its seed, whatever interrupts it."""

from pathlib import Path

import pytest
import torch

from rebrain_node.model.recipe import Grid
from tests.ball_head import ball_maps
from trainer import train_bridge
from trainer.config import TrainConfig
from trainer.dice import Dice
from trainer.hounsfield import tissues
from trainer.pool import Pool, PoolIndex, SubjectRecord, draw_samples, write_index, write_subject
from trainer.samples import draw_batch, sample_weights
from trainer.train_bridge import State, fresh_state, resume, train

WIDTHS = (8, 16)
DEMO = Path(__file__).parents[3] / "conf" / "train" / "demo.toml"


@pytest.fixture(scope="module")
def pool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    head, records = tissues(ball_maps()), []
    for name, role in (("ball", "train"), ("other", "validation")):
        digests = write_subject(folder / name, draw_samples(head, name, 4, seed=1), 4)
        records.append(
            SubjectRecord(
                name=name,
                role=role,
                sharp=True,
                whole_head_truth=True,
                samples=4,
                sha256=digests,
            )
        )
    write_index(folder, PoolIndex(seed=1, subjects=tuple(records)))
    return folder


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    demo = TrainConfig.load(DEMO)
    recipe = demo.recipe.model_copy(update={"grid": Grid(rows=64, columns=48, pixel_mm=0.9)})
    training = demo.train.model_copy(update={"steps": 4, "batch": 2, "checkpoint_every": 1})
    return demo.model_copy(update={"recipe": recipe, "train": training})


def _trained(config: TrainConfig, pool: Pool, out: Path) -> State:
    out.mkdir()
    state = fresh_state(config.train, WIDTHS)
    train(config, pool, state, out, lambda _step, _loss: None)
    return state


def _assert_same_weights(a: State, b: State) -> None:
    for name, value in a.mean.items():
        torch.testing.assert_close(value, b.mean[name], rtol=0, atol=0, msg=name)


def test_training_twice_gives_identical_weights(
    config: TrainConfig, pool_folder: Path, tmp_path: Path
) -> None:
    pool = Pool.open(pool_folder, "train")

    first, second = (_trained(config, pool, tmp_path / name) for name in ("a", "b"))

    _assert_same_weights(first, second)
    untrained = fresh_state(config.train, WIDTHS)
    assert not torch.equal(first.mean["leave.weight"], untrained.mean["leave.weight"])


def test_a_run_that_was_interrupted_ends_with_the_weights_of_one_that_was_not(
    config: TrainConfig, pool_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Pool.open(pool_folder, "train")
    whole = _trained(config, pool, tmp_path / "whole")
    monkeypatch.setattr(train_bridge, "REPORT_EVERY", 1)
    out = tmp_path / "cut"
    out.mkdir()

    def pull_the_plug(step: int, _loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, pool, fresh_state(config.train, WIDTHS), out, pull_the_plug)
    state = fresh_state(config.train, WIDTHS)
    resume(state, config.training_digest, out / "checkpoint.pt")
    assert state.step == 2
    train(config, pool, state, out, lambda _step, _loss: None)

    _assert_same_weights(whole, state)


def test_a_checkpoint_of_other_parameters_is_not_resumed(
    config: TrainConfig, pool_folder: Path, tmp_path: Path
) -> None:
    _trained(config, Pool.open(pool_folder, "train"), tmp_path / "run")

    with pytest.raises(ValueError, match="other parameters"):
        resume(fresh_state(config.train, WIDTHS), "0" * 64, tmp_path / "run" / "checkpoint.pt")


@pytest.mark.parametrize("objective", ["directional", "raw", "regression"])
def test_every_objective_gives_a_finite_loss_with_gradients(
    config: TrainConfig, pool_folder: Path, objective: str
) -> None:
    training = config.train.model_copy(update={"objective": objective})
    pool = Pool.open(pool_folder, "train")
    network = fresh_state(training, WIDTHS).network
    batch = draw_batch(pool, sample_weights(pool), config.recipe, 2, Dice(0, 0))

    loss = train_bridge.loss_of(network, batch, training, Dice(0, 1))
    loss.backward()

    assert torch.isfinite(loss)
    assert network.leave.weight.grad is not None
    assert network.leave.weight.grad.abs().sum() > 0


def test_half_of_the_draws_begin_at_the_ct_slice(config: TrainConfig) -> None:
    places = train_bridge.draw_places(config.train, 2000, Dice(0, 0))

    assert (places == 1).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert places.min() >= 0


def test_the_same_dice_draw_the_same_batch(config: TrainConfig, pool_folder: Path) -> None:
    pool = Pool.open(pool_folder, "train")
    weights = sample_weights(pool)

    first, again, other = (
        draw_batch(pool, weights, config.recipe, 2, Dice(3, step)) for step in (5, 5, 6)
    )

    assert torch.equal(first.conditioning, again.conditioning)
    assert not torch.equal(first.conditioning, other.conditioning)
    assert first.conditioning.abs().max() <= 1


def test_only_subjects_of_the_asked_role_are_opened(pool_folder: Path) -> None:
    assert [record.name for record in Pool.open(pool_folder, "train").records] == ["ball"]
    with pytest.raises(ValueError, match="no subject with the role demonstration"):
        Pool.open(pool_folder, "demonstration")


def test_a_pool_that_is_drawn_again_has_the_same_digests(pool_folder: Path, tmp_path: Path) -> None:
    head = tissues(ball_maps())

    digests = write_subject(tmp_path / "ball", draw_samples(head, "ball", 4, seed=1), 4)

    assert digests == Pool.open(pool_folder, "train").records[0].sha256
