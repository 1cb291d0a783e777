"""OpenVINO on the CPU: the default engine.

It reads the ONNX graphs from verified bytes, needs no torch, and starts in well under a second.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from rebrain_node.errors import EngineError

if TYPE_CHECKING:
    from rebrain_node.domain.volume import FloatArray
    from rebrain_node.engine.backend import GraphName
    from rebrain_node.model.bundle import ModelBundle

Precision = Literal["bf16", "fp32"]

#: RMS of the deviation over RMS of the golden output. bf16 keeps 8 bits of mantissa, and some
#: twenty layers of it deviate by 0.01; fp32 differs only in the order of its sums, by 2e-6.
DEVIATION_LIMITS: Final[Mapping[Precision, float]] = {"bf16": 0.03, "fp32": 1e-4}
#: thresholds apply to the outputs of these, so they run in single precision on every machine
_SINGLE_PRECISION: Final = frozenset({"encoder", "scale"})
#: prefix of the control branch's features among the inputs; zero without a guide
_FEATURE_PREFIX: Final = "c"
#: modules by which OpenVINO reports each import to its vendor; the runtime needs neither
REPORTING_MODULES: Final = ("openvino_telemetry", "openvino.tools.ovc")


class OpenVinoBackend:
    """Compiles graphs for the CPU, in bf16 where the processor has it.

    Parameters
    ----------
    threads : int or None
        Threads of one evaluation; by default one for each physical core.

    Raises
    ------
    EngineError
        OpenVINO is not installed or its libraries do not load here.
    """

    batch = 1  #: more at once gain nothing on a CPU, and static shapes are faster

    def __init__(self, threads: int | None = None) -> None:
        openvino = import_openvino()
        self._core = openvino.Core()
        self._version = openvino.get_version().split("-")[0]
        self._threads = threads
        offered = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._best: Precision = "bf16" if "BF16" in offered else "fp32"

    def load(self, name: GraphName, bundle: ModelBundle) -> OpenVinoGraph:
        """Compile ``NAME.onnx`` of a bundle (`Backend.load`)."""
        return self.compile(name, bundle.read(f"{name}.onnx"))

    def compile(self, name: GraphName, content: bytes) -> OpenVinoGraph:
        """Compile an ONNX graph of static shapes.

        Raises
        ------
        EngineError
            OpenVINO cannot compile it.
        """
        precision: Precision = "fp32" if name in _SINGLE_PRECISION else self._best
        try:
            model = self._core.read_model(io.BytesIO(content))
            compiled = self._core.compile_model(model, "CPU", self._options(precision))
        except RuntimeError as error:
            raise EngineError(
                f"openvino cannot compile {name}.onnx: {_first_line(error)}; "
                "check the bundle with `rebrain-node bundle verify`"
            ) from error
        identity = f"openvino {self._version} {precision}"
        return OpenVinoGraph(compiled, f"{name}.onnx", identity, DEVIATION_LIMITS[precision])

    def _options(self, precision: Precision) -> dict[str, object]:
        options: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            # The node shares its machine: threads stay where the system puts them.
            "ENABLE_CPU_PINNING": False,
        }
        if self._threads is not None:
            options["INFERENCE_NUM_THREADS"] = self._threads
        return options


class OpenVinoGraph:
    """One compiled ONNX graph of static shapes (port ``Graph``)."""

    def __init__(self, compiled: Any, file: str, identity: str, deviation_limit: float) -> None:
        self.identity = identity
        self.deviation_limit = deviation_limit
        self._file = file
        self._shapes = {port.get_any_name(): tuple(port.shape) for port in compiled.inputs}
        self._outputs = [port.get_any_name() for port in compiled.outputs]
        self._zeros = {
            name: np.zeros(shape, dtype=np.float32)
            for name, shape in self._shapes.items()
            if name.startswith(_FEATURE_PREFIX)
        }
        self._request = compiled.create_infer_request()

    def run(self, arrays: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Infer once (`Graph.run`).

        Raises
        ------
        EngineError
            The shapes are not those the graph was exported for.
        """
        inputs = {**self._zeros, **arrays}
        shapes = {name: value.shape for name, value in inputs.items()}
        if shapes != self._shapes:
            raise EngineError(
                f"{self.identity} was given shapes {shapes}; {self._file} takes {self._shapes}, "
                "as the recipe's grid says"
            )
        output = self._request.infer(inputs)
        return {name: np.array(output[name], dtype=np.float32) for name in self._outputs}


def import_openvino() -> Any:
    """Import OpenVINO without its usage reporting.

    ``import openvino`` loads its model converter, which sends an event to its vendor's analytics
    service unless the user has opted out. The node needs no conversion, so the import of the
    converter and of the reporting module is blocked in this process.

    Raises
    ------
    EngineError
        OpenVINO is not installed or its libraries do not load here.
    """
    for name in REPORTING_MODULES:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type] # None blocks an import
    try:
        import openvino
    except ImportError as error:
        raise EngineError(
            f"openvino does not load: {error}; install rebrain-node again, "
            'or set engine = "torch" in [model]'
        ) from error
    return openvino


def _first_line(error: RuntimeError) -> str:
    """Take the one line of an OpenVINO error that says what is wrong."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
