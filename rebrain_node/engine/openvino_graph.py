"""OpenVINO's runtime on the CPU and the graphs it compiles; what engine, encoder and head share."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from rebrain_node.errors import EngineFailed

if TYPE_CHECKING:
    from rebrain_node.domain.volume import FloatArray

Precision = Literal["bf16", "fp32"]

#: Modules that OpenVINO would load to report each import to its maker; the runtime needs neither.
REPORTING_MODULES: Final = ("openvino_telemetry", "openvino.tools.ovc")


@dataclass(frozen=True)
class Runtime:
    """OpenVINO, loaded, at one precision; compiles graphs.

    Attributes
    ----------
    threads : int or None
        Threads of one evaluation; by default one for each physical core.
    """

    core: Any
    version: str
    precision: Precision
    threads: int | None

    @classmethod
    def of_best_precision(cls, threads: int | None) -> Runtime:
        """Load it at bf16 where the processor has that, else fp32; raises as `import_openvino`."""
        core, version = _core()
        offered = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return cls(core, version, "bf16" if "BF16" in offered else "fp32", threads)

    @classmethod
    def of_single_precision(cls, threads: int | None) -> Runtime:
        """Load it at fp32, for numbers that thresholds are set on; raises as `import_openvino`."""
        return cls(*_core(), "fp32", threads)

    @property
    def identity(self) -> str:
        """Name, version and precision, e.g. ``openvino 2026.4.1 fp32``."""
        return f"openvino {self.version} {self.precision}"

    def graph(self, name: str, content: bytes) -> Graph:
        """Compile the ONNX file ``name`` of a bundle; raises as `Graph`."""
        return Graph(self.core, name, content, _plan(self.precision, self.threads))


def _core() -> tuple[Any, str]:
    openvino = import_openvino()
    return openvino.Core(), openvino.get_version().split("-")[0]


class Graph:
    """One compiled ONNX graph of static shapes; not for two threads at a time.

    Attributes
    ----------
    shapes : dict
        Of what it takes, by name.

    Raises
    ------
    EngineFailed
        OpenVINO cannot compile it.
    """

    def __init__(self, runtime: Any, name: str, content: bytes, plan: dict[str, object]) -> None:
        self.name = name
        try:
            compiled = runtime.compile_model(runtime.read_model(io.BytesIO(content)), "CPU", plan)
        except RuntimeError as error:
            raise EngineFailed(
                f"openvino cannot compile {name}: {_first_line(error)}; "
                "check the bundle with `rebrain-node bundle verify`"
            ) from error
        self.shapes = {port.get_any_name(): tuple(port.shape) for port in compiled.inputs}
        self._answers = [port.get_any_name() for port in compiled.outputs]
        self._request = compiled.create_infer_request()

    def run(self, given: dict[str, FloatArray]) -> dict[str, FloatArray]:
        """Infer; what is given and what is answered go by the names of the graph."""
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


def _plan(precision: Precision, threads: int | None) -> dict[str, object]:
    plan: dict[str, object] = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        # The node shares its machine: threads stay where the system puts them.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        plan["INFERENCE_NUM_THREADS"] = threads
    return plan


def _first_line(error: RuntimeError) -> str:
    """Take the one line of an OpenVINO error that says what is wrong."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
