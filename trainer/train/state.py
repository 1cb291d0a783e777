"""What a training run keeps, whatever it trains: weights, their running mean, the optimiser.

A checkpoint holds all of it, and the learning rate depends on the step alone: a run that was
interrupted and resumed goes on as if it had not been.
"""

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


class Optimisation(Protocol):
    """The parameters of a loop that shape its optimiser."""

    @property
    def learning_rate(self) -> float:
        """Highest rate, after the warm-up."""

    @property
    def weight_decay(self) -> float:
        """Of AdamW."""


@dataclass
class State(Generic[N]):
    """Everything that a checkpoint must hold; changed in place by the loop.

    Attributes
    ----------
    mean : dict of str to Tensor
        Running mean of the weights: what is released.
    digest : str
        SHA-256 of what shapes the weights; a resume must not change it.
    """

    network: N
    mean: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    digest: str
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def fresh(cls, network: N, training: Optimisation, digest: str) -> "State[N]":
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
    """Read a checkpoint, tensors and numbers only, whatever parameters it was trained with."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def read_checkpoint(path: Path, digest: str) -> dict[str, Any]:
    """Read a checkpoint of the run that `digest` names.

    Raises
    ------
    ValueError
        It was trained with other parameters or data.
    """
    content = checkpoint(path)
    if content["digest"] != digest:
        raise ValueError(f"{path} was trained with other parameters or data; give another --run")
    return content
