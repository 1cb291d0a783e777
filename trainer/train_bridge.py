"""The training loop, top to bottom.

Every draw is seeded by run, step and number of the sample, the learning rate depends on the step
alone, and a checkpoint holds weights, their running mean and the optimiser: a run that was
interrupted and resumed gives the same weights as one that was not, and a run of several processes
the weights of one, to rounding.
"""

import csv
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rebrain_node.model.recipe import Recipe
from rebrain_node.model.unet import Network, network_of
from trainer.config import TrainConfig, Training
from trainer.dice import Dice
from trainer.losses import Loss, draw_places
from trainer.sources import Source, draw_batch, moved
from trainer.workers import ALONE_ON_CPU, Workers

Progress = Callable[[int, float], None]  # step, mean loss since the last report
REPORT_EVERY = 50
_WARM_UP = 100
_LAST_RATE = 0.02


@dataclass
class State:
    """Everything that a checkpoint must hold; changed in place by the loop."""

    network: Network
    mean: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int
    seconds: float


def fresh_state(config: TrainConfig, device: torch.device) -> State:
    """Return an untrained state, seeded, on `device`."""
    training = config.train
    torch.manual_seed(training.seed)
    network = network_of(config.recipe)
    # torch's stub of Module.to lacks memory_format beside a device
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        network.parameters(), training.learning_rate, weight_decay=training.weight_decay
    )
    mean = {name: value.clone() for name, value in network.state_dict().items()}
    return State(network, mean, optimiser, 0, 0.0)


def save(state: State, digest: str, path: Path) -> None:
    """Write a checkpoint so that a reader finds the old one or the new one, never half of one."""
    content = {
        "network": state.network.state_dict(),
        "mean": state.mean,
        "optimiser": state.optimiser.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
        "digest": digest,
    }
    part = path.with_suffix(".part")
    with part.open("wb") as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def _content(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def read_checkpoint(path: Path, digest: str) -> dict[str, Any]:
    """Read a checkpoint of ours, tensors and numbers only.

    Raises
    ------
    ValueError
        It was trained with other parameters than `digest` names.
    """
    content = _content(path)
    if content["digest"] != digest:
        raise ValueError(f"{path} was trained with other parameters; give another --run")
    return content


def resume(state: State, digest: str, path: Path) -> None:
    """Bring `state` to where the checkpoint at `path` was written."""
    content = read_checkpoint(path, digest)
    state.network.load_state_dict(content["network"])
    state.optimiser.load_state_dict(content["optimiser"])
    for name, value in content["mean"].items():
        state.mean[name].copy_(value)
    state.step, state.seconds = content["step"], content["seconds"]


def learning_rate(training: Training, step: int) -> float:
    """Return the rate at a step: linear warm-up, then a cosine."""
    warm = min(1.0, (step + 1) / _WARM_UP)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / training.steps)))
    return training.learning_rate * warm * (_LAST_RATE + (1 - _LAST_RATE) * cosine)


def update_mean(state: State, decay: float) -> None:
    """Move the running mean of the weights; it starts as a plain average."""
    decay = min(decay, 1 - 1 / (state.step + 1))
    with torch.no_grad():
        for name, value in state.network.state_dict().items():
            state.mean[name].lerp_(value, 1 - decay)


def note(out: Path, state: State, loss: float, rate: float) -> None:
    """Append one line to the curve."""
    with (out / "curve.csv").open("a", newline="") as stream:
        csv.writer(stream).writerow(
            [state.step, round(state.seconds, 1), round(loss, 5), f"{rate:.3e}"]
        )


def open_run(run: Path) -> tuple[Recipe, Network]:
    """Return the recipe of a run and the running mean of its weights, ready for evaluation."""
    recipe = Recipe.from_json((run / "recipe.json").read_bytes())
    network = network_of(recipe)
    network.load_state_dict(_content(run / "checkpoint.pt")["mean"])
    return recipe, network.eval()


def train(
    config: TrainConfig,
    source: Source,
    state: State,
    out: Path,
    report: Progress,
    workers: Workers = ALONE_ON_CPU,
) -> None:
    """Train to `config.train.steps`, from wherever `state` is.

    The first process writes `out/recipe.json`, `out/curve.csv` (step, seconds, loss, learning
    rate) and `out/checkpoint.pt`, and reports.
    """
    training, digest, frame = config.train, config.training_digest, config.recipe.grid.shape
    loss_of = workers.parallel(Loss(state.network, training))
    share = workers.share(training.batch)
    losses: list[Tensor] = []
    if workers.writes:
        (out / "recipe.json").write_text(config.recipe.to_json())
    begun = time.monotonic() - state.seconds
    state.network.train()
    while state.step < training.steps:
        rate = learning_rate(training, state.step)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        dice = [Dice(training.seed, state.step, sample) for sample in share]
        batch = moved(draw_batch(source, dice), workers.device)
        draws = draw_places(training, frame, dice).to(workers.device)
        loss: Tensor = loss_of(batch, draws, workers.mean(batch.weight.sum()).clamp(min=1))
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.network.parameters(), training.clip)
        state.optimiser.step()
        state.step += 1
        update_mean(state, training.ema)

        losses.append(loss.detach())
        state.seconds = time.monotonic() - begun
        last = state.step == training.steps
        if state.step % REPORT_EVERY == 0 or last:
            mean_loss = workers.mean(torch.stack(losses).mean()).item()
            losses.clear()
            if workers.writes:
                note(out, state, mean_loss, rate)
                report(state.step, mean_loss)
        if workers.writes and (state.step % training.checkpoint_every == 0 or last):
            save(state, digest, out / "checkpoint.pt")
