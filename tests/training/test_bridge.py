"""Training the bridge is a function of its seed, whatever interrupts it and however precise."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rebrain_node.errors import SettingsError
from rebrain_node.model.recipe import Grid
from rebrain_node.model.unet import Network
from tests.support.ball_head import ball_maps, write_ball_pool
from trainer.config import TrainConfig
from trainer.release.bundle import finished_run
from trainer.sample_rng import SampleRng
from trainer.simulate.hounsfield import tissues
from trainer.simulate.pool import (
    Pool,
    draw_samples,
    write_subject,
)
from trainer.train import bridge as train_bridge
from trainer.train.bridge import fresh_state, note_start, open_run, start_of, train
from trainer.train.loop import State, drawn_ahead
from trainer.train.samples import PoolSource, draw_batch
from trainer.train.workers import TrainingError, device_of, reduced

WIDTHS = (8, 16)
CPU = torch.device("cpu")
DEMO = Path(__file__).parents[2] / "conf" / "train" / "demo.toml"


@pytest.fixture(scope="module")
def pool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    roles = {"ball": "train", "other": "validation"}
    return write_ball_pool(tmp_path_factory.mktemp("pool"), roles, count=4)


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    demo = TrainConfig.load(DEMO)
    grid = Grid(rows=64, columns=48, pixel_mm=0.9)
    recipe = demo.recipe.model_copy(update={"grid": grid, "widths": WIDTHS})
    training = demo.train.model_copy(update={"steps": 4, "batch": 2, "checkpoint_every": 1})
    return demo.model_copy(update={"recipe": recipe, "train": training})


@pytest.fixture(scope="module")
def source(pool_folder: Path, config: TrainConfig) -> PoolSource:
    return PoolSource.of(Pool.open(pool_folder, "train"), config.recipe)


def _trained(config: TrainConfig, source: PoolSource, out: Path) -> State[Network]:
    out.mkdir()
    state = fresh_state(config, CPU)
    train(config, source, state, out, lambda _step, _loss: None)
    return state


def _assert_same_weights(a: State[Network], b: State[Network]) -> None:
    for name, value in a.mean.items():
        torch.testing.assert_close(value, b.mean[name], rtol=0, atol=0, msg=name)


def test_training_twice_gives_identical_weights(
    config: TrainConfig, source: PoolSource, tmp_path: Path
) -> None:
    first, second = (_trained(config, source, tmp_path / name) for name in ("a", "b"))

    _assert_same_weights(first, second)
    untrained = fresh_state(config, CPU)
    assert not torch.equal(first.mean["leave.weight"], untrained.mean["leave.weight"])


def test_a_run_that_was_interrupted_ends_with_the_weights_of_one_that_was_not(
    config: TrainConfig, source: PoolSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _trained(config, source, tmp_path / "whole")
    monkeypatch.setattr(train_bridge, "REPORT_EVERY", 1)
    out = tmp_path / "cut"
    out.mkdir()

    def interrupt(step: int, _loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, source, fresh_state(config, CPU), out, interrupt)
    state = fresh_state(config, CPU)
    state.resume(out / "checkpoint.pt")
    assert state.step == 2
    train(config, source, state, out, lambda _step, _loss: None)

    _assert_same_weights(whole, state)


def test_a_checkpoint_of_other_parameters_is_not_resumed(
    config: TrainConfig, source: PoolSource, tmp_path: Path
) -> None:
    _trained(config, source, tmp_path / "run")

    other = config.model_copy(update={"train": config.train.model_copy(update={"seed": 8})})
    begun = fresh_state(other, CPU)
    with pytest.raises(TrainingError, match="other parameters"):
        begun.resume(tmp_path / "run" / "checkpoint.pt")


def test_training_begins_with_the_weights_of_a_bundle(
    config: TrainConfig, source: PoolSource, tmp_path: Path
) -> None:
    first = _trained(config, source, tmp_path / "first")
    weights = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in first.mean.items()}, weights)

    second = fresh_state(config, CPU, weights)

    _assert_same_weights(first, second)
    (tmp_path / "second").mkdir()
    assert start_of(tmp_path / "second") is None
    note_start(tmp_path / "second", weights)
    train(config, source, second, tmp_path / "second", lambda *_: None)
    assert not torch.equal(first.mean["leave.weight"], second.mean["leave.weight"])
    _, facts = finished_run(config, tmp_path / "second", tmp_path / "bundle")
    assert facts.start == hashlib.sha256(weights.read_bytes()).hexdigest()
    with pytest.raises(TrainingError, match="other parameters"):  # random weights are another run
        fresh_state(config, CPU).resume(tmp_path / "second" / "checkpoint.pt")


def test_weights_of_another_network_are_refused_by_their_file(
    config: TrainConfig, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file({"leave.weight": torch.zeros(1)}, weights)

    with pytest.raises(SettingsError, match=r"weights\.safetensors has no weights of the network"):
        fresh_state(config, CPU, weights)


def _with_objective(config: TrainConfig, objective: str) -> TrainConfig:
    return config.model_copy(
        update={
            "train": config.train.model_copy(update={"objective": objective}),
            "recipe": config.recipe.model_copy(update={"objective": objective}),
        }
    )


@pytest.mark.parametrize("objective", ["directional", "raw", "unitized", "regression"])
def test_every_objective_gives_a_finite_loss_with_gradients_everywhere(
    config: TrainConfig, source: PoolSource, objective: str
) -> None:
    chosen = _with_objective(config, objective)
    network = fresh_state(chosen, CPU).network
    rng = [SampleRng(0, 0, sample) for sample in range(2)]
    batch = draw_batch(source, rng)
    draws = train_bridge.draw_time_steps(chosen.train, config.recipe.grid.shape, rng)

    loss = train_bridge.Loss(network, chosen.train)(batch, draws, batch.weight.sum())
    loss.backward()

    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("objective", ["directional", "unitized"])
def test_a_loss_is_computed_in_the_precision_that_the_processor_has(
    config: TrainConfig,
    source: PoolSource,
    objective: str,
    has: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    chosen = _with_objective(config, objective)
    network = fresh_state(chosen, CPU).network
    seen: set[torch.dtype] = set()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _layer, _given, answer: seen.add(answer.dtype))
    rng = [SampleRng(0, 0, 0)]
    batch = draw_batch(source, rng)
    draws = train_bridge.draw_time_steps(chosen.train, config.recipe.grid.shape, rng)

    train_bridge.Loss(network, chosen.train)(batch, draws, batch.weight.sum())

    assert seen == {torch.bfloat16 if has else torch.float32}


def test_a_run_folder_opens_with_its_own_recipe_and_widths(
    config: TrainConfig, source: PoolSource, tmp_path: Path
) -> None:
    chosen = _with_objective(config, "unitized")
    state = _trained(chosen, source, tmp_path / "run")

    recipe, network = open_run(tmp_path / "run")

    assert recipe == chosen.recipe
    for name, value in network.state_dict().items():
        assert torch.equal(value, state.mean[name])


def test_half_of_the_draws_begin_at_the_ct_slice(config: TrainConfig) -> None:
    rng = [SampleRng(0, 0, sample) for sample in range(2000)]

    places = train_bridge.draw_time_steps(config.train, (1, 1), rng).m

    assert (places == 1).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert places.min() >= 0


def test_time_steps_on_a_grid_are_whole_steps_and_reach_the_ct_slice(config: TrainConfig) -> None:
    training = config.train.model_copy(update={"bridge_steps": 4, "start_share": 0.0})
    rng = [SampleRng(0, 0, sample) for sample in range(200)]

    places = train_bridge.draw_time_steps(training, (1, 1), rng).m

    assert set(places.flatten().tolist()) == {0.25, 0.5, 0.75, 1.0}


def test_the_random_numbers_of_samples_and_steps_differ() -> None:
    drawn = {SampleRng(7, step, sample).between(0, 1) for step in range(40) for sample in range(8)}

    assert len(drawn) == 320


def test_the_same_seed_and_step_draw_the_same_batch(source: PoolSource) -> None:
    first, again, other = (
        draw_batch(source, [SampleRng(3, step, 0), SampleRng(3, step, 1)]) for step in (5, 5, 6)
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


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
    ],
)
def test_a_processor_without_bfloat16_computes_in_single_precision(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    layer = torch.nn.Linear(4, 4)
    with reduced("cpu"):
        assert layer(torch.zeros(1, 4)).dtype == expected
    assert layer(torch.zeros(1, 4)).dtype == torch.float32


@pytest.mark.parametrize("first", [0, 3])
def test_batches_drawn_ahead_are_those_of_their_steps_and_none_is_drawn_beyond_the_last(
    first: int,
) -> None:
    asked: list[int] = []

    def draw(step: int) -> int:
        asked.append(step)
        return 10 * step

    take = drawn_ahead(draw, 9, threads=2)

    assert [take(step) for step in range(first, 9)] == [10 * step for step in range(first, 9)]
    assert sorted(asked) == list(range(first, 9))


def test_an_error_in_a_batch_drawn_ahead_reaches_the_loop() -> None:
    def draw(step: int) -> int:
        raise FileNotFoundError(f"step {step}")

    with pytest.raises(FileNotFoundError, match="step 0"):
        drawn_ahead(draw, 4, threads=2)(0)


def test_a_gpu_that_is_asked_for_and_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(SettingsError, match="give --device cpu"):
        device_of("cuda")
    assert device_of(None).type == "cpu"
