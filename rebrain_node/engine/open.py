"""Open the networks of a bundle by the name of an engine and check their golden output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from rebrain_node.domain.volume import FloatArray
from rebrain_node.engine.backend import Backend
from rebrain_node.engine.roles import BridgeEngine, GraphEncoder, GraphResidualScale
from rebrain_node.errors import BundleError, EngineError
from rebrain_node.model.bundle import ModelBundle

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from rebrain_node.engine.tensorrt_backend import BuildReport
    from rebrain_node.engine.torch_backend import TorchBackend

#: limit of the RMS of the deviation divided by the RMS of the golden scales; the head runs in fp32
SCALE_LIMIT: Final = 1e-3
#: scalars of the golden scales: 2 mm to the nearest measured slice, similarity 0.5
GOLDEN_SCALE_INPUT: Final = (2.0, 0.5)


def open_engine(
    name: str, bundle: ModelBundle, threads: int | None = None, plans: Path | None = None
) -> BridgeEngine:
    """Open the network of the bridge, and the control branch where the bundle has one.

    Parameters
    ----------
    name : str
        ``openvino``, ``torch``, ``torch-cuda`` or ``tensorrt`` (setting ``model.engine``).
    bundle : ModelBundle
        Verified (`load_bundle`).
    threads : int or None
        Threads of one evaluation (setting ``model.threads``); by default the engine's choice.
    plans : Path or None
        Folder of what TensorRT has built on this node; without one it builds at each start.

    Raises
    ------
    EngineError
        There is no such engine, or it cannot start here.
    BundleError
        The bundle's golden output cannot be read, or is not reproduced on this machine.
    """
    backend = open_backend(name, threads, plans)
    network = backend.load("network", bundle)
    control = backend.load("control", bundle) if bundle.holds("control.onnx") else None
    engine = BridgeEngine(network, control, backend.batch)
    reproduce_golden(engine, bundle)
    return engine


def open_encoder(
    name: str, bundle: ModelBundle, threads: int | None = None, plans: Path | None = None
) -> GraphEncoder:
    """Open the encoder; the knowledge base contains its golden output (`open_exemplars`).

    Parameters and errors are those of `open_engine`.
    """
    return GraphEncoder(open_backend(name, threads, plans).load("encoder", bundle))


def open_scale(
    name: str, bundle: ModelBundle, threads: int | None = None, plans: Path | None = None
) -> GraphResidualScale:
    """Open the residual-scale head.

    Parameters and errors are those of `open_engine`.
    """
    scale = GraphResidualScale(open_backend(name, threads, plans).load("scale", bundle))
    reproduce_golden_scales(scale, bundle)
    return scale


def encoder_of_graph(content: bytes, threads: int | None = None) -> GraphEncoder:
    """Open an encoder from the bytes of its ONNX graph, before it is part of a bundle.

    Raises
    ------
    EngineError
        OpenVINO cannot start or cannot compile it.
    """
    from rebrain_node.engine.openvino_backend import OpenVinoBackend

    return GraphEncoder(OpenVinoBackend(threads).compile("encoder", content))


def open_backend(name: str, threads: int | None, plans: Path | None = None) -> Backend:
    """Start an inference library.

    Raises
    ------
    EngineError
        There is no such engine, or it is not installed.
    """
    if name not in BACKENDS:
        raise EngineError(f"there is no engine {name!r}; set model.engine to {_listed()}")
    return BACKENDS[name](threads, plans)


def compile_plans(bundle: ModelBundle, plans: Path, target: str | None) -> list[BuildReport]:
    """Build what TensorRT loads, for GPUs of a compute capability (`compile_bundle`).

    Raises
    ------
    EngineError
        TensorRT is not installed or cannot build a graph for the target.
    """
    reports: list[BuildReport] = _tensorrt_module().compile_bundle(bundle, plans, target)
    return reports


def reproduce_golden(engine: BridgeEngine, bundle: ModelBundle) -> float:
    """Evaluate the golden input and return the deviation from the golden output.

    Raises
    ------
    BundleError
        The golden output cannot be read, or the deviation is above the engine's limit or not a
        number. A restart corrects neither.
    """
    names = ("x", "s", "f") if engine.control is None else ("x", "s", "f", "guide", "f_guided")
    golden = _golden(bundle, names)
    largest = deviation(engine.evaluate(golden["x"], golden["s"]), golden["f"])
    if engine.control is not None:
        guided = engine.evaluate(golden["x"], golden["s"], golden["guide"])
        largest = float(np.max([largest, deviation(guided, golden["f_guided"])]))
    _require(largest, engine.network.deviation_limit, f"{engine.identity} deviates", bundle)
    return largest


def reproduce_golden_scales(scale: GraphResidualScale, bundle: ModelBundle) -> float:
    """Evaluate the residual-scale head on its golden input (as `reproduce_golden`)."""
    golden = _golden(bundle, ("x", "b"))
    scalars = np.array([GOLDEN_SCALE_INPUT], dtype=np.float32)
    relative = deviation(scale.estimate(golden["x"], scalars), golden["b"])
    _require(relative, SCALE_LIMIT, f"the residual-scale head on {scale.identity} deviates", bundle)
    return relative


def deviation(output: FloatArray, golden: FloatArray) -> float:
    """RMS of the difference divided by the RMS of the golden output; infinite where it is 0."""
    if output.shape != golden.shape:
        return float("inf")
    error = float(np.sqrt(np.mean((output - golden) ** 2, dtype=np.float64)))
    size = float(np.sqrt(np.mean(golden**2, dtype=np.float64)))
    return error / size if size > 0 else float("inf")


def _require(relative: float, limit: float, what: str, bundle: ModelBundle) -> None:
    if not relative <= limit:  # refuses NaN too
        raise BundleError(
            f"{what} by {relative:.2g} from the golden output of bundle {bundle.name} "
            f"{bundle.version}, limit {limit:g}; set model.engine to another of {_listed()}"
        )


def _golden(bundle: ModelBundle, names: tuple[str, ...]) -> Mapping[str, FloatArray]:
    try:
        golden = load(bundle.read("golden.safetensors"))
    except SafetensorError as error:
        raise BundleError(
            f"golden.safetensors of bundle {bundle.name} {bundle.version} cannot be read: {error}"
        ) from error
    missing = set(names) - golden.keys()
    if missing:
        raise BundleError(
            f"golden.safetensors of bundle {bundle.name} {bundle.version} lacks {sorted(missing)}"
        )
    # x is stored at half precision, which holds it exactly
    return {name: np.asarray(golden[name], dtype=np.float32) for name in names}


def _openvino(threads: int | None, _plans: Path | None) -> Backend:
    from rebrain_node.engine.openvino_backend import OpenVinoBackend

    return OpenVinoBackend(threads)


def _torch(threads: int | None, _plans: Path | None) -> Backend:
    return _torch_backend("torch")(threads)


def _torch_cuda(threads: int | None, _plans: Path | None) -> Backend:
    return _torch_backend("torch-cuda")(threads, "cuda", "bf16")


def _tensorrt(_threads: int | None, plans: Path | None) -> Backend:
    backend: Backend = _tensorrt_module().TensorRtBackend(plans)
    return backend


def _tensorrt_module() -> ModuleType:
    try:
        from rebrain_node.engine import tensorrt_backend
    except ImportError as error:
        raise EngineError(
            f"the tensorrt engine needs onnx, which is not installed ({error}); "
            'run `pip install "rebrain-node[gpu]"`, or set model.engine to "openvino"'
        ) from error
    return tensorrt_backend


def _torch_backend(engine: str) -> type[TorchBackend]:
    try:
        from rebrain_node.engine.torch_backend import TorchBackend
    except ImportError as error:
        raise EngineError(
            f"the {engine} engine needs torch, which is not installed ({error}); "
            'run `pip install "rebrain-node[train]"`, or set model.engine to "openvino"'
        ) from error
    return TorchBackend


def _listed() -> str:
    return " or ".join(repr(name) for name in BACKENDS)


#: engines by their names in the settings; a library is imported when its engine is opened
BACKENDS: Final[Mapping[str, Callable[[int | None, Path | None], Backend]]] = {
    "openvino": _openvino,
    "torch": _torch,
    "torch-cuda": _torch_cuda,
    "tensorrt": _tensorrt,
}
#: engines in whose place OpenVINO computes where there is no GPU
GPU_ENGINES: Final = frozenset({"torch-cuda", "tensorrt"})
