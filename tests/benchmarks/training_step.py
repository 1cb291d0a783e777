"""Seconds of a training step of the demonstration: python -m tests.benchmarks.training_step.

Forward and backward through the network in single precision, in bfloat16, and as `rebrain-train`
chooses on this machine, in turns; medians.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from rebrain_node.model.recipe import CHANNELS
from rebrain_node.model.unet import BridgeUNet
from trainer.config import TrainConfig
from trainer.train.workers import reduced

CONFIG = Path(__file__).parents[2] / "conf" / "train" / "demo.toml"
REPEATS = 3


def precisions() -> dict[str, AbstractContextManager]:
    """What a step may be computed in, by name."""
    return {
        "single": torch.autocast("cpu", torch.bfloat16, enabled=False),
        "bfloat16": torch.autocast("cpu", torch.bfloat16),
        "chosen": reduced("cpu"),
    }


def main() -> None:
    """Measure and print one JSON object."""
    config = TrainConfig.load(CONFIG)
    network = BridgeUNet(config.recipe.widths)
    x = torch.randn(config.train.batch, len(CHANNELS), *config.recipe.grid.shape)
    x, scalars = x.contiguous(memory_format=torch.channels_last), torch.rand(len(x), 4)
    seconds: dict[str, list[float]] = {name: [] for name in precisions()}
    for _ in range(1 + REPEATS):
        for name, precision in precisions().items():
            begun = time.perf_counter()
            with precision:
                drawn = network(x, scalars)
            drawn.float().square().mean().backward()
            seconds[name].append(time.perf_counter() - begun)
    medians = {name: round(statistics.median(each[1:]), 2) for name, each in seconds.items()}
    found = {"cpu": torch.cpu.get_capabilities().get("cpu_name"), "seconds": medians}
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
