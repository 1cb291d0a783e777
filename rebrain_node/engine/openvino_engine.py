"""OpenVINO on the CPU: the default engine.

It reads the ONNX graph from verified bytes, knows no torch, and starts in well under a second.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rebrain_node.errors import EngineFailed

if TYPE_CHECKING:
    from rebrain_node.domain.volume import FloatArray

#: Modules that OpenVINO would load to report each import to its maker; the runtime needs neither.
REPORTING_MODULES: Final = ("openvino_telemetry", "openvino.tools.ovc")

#: RMS of the deviation over RMS of the golden output. bf16 keeps 8 bits of mantissa, and some
#: twenty layers of it deviate by 0.01; fp32 differs only in the order of its sums, by 2e-6.
LIMITS: Final = {"bf16": 0.03, "fp32": 1e-4}


class OpenVinoEngine:
    """One evaluation of the network on the CPU; not for two threads at a time.

    Parameters
    ----------
    network : bytes
        ONNX graph with inputs ``x`` and ``s`` of static shape and the output ``f``.
    threads : int or None
        Threads of one evaluation; by default one for each physical core.

    Raises
    ------
    EngineFailed
        OpenVINO cannot be loaded or cannot compile the graph.
    """

    def __init__(self, network: bytes, threads: int | None = None) -> None:
        openvino = import_openvino()
        try:
            runtime = openvino.Core()
            offered = runtime.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            self.precision = "bf16" if "BF16" in offered else "fp32"
            graph = runtime.read_model(io.BytesIO(network))
            compiled = runtime.compile_model(graph, "CPU", _plan(self.precision, threads))
            self._shapes = {name: tuple(compiled.input(name).shape) for name in ("x", "s")}
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            raise EngineFailed(
                f"openvino cannot compile network.onnx: {first_line(error)}; "
                "check the bundle with `rebrain-node bundle verify`"
            ) from error
        version = openvino.get_version().split("-")[0]
        self.identity = f"openvino {version} {self.precision}"

    @property
    def deviation_limit(self) -> float:
        """Largest normalised deviation from the golden output at this precision."""
        return LIMITS[self.precision]

    def evaluate(self, x: FloatArray, s: FloatArray, guide: FloatArray | None = None) -> FloatArray:
        """Evaluate f: x (1, channels, rows, columns), s (1, scalars) to (1, 1, rows, columns).

        Raises
        ------
        EngineFailed
            A guide is given, and this engine runs no control branch; or the shapes are not
            those the network was exported for.
        """
        if guide is not None:
            raise EngineFailed(
                f"{self.identity} runs no control branch and was given a guide; "
                'use a bundle with retrieval.method "none"'
            )
        given = {"x": x.shape, "s": s.shape}
        if given != self._shapes:
            raise EngineFailed(
                f"{self.identity} was given shapes {given}; the network takes {self._shapes}, "
                "as the recipe's grid says"
            )
        answer = self._request.infer({"x": x, "s": s})
        return np.array(answer["f"], dtype=np.float32)


def import_openvino() -> Any:
    """Import OpenVINO without its usage reporting.

    ``import openvino`` loads its model converter, which sends an event to its maker's analytics
    service unless the user has opted out. The node converts nothing and sends nothing that was
    not asked for: the converter and the reporter are barred from this process.

    Raises
    ------
    EngineFailed
        OpenVINO is not installed or its libraries do not load here.
    """
    for name in REPORTING_MODULES:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type] # None bars an import
    try:
        import openvino
    except ImportError as error:
        raise EngineFailed(
            f"openvino does not load: {error}; install rebrain-node again, "
            'or set engine = "torch" in [model]'
        ) from error
    return openvino


def _plan(precision: str, threads: int | None) -> dict[str, object]:
    plan: dict[str, object] = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        # The node shares its machine: threads stay where the system puts them.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        plan["INFERENCE_NUM_THREADS"] = threads
    return plan


def first_line(error: RuntimeError) -> str:
    """Take the one line of an OpenVINO error that says what is wrong."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
