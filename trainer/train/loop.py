"""The training loop, top to bottom, for every network of the trainer.

A caller brings three things: a state (network, running mean of its weights, optimiser), a function
that draws the batch of a step, and a function from a batch to a loss. Batches depend on the step
alone, and so does the learning rate: a run that was interrupted and resumed gives the same weights
as one that was not, and a run of several processes the weights of one, to rounding.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from trainer.train.state import Optimisation, State
from trainer.train.workers import ALONE_ON_CPU, Workers

N = TypeVar("N", bound=nn.Module)
B = TypeVar("B")
Progress = Callable[[int, float], None]  # step, mean loss since the last report

_LAST_RATE = 0.02


class LoopParameters(Optimisation, Protocol):
    """The keys of a training section that the loop reads."""

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""

    @property
    def clip(self) -> float:
        """Largest norm of the gradient."""

    @property
    def ema(self) -> float:
        """Decay of the running mean of the weights, per step."""

    @property
    def checkpoint_every(self) -> int:
        """Steps between two checkpoints."""


@dataclass(frozen=True)
class Schedule:
    """Length of a run, its learning rate, and when it reports and saves.

    Attributes
    ----------
    training : LoopParameters
        Section of the configuration.
    warm_up : int
        Steps until the learning rate is reached.
    report_every : int
        Steps between two lines of the curve.
    """

    training: LoopParameters
    warm_up: int
    report_every: int

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
    """Where a run writes, and who is told of its progress.

    Attributes
    ----------
    folder : Path
        Gets `curve.csv` (step, seconds, loss, learning rate) and `checkpoint.pt`.
    report : callable
        Called with the step and the mean loss since the last report.
    check : callable, optional
        Called with the step before every checkpoint; raises where none may be written.
    """

    folder: Path
    report: Progress
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
            state.save(output.folder / "checkpoint.pt")


def update(network: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor, clip: float) -> None:
    """Take one step of the optimiser down the gradient of `loss`, of norm `clip` at most."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimiser.step()
