"""What all methods share: a step of training, the budget, and the cost of a volume."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rebrain_node.errors import RebrainError
from trainer.data.dataset import Volume
from trainer.peers.volumes import GridCase, TrainingVolumes
from trainer.sample_rng import SampleRng
from trainer.train.loop import update

RATE: Final = 2e-3  #: learning rate of a network that is not trained against another
ADVERSARIAL_RATE: Final = 4e-4  #: of generator and discriminator
_WARM_UP, _LAST_RATE = 0.03, 0.02  # share of the budget; share of the rate
_WEIGHT_DECAY, _CLIP, _EMA = 1e-3, 1.0, 0.99


class PeerError(RebrainError):
    """A method cannot be trained or used; the message says what to change."""


class Peer(Protocol):
    """One method: untrained when made, trained step by step."""

    @property
    def network(self) -> nn.Module:
        """All that synthesises; `fit` leaves the running mean of its weights."""

    def step(self, training: TrainingVolumes, rng: SampleRng, share: float) -> float:
        """Train by one iteration and return its main loss; `share` of the budget is spent."""

    def synthesise(self, given: GridCase) -> Volume:
        """Synthesise every position, (n, rows, columns) in [-1, 1]."""


class BudgetOptimiser:
    """AdamW on some networks, with a learning rate that follows the budget."""

    def __init__(self, *networks: nn.Module, rate: float = RATE) -> None:
        self._networks = nn.ModuleList(networks)
        self._rate = rate
        self._optimiser = torch.optim.AdamW(
            self._networks.parameters(), rate, weight_decay=_WEIGHT_DECAY
        )

    def step(self, loss: Tensor, share: float) -> float:
        """Take one step down `loss` and return it."""
        warm = min(1.0, (share + 0.01) / _WARM_UP)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * warm * (_LAST_RATE + (1 - _LAST_RATE) * cosine)
        update(self._networks, self._optimiser, loss, _CLIP)
        return float(loss.detach())


@dataclass(frozen=True)
class Budget:
    """How long a method may train; exactly one of the two is given.

    Seconds are of the processor, not of the clock: other work on the machine costs nothing.
    """

    seconds: float | None = None
    iterations: int | None = None

    def spent(self, iterations: int, seconds: float) -> float:
        """Return the share that is spent, 1 at the end."""
        if self.iterations is not None:
            return iterations / self.iterations
        return seconds / (self.seconds or 1.0)


@dataclass(frozen=True)
class FitResult:
    """What a training took and what it reached."""

    iterations: int
    seconds: float  #: of the processor
    first_loss: float  #: mean over the first tenth of the iterations
    last_loss: float  #: mean over the last tenth


def fit(
    peer: Peer,
    training: TrainingVolumes,
    budget: Budget,
    seed: int,
    report: Callable[[float], None] = lambda _: None,
) -> FitResult:
    """Train a method until its budget is spent; it keeps the running mean of its weights.

    `report` is called with the share of the budget spent after each iteration.
    """
    mean = {name: value.clone() for name, value in peer.network.state_dict().items()}
    losses: list[float] = []
    begun = time.process_time()
    seconds = share = 0.0
    while share < 1:
        losses.append(peer.step(training, SampleRng(seed, len(losses)), share))
        decay = min(_EMA, (1 + len(losses)) / (10 + len(losses)))
        with torch.no_grad():
            for name, value in peer.network.state_dict().items():
                if value.is_floating_point():
                    mean[name].lerp_(value, 1 - decay)
        seconds = time.process_time() - begun
        share = budget.spent(len(losses), seconds)
        report(min(share, 1.0))
    peer.network.load_state_dict(mean)
    tenth = max(1, len(losses) // 10)
    return FitResult(
        len(losses), seconds, sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    )


@dataclass(frozen=True)
class Cost:
    """What one volume costs."""

    seconds: float  #: of the processor
    flop: float  #: floating-point operations; a multiplication with its addition is two


def synthesised(peer: Peer, given: GridCase) -> tuple[Volume, Cost]:
    """Synthesise a case by a trained method and measure what it costs."""
    peer.network.eval()
    begun = time.process_time()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        volume = peer.synthesise(given)
    peer.network.train()
    return volume, Cost(time.process_time() - begun, float(counter.get_total_flops()))


def parameters(network: nn.Module) -> int:
    """Return the number of parameters that synthesise."""
    return sum(each.numel() for each in network.parameters())
