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
        ONNX graph of static shape: ``x`` and ``s`` to ``f``, and with a control branch what it
        adds to every level, ``c0``, ``c1``, ...
    threads : int or None
        Threads of one evaluation; by default one for each physical core.
    control : bytes or None
        ONNX graph of the control branch: ``x``, ``s`` and ``guide`` to ``c0``, ``c1``, ...

    Raises
    ------
    EngineFailed
        OpenVINO cannot be loaded or cannot compile a graph.
    """

    def __init__(
        self, network: bytes, threads: int | None = None, control: bytes | None = None
    ) -> None:
        openvino = import_openvino()
        runtime = openvino.Core()
        offered = runtime.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = "bf16" if "BF16" in offered else "fp32"
        plan = _plan(self.precision, threads)
        self._network = _Graph(runtime, "network.onnx", network, plan)
        self._control = None
        if control is not None:
            self._control = _Graph(runtime, "control.onnx", control, plan)
        #: what is added where nothing guides
        self._nothing = {
            name: np.zeros(shape, dtype=np.float32)
            for name, shape in self._network.shapes.items()
            if name not in {"x", "s"}
        }
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
            A guide is given to a bundle without a control branch; or the shapes are not those
            the network was exported for.
        """
        if guide is None:
            return self._run(self._network, {"x": x, "s": s} | self._nothing)["f"]
        if self._control is None:
            raise EngineFailed(
                f"{self.identity} runs no control branch and was given a guide; "
                'use a bundle with control.onnx, or one with retrieval.method "none"'
            )
        added = self._run(self._control, {"x": x, "s": s, "guide": guide})
        return self._run(self._network, {"x": x, "s": s} | added)["f"]

    def _run(self, graph: _Graph, given: dict[str, FloatArray]) -> dict[str, FloatArray]:
        shapes = {name: value.shape for name, value in given.items()}
        if shapes != graph.shapes:
            raise EngineFailed(
                f"{self.identity} was given shapes {shapes}; {graph.name} takes {graph.shapes}, "
                "as the recipe's grid says"
            )
        return graph.run(given)


class _Graph:
    """One compiled ONNX graph."""

    def __init__(self, runtime: Any, name: str, content: bytes, plan: dict[str, object]) -> None:
        self.name = name
        try:
            compiled = runtime.compile_model(runtime.read_model(io.BytesIO(content)), "CPU", plan)
        except RuntimeError as error:
            raise EngineFailed(
                f"openvino cannot compile {name}: {first_line(error)}; "
                "check the bundle with `rebrain-node bundle verify`"
            ) from error
        self.shapes = {port.get_any_name(): tuple(port.shape) for port in compiled.inputs}
        self._answers = [port.get_any_name() for port in compiled.outputs]
        self._request = compiled.create_infer_request()

    def run(self, given: dict[str, FloatArray]) -> dict[str, FloatArray]:
        answer = self._request.infer(given)
        return {name: np.array(answer[name], dtype=np.float32) for name in self._answers}


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
