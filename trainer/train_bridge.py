"""The training loop, top to bottom.

Every draw of a step is seeded by run and step, the learning rate depends on the step alone, and
a checkpoint holds weights, their running mean and the optimiser: a run that was interrupted
and resumed gives the same weights as one that was not.
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
from torch.nn import functional

from rebrain_node.model import bridge
from rebrain_node.model.unet import BridgeUNet
from trainer.config import TrainConfig, Training
from trainer.dice import Dice
from trainer.pool import Pool
from trainer.samples import Batch, draw_batch, sample_weights

Progress = Callable[[int, float], None]  # step, mean loss since the last report
REPORT_EVERY = 50
_WARM_UP = 100
_LAST_RATE = 0.02


@dataclass
class State:
    """Everything that a checkpoint must hold; changed in place by the loop."""

    network: BridgeUNet
    mean: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int
    seconds: float


def fresh_state(training: Training, widths: tuple[int, ...]) -> State:
    """Return an untrained state, seeded."""
    torch.manual_seed(training.seed)
    network = BridgeUNet(widths)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
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


def read_checkpoint(path: Path, digest: str) -> dict[str, Any]:
    """Read a checkpoint of ours, tensors and numbers only.

    Raises
    ------
    ValueError
        It was trained with other parameters than `digest` names.
    """
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if content["digest"] != digest:
        raise ValueError(f"{path} was trained with other parameters; give another --out")
    return content


def resume(state: State, digest: str, path: Path) -> None:
    """Bring `state` to where the checkpoint at `path` was written."""
    content = read_checkpoint(path, digest)
    state.network.load_state_dict(content["network"])
    state.optimiser.load_state_dict(content["optimiser"])
    state.mean = content["mean"]
    state.step, state.seconds = content["step"], content["seconds"]


def learning_rate(training: Training, step: int) -> float:
    """Return the rate at a step: linear warm-up, then a cosine."""
    warm = min(1.0, (step + 1) / _WARM_UP)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / training.steps)))
    return training.learning_rate * warm * (_LAST_RATE + (1 - _LAST_RATE) * cosine)


def draw_places(training: Training, count: int, dice: Dice) -> Tensor:
    """Draw m, (count, 1, 1, 1): a fixed share at 1, the rest U(0, 1); regression is m = 1."""
    places = dice.uniform(0, 1, count, 1, 1, 1)
    at_start = dice.uniform(0, 1, count, 1, 1, 1) < training.start_share
    if training.objective == "regression":
        return torch.ones_like(places)
    return torch.where(at_start, 1.0, places)


def sample_weight(training: Training, m: Tensor, batch: Batch) -> Tensor:
    """Return W of each sample, (batch, 1, 1, 1); 1 for the raw and regression objectives."""
    if training.objective != "directional":
        return torch.ones_like(m)
    squared = (batch.conditioning[:, :1] - batch.x0) ** 2 * batch.head
    over_head = batch.head.sum((1, 2, 3), keepdim=True).clamp(min=1)
    rho = bridge.contrast(squared.sum((1, 2, 3), keepdim=True) / over_head)
    weight: Tensor = bridge.directional_weight(m, rho)
    return weight


def dissimilarity(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean of 1 - SSIM, uniform 7 x 7 window, images in [-1, 1]."""

    def mean(image: Tensor) -> Tensor:
        return functional.avg_pool2d(image, 7, 1, 3)

    a, b = (a + 1) / 2, (b + 1) / 2
    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    ssim = ((2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)) / (
        (mean_a**2 + mean_b**2 + 1e-4) * (variance_a + variance_b + 9e-4)
    )
    return ((1 - ssim) * weight).sum() / weight.sum().clamp(min=1)


def loss_of(network: nn.Module, batch: Batch, training: Training, dice: Dice) -> Tensor:
    """Return mean |W (x0_hat - x0)| + ssim_weight (1 - SSIM), both weighted per pixel."""
    m = draw_places(training, len(batch.x0), dice)
    y = batch.conditioning[:, :1]
    state = bridge.marginal(batch.x0, y, m, dice.normal(*batch.x0.shape))
    x = torch.cat([state, batch.conditioning], dim=1)
    s = torch.cat([m.flatten(1), batch.distances_mm], dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        flow = network(x.contiguous(memory_format=torch.channels_last), s)
    x0_hat: Tensor = bridge.estimate(state, flow.float())
    error = (sample_weight(training, m, batch) * (x0_hat - batch.x0)).abs()
    absolute: Tensor = (error * batch.weight).sum() / batch.weight.sum().clamp(min=1)
    return absolute + training.ssim_weight * dissimilarity(x0_hat, batch.x0, batch.weight)


def update_mean(state: State, decay: float) -> None:
    """Move the running mean of the weights; it starts as a plain average."""
    decay = min(decay, 1 - 1 / (state.step + 1))
    with torch.no_grad():
        for name, value in state.network.state_dict().items():
            state.mean[name].lerp_(value, 1 - decay)


def train(config: TrainConfig, pool: Pool, state: State, out: Path, report: Progress) -> None:
    """Train to `config.train.steps`, from wherever `state` is.

    Writes `out/curve.csv` (step, seconds, loss, learning rate) and `out/checkpoint.pt`.
    """
    training, digest = config.train, config.training_digest
    weights = sample_weights(pool)
    losses: list[float] = []
    begun = time.monotonic() - state.seconds
    state.network.train()
    while state.step < training.steps:
        rate = learning_rate(training, state.step)
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        dice = Dice(training.seed, state.step)
        batch = draw_batch(pool, weights, config.recipe, training.batch, dice)
        loss = loss_of(state.network, batch, training, dice)
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.network.parameters(), training.clip)
        state.optimiser.step()
        state.step += 1
        update_mean(state, training.ema)

        losses.append(loss.item())
        state.seconds = time.monotonic() - begun
        if state.step % REPORT_EVERY == 0 or state.step == training.steps:
            mean_loss = sum(losses) / len(losses)
            with (out / "curve.csv").open("a", newline="") as stream:
                csv.writer(stream).writerow(
                    [state.step, round(state.seconds, 1), round(mean_loss, 5), f"{rate:.3e}"]
                )
            report(state.step, mean_loss)
            losses.clear()
        if state.step % training.checkpoint_every == 0 or state.step == training.steps:
            save(state, digest, out / "checkpoint.pt")
