"""TensorRT on an NVIDIA GPU: plans built from the bundle's ONNX graphs, for batches of slices.

`tensorrt_rtx` builds on any machine for the targets that it knows; `tensorrt` builds only on the
GPU that the plan is for. Both have one interface, and networks are strongly typed: a tensor has the
precision that the graph says (`half_precision`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from rebrain_node.engine.cuda_driver import GpuStream
from rebrain_node.engine.half_precision import REWRITING, for_batches
from rebrain_node.engine.plan_store import PlanKey, PlanStore
from rebrain_node.errors import EngineError

if TYPE_CHECKING:
    from rebrain_node.domain.volume import FloatArray
    from rebrain_node.engine.backend import GraphName
    from rebrain_node.model.bundle import ModelBundle

#: packages that have the interface, the first that is installed is taken
_PACKAGES: Final = ("tensorrt_rtx", "tensorrt")
#: slices of one evaluation, and those for which the plan is tuned
BATCH: Final = 16
#: thresholds apply to the outputs of the others, so they run in single precision
_HALF: Final = frozenset({"network", "control"})
#: RMS of the deviation over RMS of the golden output: convolutions in fp16 deviate by 0.0004,
#: computed on a CPU; fp32 differs only in the order of its sums
DEVIATION_LIMITS: Final[Mapping[str, float]] = {"fp16": 0.003, "fp32": 1e-4}
_FEATURE_PREFIX: Final = "c"
_OPENVINO: Final = 'set model.engine to "openvino"'

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """One graph that was built: its precision, the size of its plan, and how long it took."""

    graph: GraphName
    precision: str
    target: str
    size: int  #: bytes
    seconds: float


class PlanBuilder:
    """Builds plans; needs no GPU with `tensorrt_rtx`.

    Raises
    ------
    EngineError
        Neither package is installed.
    """

    def __init__(self) -> None:
        self._library = _import()
        self.name = f"{self._library.__name__.replace('_', '-')} {self._library.__version__}"

    def key(self, graph: GraphName, bundle: ModelBundle, target: str) -> PlanKey:
        """Name what the plan of a graph depends on."""
        library = f"{self.name}, rewriting {REWRITING}, {_precision(graph)}, 1 to {BATCH} slices"
        return PlanKey(graph=graph, bundle=bundle.digest, library=library, target=target)

    def build(self, graph: GraphName, bundle: ModelBundle, target: str) -> bytes:
        """Build the plan of ``GRAPH.onnx`` for GPUs of a compute capability, e.g. ``SM89``.

        Raises
        ------
        EngineError
            The package does not build for the target here, or cannot build the graph.
        """
        library, log = self._library, _Log(self._library)
        content = for_batches(bundle.read(f"{graph}.onnx"), half=graph in _HALF)
        builder = library.Builder(log.logger)
        flag = library.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network = builder.create_network(1 << int(flag))
        parser = library.OnnxParser(network, log.logger)
        plan = None
        if parser.parse(content):
            config = self._config(builder, network, target)
            plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise EngineError(
                f"{self.name} cannot build {graph}.onnx for {target}: {log.last}; {_OPENVINO}"
            )
        return bytes(plan)

    def load(self, plan: bytes) -> Any:
        """Load a plan on the GPU of this machine.

        Raises
        ------
        EngineError
            It is for another GPU or another version, or there is no GPU.
        """
        log = _Log(self._library)
        engine = self._library.Runtime(log.logger).deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(f"{self.name} cannot load a plan: {log.last}; {_OPENVINO}")
        return engine

    def context(self, engine: Any) -> Any:
        """Make what evaluates a plan; `tensorrt_rtx` captures its kernels as a CUDA graph."""
        if not hasattr(self._library, "CudaGraphStrategy"):
            return engine.create_execution_context()
        options = engine.create_runtime_config()
        options.cuda_graph_strategy = self._library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return engine.create_execution_context(options)

    def inputs_of(self, engine: Any) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the inputs of a plan, without the axis of the slices."""
        return self._ports(engine, self._library.TensorIOMode.INPUT)

    def outputs_of(self, engine: Any) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the outputs of a plan, without the axis of the slices."""
        return self._ports(engine, self._library.TensorIOMode.OUTPUT)

    def _ports(self, engine: Any, mode: Any) -> dict[str, tuple[int, ...]]:
        names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
        return {
            name: tuple(engine.get_tensor_shape(name))[1:]
            for name in names
            if engine.get_tensor_mode(name) == mode
        }

    def _config(self, builder: Any, network: Any, target: str) -> Any:
        config = builder.create_builder_config()
        # TF32 keeps 10 bits of mantissa, and thresholds apply to what runs in fp32
        config.clear_flag(self._library.BuilderFlag.TF32)
        if hasattr(self._library, "ComputeCapability") and hasattr(
            config, "num_compute_capabilities"
        ):
            config.num_compute_capabilities = 1
            config.set_compute_capability(self._capability(target), 0)
        elif GpuStream().target != target:
            raise EngineError(
                f"{self.name} builds only for the GPU of the machine, not for {target}; "
                "run it on the machine that has that GPU"
            )
        profile = builder.create_optimization_profile()
        for number in range(network.num_inputs):
            port = network.get_input(number)
            shape = tuple(port.shape)[1:]
            profile.set_shape(port.name, (1, *shape), (BATCH, *shape), (BATCH, *shape))
        config.add_optimization_profile(profile)
        return config

    def _capability(self, target: str) -> Any:
        members = self._library.ComputeCapability.__members__
        offered = [name for name in members if name.startswith("SM")]
        if target not in offered:
            raise EngineError(
                f"{self.name} builds for {', '.join(offered)}, not for {target}; install "
                f"`tensorrt` on the machine that has that GPU, or {_OPENVINO}"
            )
        return members[target]


class TensorRtBackend:
    """Loads the networks of a bundle on the first GPU, from plans built here.

    Parameters
    ----------
    plans : Path or None
        Folder of the plans that this node has built; without one, each is built anew.

    Raises
    ------
    EngineError
        TensorRT is not installed, or there is no GPU.
    """

    batch = BATCH

    def __init__(self, plans: Path | None = None) -> None:
        self._builder = PlanBuilder()
        self._stream = GpuStream()
        self._plans = None if plans is None else PlanStore(plans)

    def load(self, name: GraphName, bundle: ModelBundle) -> TensorRtGraph:
        """Load the plan of ``NAME.onnx``, built where there is none yet (`Backend.load`).

        Raises
        ------
        EngineError
            TensorRT cannot build or load it here.
        """
        target = self._stream.target
        plan = plan_of(self._builder, self._plans, name, bundle, target)[0]
        self._stream.enter()
        engine = self._builder.load(plan)
        identity = f"{self._builder.name} {_precision(name)} {target}"
        return TensorRtGraph(self._builder, engine, self._stream, identity)


class TensorRtGraph:
    """One plan on the GPU (port ``Graph``)."""

    def __init__(self, builder: PlanBuilder, engine: Any, stream: GpuStream, identity: str) -> None:
        self.identity = identity
        self.deviation_limit = DEVIATION_LIMITS[identity.split(" ")[2]]
        self._stream = stream
        self._inputs, self._outputs = builder.inputs_of(engine), builder.outputs_of(engine)
        self._engine = engine  # the context does not hold it
        self._context = builder.context(engine)
        self._addresses = {
            name: stream.allocate(4 * BATCH * int(np.prod(shape)))
            for name, shape in {**self._inputs, **self._outputs}.items()
        }

    def run(self, arrays: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Evaluate once (`Graph.run`).

        Raises
        ------
        EngineError
            The shapes are not those of the plan, or the GPU cannot evaluate it.
        """
        count = len(next(iter(arrays.values())))
        given = {name: self._given(name, arrays, count) for name in self._inputs}
        shapes = {name: array.shape for name, array in arrays.items()}
        if not 1 <= count <= BATCH or any(
            shapes.get(name, (count, *shape)) != (count, *shape)
            for name, shape in self._inputs.items()
        ):
            raise EngineError(
                f"{self.identity} was given shapes {shapes}; it takes 1 to {BATCH} slices of "
                f"{self._inputs}, as the recipe's grid says"
            )
        self._stream.enter()
        for name, array in given.items():
            self._stream.write(self._addresses[name], array)
            self._context.set_input_shape(name, array.shape)
        for name, address in self._addresses.items():
            self._context.set_tensor_address(name, address)
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError(f"{self.identity} cannot evaluate {count} slices; {_OPENVINO}")
        return {name: self._read(name, shape, count) for name, shape in self._outputs.items()}

    def _given(self, name: str, arrays: Mapping[str, FloatArray], count: int) -> FloatArray:
        if name not in arrays and name.startswith(_FEATURE_PREFIX):
            return np.zeros((count, *self._inputs[name]), dtype=np.float32)
        return np.ascontiguousarray(arrays[name], dtype=np.float32)

    def _read(self, name: str, shape: tuple[int, ...], count: int) -> FloatArray:
        array = np.empty((count, *shape), dtype=np.float32)
        self._stream.read(self._addresses[name], array)
        return array


