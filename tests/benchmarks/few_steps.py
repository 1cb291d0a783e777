"""Few time steps on the bridge compared with a hundred, the same weights on the same slices.

Run: ``python -m tests.benchmarks.few_steps RUN_OR_BUNDLE DATA [PROTOCOL]``: the first test subject
of a prepared data set. Target: at most 8 time steps within 0.1 dB PSNR, 0.002 SSIM and 0.002 of the
I-SSIM gap of 100.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from rebrain_node.model.sampling import uniform_time_steps
from trainer.data.dataset import PreparedData
from trainer.data.protocols import Sparsity, thinned
from trainer.evaluate.methods import NetworkMethod
from trainer.evaluate.metrics import Reference, metrics_of_volume
from trainer.evaluate.networks import open_network

COUNTS = (1, 2, 4, 8, 100)
METRICS = ("psnr", "ssim", "i_ssim_gap")


def main(where: str, data_folder: Path, protocol: str = "decimate:2") -> int:
    """Print the table."""
    data = PreparedData.open(data_folder)
    case = thinned(data.subject(data.split["test"][0]), Sparsity.parse(protocol))
    truth = Reference.of(case, volumetric=True)
    network = open_network(where)
    sys.stdout.write("steps   " + "  ".join(f"{name:>10s}" for name in METRICS) + "\n")
    for count in COUNTS:
        recipe = network.recipe.model_copy(update={"sampling": uniform_time_steps(count)})
        bridge = NetworkMethod("bridge", replace(network, recipe=recipe), data, 0)
        _, volume = next(iter(bridge.synthesise(case, lambda: None)))
        scores = metrics_of_volume(volume, truth, "standard")
        sys.stdout.write(
            f"{count:6d}  " + "  ".join(f"{scores[name]:10.4f}" for name in METRICS) + "\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
