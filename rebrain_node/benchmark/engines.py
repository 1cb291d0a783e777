"""One network evaluation by each library, each in a process of its own, in turns.

``python -m rebrain_node.benchmark.engines NAME FOLDER THREADS`` measures one and prints JSON.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from rebrain_node.benchmark.row import BenchmarkRow, Progress, Rows
from rebrain_node.engine.open import open_engine
from rebrain_node.model.bundle import load_bundle

if TYPE_CHECKING:
    from rebrain_node.domain.volume import FloatArray
    from rebrain_node.model.bundle import ModelBundle

_WARM_UP: Final = 2
_EVALUATIONS: Final = 12
#: libraries beside that of the node: module, and how the row names it
_PEERS: Final = {"torch": "torch eager, fp32", "onnxruntime": "ONNX Runtime, fp32"}
_Evaluation = Callable[["FloatArray", "FloatArray"], object]


def measure_engines(folder: Path, threads: int, repeats: int, progress: Progress) -> Rows:
    """Measure the node's engine beside torch and ONNX Runtime; without the guide of a slice."""
    names = ["openvino", *(name for name in _PEERS if find_spec(name))]
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            progress(f"network evaluation, {name}")
            words = [sys.executable, "-P", "-m", __name__, name, str(folder), str(threads)]
            answer = subprocess.check_output(words)  # noqa: S603 - our own program
            times[name].append(float(json.loads(answer)))
    ours = statistics.median(times["openvino"])
    return [
        BenchmarkRow(
            what=f"network evaluation, {threads} threads",
            unit="ms",
            ours=ours,
            peer=peer,
            theirs=statistics.median(times[name]) if name in times else None,
            skipped="" if name in times else f"{name} is not installed",
        )
        for name, peer in _PEERS.items()
    ]


def evaluation_ms(name: str, folder: Path, threads: int) -> float:
    """Return the median time of an evaluation by one library in this process."""
    bundle = load_bundle(folder)
    random, grid = np.random.default_rng(0), bundle.recipe.grid
    x = random.uniform(-1, 1, (1, 5, grid.rows, grid.columns)).astype(np.float32)
    s = np.array([[1.0, 2.0, 3.0, 2.0]], dtype=np.float32)
    evaluate = _onnxruntime(bundle, threads) if name == "onnxruntime" else None
    if evaluate is None:
        evaluate = open_engine(name, bundle, threads).evaluate
    times_ms = []
    for _ in range(_WARM_UP + _EVALUATIONS):
        begun = time.perf_counter()
        evaluate(x, s)
        times_ms.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times_ms[_WARM_UP:])


def _onnxruntime(bundle: ModelBundle, threads: int) -> _Evaluation:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        bundle.read("network.onnx"), options, providers=["CPUExecutionProvider"]
    )
    features = {
        each.name: np.zeros(each.shape, dtype=np.float32)
        for each in session.get_inputs()
        if each.name not in {"x", "s"}
    }
    return lambda x, s: session.run(None, {"x": x, "s": s, **features})


if __name__ == "__main__":
    library, path, count = sys.argv[1:]
    sys.stdout.write(json.dumps(evaluation_ms(library, Path(path), int(count))))