def compile_bundle(bundle: ModelBundle, plans: Path, target: str | None) -> list[BuildReport]:
    """Build the plans of every network of a bundle and keep them for this node.

    Parameters
    ----------
    target : str or None
        Compute capability, e.g. ``SM89``; by default that of the GPU of this machine.

    Raises
    ------
    EngineError
        TensorRT is not installed or cannot build a graph for the target, or none is named and
        there is no GPU.
    """
    builder, store = PlanBuilder(), PlanStore(plans)
    target = target or _target_here()
    names: tuple[GraphName, ...] = ("network", "control", "encoder", "scale")
    reports = []
    for name in names:
        if bundle.holds(f"{name}.onnx"):
            plan, seconds = plan_of(builder, store, name, bundle, target)
            reports.append(
                BuildReport(
                    graph=name,
                    precision=_precision(name),
                    target=target,
                    size=len(plan),
                    seconds=seconds,
                )
            )
    return reports


def _target_here() -> str:
    try:
        return GpuStream().target
    except EngineError as error:
        raise EngineError(
            f"{error}; or name the GPU for which to build with --target, e.g. SM89"
        ) from error


def plan_of(
    builder: PlanBuilder,
    plans: PlanStore | None,
    name: GraphName,
    bundle: ModelBundle,
    target: str,
) -> tuple[bytes, float]:
    """Return a plan from the store, or build and keep it; with the seconds that it took.

    Raises
    ------
    EngineError
        TensorRT cannot build it.
    """
    begun, key = time.perf_counter(), builder.key(name, bundle, target)
    plan = None if plans is None else plans.read(key)
    if plan is None:
        plan = builder.build(name, bundle, target)
        if plans is not None:
            plans.write(key, plan)
    return plan, time.perf_counter() - begun


def _precision(name: GraphName) -> str:
    return "fp16" if name in _HALF else "fp32"


def _import() -> Any:
    for package in _PACKAGES:
        try:
            return import_module(package)
        except ImportError as error:
            _LOG.debug("%s: %s", package, error)
    raise EngineError(
        'TensorRT is not installed; run `pip install "rebrain-node[gpu]"`, or ' + _OPENVINO
    )


class _Log:
    """The last error of the library, which its functions do not return."""

    def __init__(self, library: Any) -> None:
        self.last = "no reason was given"
        outer = self

        class _Logger(library.ILogger):  # type: ignore[misc] # the library has no types
            def __init__(self) -> None:
                library.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity <= library.ILogger.ERROR:
                    outer.last = message.strip().splitlines()[0]
                    _LOG.debug("TensorRT: %s", message)

        self.logger = _Logger()
