"""The training loop, top to bottom, for every network of the trainer.

A caller brings three things: a state (network, running mean of its weights, optimiser), a function
that draws the batch of a step, and a function from a batch to a loss. Batches depend on the step
alone, and so does the learning rate: a run that was interrupted and resumed gives the same weights
as one that was not, and a run of several processes the weights of one, to rounding.
"""

import csv
import math
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from trainer.train.workers import ALONE_ON_CPU, TrainingError, Workers

CHECKPOINT: Final = "checkpoint.pt"  #: in the folder of a run
N = TypeVar("N", bound=nn.Module)


class LoopParameters(Protocol):
    """The keys of a training section that the loop and its optimiser read."""

    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def learning_rate(self) -> float: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def clip(self) -> float: ...  # noqa: D102
    @property
    def ema(self) -> float: ...  # noqa: D102
    @property
    def checkpoint_every(self) -> int: ...  # noqa: D102


@dataclass
class State(Generic[N]):
    """Everything that a checkpoint must hold; changed in place by the loop."""

    network: N
    mean: dict[str, Tensor]  #: running mean of the weights: what is released
    optimiser: torch.optim.Optimizer
    digest: str  #: SHA-256 of what shapes the weights; a resume must not change it
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def fresh(cls, network: N, training: LoopParameters, digest: str) -> "State[N]":
        """Begin with `network`, which is where it is to be trained."""
        optimiser = torch.optim.AdamW(
            network.parameters(), training.learning_rate, weight_decay=training.weight_decay
        )
        mean = {name: value.clone() for name, value in network.state_dict().items()}
        return cls(network, mean, optimiser, digest)

    def save(self, path: Path) -> None:
        """Write a checkpoint; a reader finds the old one or the new one, never half of one."""
        content = {
            "network": self.network.state_dict(),
            "mean": self.mean,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "digest": self.digest,
        }
        part = path.with_suffix(".part")
        with part.open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)

    def resume(self, path: Path) -> None:
        """Go to where the checkpoint at `path` was written; raises as `read_checkpoint`."""
        content = read_checkpoint(path, self.digest)
        self.network.load_state_dict(content["network"])
        self.optimiser.load_state_dict(content["optimiser"])
        for name, value in content["mean"].items():
            self.mean[name].copy_(value)
        self.step, self.seconds = content["step"], content["seconds"]

    def set_rate(self, rate: float) -> None:
        """Give the optimiser the learning rate of the step to come."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def update_mean(self, decay: float) -> None:
        """Move the running mean of the weights; it starts as a plain average."""
        decay = min(decay, 1 - 1 / (self.step + 1))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.mean[name].lerp_(value, 1 - decay)

    def note(self, out: Path, loss: float, rate: float) -> None:
        """Append step, seconds, loss and learning rate to `out/curve.csv`."""
        with (out / "curve.csv").open("a", newline="") as stream:
            csv.writer(stream).writerow(
                [self.step, round(self.seconds, 1), round(loss, 5), f"{rate:.3e}"]
            )


def checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, tensors and numbers only, whatever parameters it was trained with.

    Raises
    ------
    TrainingError
        There is none.
    """
    if not path.is_file():
        raise TrainingError(
            f"{path.parent} holds no {CHECKPOINT}: it is no run, or its training has not begun"
        )
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def read_checkpoint(path: Path, digest: str) -> dict[str, Any]:
    """Read a checkpoint of the run that `digest` names.

    Raises
    ------
    TrainingError
        There is none, or it was trained with other parameters or data.
    """
    content = checkpoint(path)
    if content["digest"] != digest:
        raise TrainingError(f"{path} was trained with other parameters or data; give another --run")
    return content


B = TypeVar("B")
Progress = Callable[[int, float], None]  # step, mean loss since the last report

_LAST_RATE = 0.02


@dataclass(frozen=True)
class Schedule:
    """Length of a run, its learning rate, and when it reports and saves."""

    training: LoopParameters  #: section of the configuration
    warm_up: int  #: steps until the learning rate is reached
    report_every: int  #: steps between two lines of the curve

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then a cosine to 2 %."""
        warm = min(1.0, (step + 1) / self.warm_up)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.training.steps)))
        return self.training.learning_rate * warm * (_LAST_RATE + (1 - _LAST_RATE) * cosine)

    def is_report(self, step: int) -> bool:
        """Return whether the loss is reported after `step` steps."""
        return step % self.report_every == 0 or step == self.training.steps

    def is_checkpoint(self, step: int) -> bool:
        """Return whether a checkpoint is written after `step` steps."""
        return step % self.training.checkpoint_every == 0 or step == self.training.steps


@dataclass(frozen=True)
class RunOutput:
    """Where a run writes, and what is called with its progress."""

    folder: Path  #: gets `curve.csv` (step, seconds, loss, learning rate) and `checkpoint.pt`
    report: Progress  #: called with the step and the mean loss since the last report
    #: called with the step before every checkpoint; raises where none may be written
    check: Callable[[int], None] | None = None


def fit(
    state: State[N],
    draw: Callable[[int], B],
    loss_of: Callable[[B], Tensor],
    schedule: Schedule,
    output: RunOutput,
    workers: Workers = ALONE_ON_CPU,
) -> None:
    """Train to the last step of the schedule, from the step of `state` on; changes `state`.

    Parameters
    ----------
    draw : callable
        From a step to its batch, or to this process's share of the batch.
    loss_of : callable
        From a batch to a scalar that depends on the parameters of `state.network`.
    workers : Workers
        The first process writes and reports.
    """
    training = schedule.training
    losses: list[Tensor] = []
    begun = time.monotonic() - state.seconds
    state.network.train()
    while state.step < training.steps:
        rate = schedule.rate(state.step)
        state.set_rate(rate)
        loss = loss_of(draw(state.step))
        update(state.network, state.optimiser, loss, training.clip)
        state.step += 1
        state.update_mean(training.ema)

        losses.append(loss.detach())
        state.seconds = time.monotonic() - begun
        if schedule.is_report(state.step):
            mean_loss = workers.mean(torch.stack(losses).mean()).item()
            losses.clear()
            if workers.writes:
                state.note(output.folder, mean_loss, rate)
                output.report(state.step, mean_loss)
        if workers.writes and schedule.is_checkpoint(state.step):
            if output.check is not None:
                output.check(state.step)
            state.save(output.folder / CHECKPOINT)


def drawn_ahead(draw: Callable[[int], B], steps: int, threads: int) -> Callable[[int], B]:
    """Return a function that gives what `draw` gives, drawn by threads before it is asked for.

    For a GPU, which computes a step faster than one core draws its batch. The steps must be asked
    for one after the other.

    Parameters
    ----------
    steps : int
        Number of the last step; none beyond is drawn.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[B]] = deque()
    following = 0

    def next_batch(step: int) -> B:
        nonlocal following
        following = max(following, step)
        while following < steps and len(waiting) < 2 * threads:
            waiting.append(pool.submit(draw, following))
            following += 1
        batch = waiting.popleft().result()
        if step + 1 >= steps:
            pool.shutdown(wait=False)
        return batch

    return next_batch


def update(network: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, clip: float) -> None:
    """Take one step of the optimiser down the gradient of `loss`, of norm `clip` at most."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimiser.step()
