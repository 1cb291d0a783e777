"""Time, start-up and memory of each engine: ``python -m tests.benchmarks.engines``.

Each engine runs in a process of its own. Machines are shared: the engines take turns, medians are
printed, and only ratios within one run mean much.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from rebrain_node.engine.open import BACKENDS, open_engine, reproduce_golden
from rebrain_node.model.bundle import load_bundle

SHIPPED = Path(__file__).resolve().parents[2] / "rebrain_node/bundles/demo"
WARM_UP = 2


def measure(name: str, folder: Path, evaluations: int, threads: int | None) -> dict[str, object]:
    """Open one engine in this process and evaluate it."""
    bundle = load_bundle(folder)
    begun = time.perf_counter()
    engine = open_engine(name, bundle, threads)
    opened_s = time.perf_counter() - begun
    random = np.random.default_rng(0)
    grid = bundle.recipe.grid
    x = random.uniform(-1, 1, (1, 5, grid.rows, grid.columns)).astype(np.float32)
    s = np.array([[1.0, 2.0, 3.0, 2.0]], dtype=np.float32)
    times_ms = []
    for _ in range(WARM_UP + evaluations):
        begun = time.perf_counter()
        engine.evaluate(x, s)
        times_ms.append(1000 * (time.perf_counter() - begun))
    return {
        "engine": engine.identity,
        "open_s": opened_s,
        "evaluation_ms": statistics.median(times_ms[WARM_UP:]),
        "deviation": reproduce_golden(engine, bundle),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def in_turn(folder: Path, repeats: int, threads: int | None) -> list[dict[str, object]]:
    """Run every engine ``repeats`` times, taking turns; medians by engine."""
    runs: dict[str, list[dict[str, object]]] = {name: [] for name in BACKENDS}
    for _ in range(repeats):
        for name, found in runs.items():
            command = [sys.executable, "-m", "tests.benchmarks.engines", "--bundle", str(folder)]
            command += ["--only", name] + ([] if threads is None else ["--threads", str(threads)])
            found.append(json.loads(subprocess.check_output(command)))
    return [
        {"engine": found[0]["engine"]}
        | {k: statistics.median(run[k] for run in found) for k in found[0] if k != "engine"}
        for found in runs.values()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=SHIPPED)
    parser.add_argument("--repeats", type=int, default=3, help="processes of each engine")
    parser.add_argument("--evaluations", type=int, default=20, help="evaluations of each process")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", choices=sorted(BACKENDS), help="one engine, as JSON")
    chosen = parser.parse_args()
    if chosen.only:
        one = measure(chosen.only, chosen.bundle, chosen.evaluations, chosen.threads)
        sys.stdout.write(json.dumps(one) + "\n")
        return
    rows = in_turn(chosen.bundle, chosen.repeats, chosen.threads)
    line = "{:28} {:>9} {:>15} {:>10} {:>9}\n"
    sys.stdout.write(line.format("engine", "open s", "evaluation ms", "deviation", "peak MB"))
    for row in rows:
        numbers = (f"{row['open_s']:.2f}", f"{row['evaluation_ms']:.1f}")
        rest = (f"{row['deviation']:.1e}", f"{row['peak_mb']:.0f}")
        sys.stdout.write(line.format(row["engine"], *numbers, *rest))


if __name__ == "__main__":
    main()
