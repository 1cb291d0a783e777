"""Open the networks of a bundle by the name of an engine; each reproduces its golden output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from rebrain_node.domain.volume import FloatArray
from rebrain_node.engine.backend import Backend
from rebrain_node.engine.roles import BridgeEngine, GraphEncoder, GraphResidualScale
from rebrain_node.errors import BundleRefused, EngineFailed
from rebrain_node.model.bundle import ModelBundle

#: RMS of the deviation of the scales over their RMS: every engine runs the head in fp32
SCALE_LIMIT: Final = 1e-3
#: the scalars of the golden scales: 2 mm from a measured slice, an exemplar of similarity 0.5
GOLDEN_SCALE_INPUT: Final = (2.0, 0.5)


def open_engine(name: str, bundle: ModelBundle, threads: int | None = None) -> BridgeEngine:
    """Open the bridge's network, and the control branch where the bundle has one.

    Parameters
    ----------
    name : str
        ``openvino`` or ``torch`` (setting ``model.engine``).
    bundle : ModelBundle
        Verified.
    threads : int or None
        Threads of one evaluation (setting ``model.threads``); by default the engine's choice.

    Raises
    ------
    EngineFailed
        There is no such engine, or it cannot start here.
    BundleRefused
        The bundle's golden output cannot be read, or is not reproduced on this machine.
    """
    backend = open_backend(name, threads)
    network = backend.load("network", bundle)
    control = backend.load("control", bundle) if bundle.holds("control.onnx") else None
    engine = BridgeEngine(network, control)
    reproduce_golden(engine, bundle)
    return engine


def open_encoder(name: str, bundle: ModelBundle, threads: int | None = None) -> GraphEncoder:
    """Open the encoder of retrieval; its golden output is the knowledge base (`open_exemplars`).

    Parameters and errors are those of `open_engine`.
    """
    return GraphEncoder(open_backend(name, threads).load("encoder", bundle))


def open_scale(name: str, bundle: ModelBundle, threads: int | None = None) -> GraphResidualScale:
    """Open the residual-scale head.

    Parameters and errors are those of `open_engine`.
    """
    scale = GraphResidualScale(open_backend(name, threads).load("scale", bundle))
    reproduce_golden_scales(scale, bundle)
    return scale


def encoder_of_graph(content: bytes, threads: int | None = None) -> GraphEncoder:
    """Open an encoder from the bytes of its ONNX graph, before it is in any bundle.

    Raises
    ------
    EngineFailed
        OpenVINO cannot start or cannot compile it.
    """
    from rebrain_node.engine.openvino_backend import OpenVinoBackend

    return GraphEncoder(OpenVinoBackend(threads).compile("encoder", content))


def open_backend(name: str, threads: int | None) -> Backend:
    """Start an inference library.

    Raises
    ------
    EngineFailed
        There is no such engine, or it is not installed.
    """
    if name not in BACKENDS:
        raise EngineFailed(f"there is no engine {name!r}; set model.engine to {_listed()}")
    return BACKENDS[name](threads)


def reproduce_golden(engine: BridgeEngine, bundle: ModelBundle) -> float:
    """Evaluate the golden input and return the deviation from the golden output.

    Raises
    ------
    BundleRefused
        The golden output cannot be read, or the deviation is beyond the engine's limit or not a
        number: starting again corrects neither.
    """
    names = ("x", "s", "f") if engine.control is None else ("x", "s", "f", "guide", "f_guided")
    golden = _golden(bundle, names)
    found = deviation(engine.evaluate(golden["x"], golden["s"]), golden["f"])
    if engine.control is not None:
        guided = engine.evaluate(golden["x"], golden["s"], golden["guide"])
        found = float(np.max([found, deviation(guided, golden["f_guided"])]))
    _require(found, engine.network.deviation_limit, f"{engine.identity} deviates", bundle)
    return found


def reproduce_golden_scales(scale: GraphResidualScale, bundle: ModelBundle) -> float:
    """Evaluate the residual-scale head on the golden input; as `reproduce_golden`."""
    golden = _golden(bundle, ("x", "b"))
    scalars = np.array([GOLDEN_SCALE_INPUT], dtype=np.float32)
    found = deviation(scale.estimate(golden["x"], scalars), golden["b"])
    _require(found, SCALE_LIMIT, f"the residual-scale head on {scale.identity} deviates", bundle)
    return found


def deviation(found: FloatArray, golden: FloatArray) -> float:
    """Root mean square of the difference over root mean square of the golden output."""
    if found.shape != golden.shape:
        return float("inf")
    error = float(np.sqrt(np.mean((found - golden) ** 2, dtype=np.float64)))
    size = float(np.sqrt(np.mean(golden**2, dtype=np.float64)))
    return error / size if size > 0 else float("inf")


def _require(found: float, limit: float, what: str, bundle: ModelBundle) -> None:
    if not found <= limit:  # a deviation that is not a number is refused too
        raise BundleRefused(
            f"{what} by {found:.2g} from the golden output of bundle {bundle.name} "
            f"{bundle.version}, limit {limit:g}; set model.engine to another of {_listed()}"
        )


def _golden(bundle: ModelBundle, names: tuple[str, ...]) -> Mapping[str, FloatArray]:
    try:
        golden = load(bundle.read("golden.safetensors"))
    except SafetensorError as error:
        raise BundleRefused(
            f"golden.safetensors of bundle {bundle.name} {bundle.version} cannot be read: {error}"
        ) from error
    missing = set(names) - golden.keys()
    if missing:
        raise BundleRefused(
            f"golden.safetensors of bundle {bundle.name} {bundle.version} lacks {sorted(missing)}"
        )
    # x is stored at half precision, which holds it exactly
    return {name: np.asarray(golden[name], dtype=np.float32) for name in names}


def _openvino(threads: int | None) -> Backend:
    from rebrain_node.engine.openvino_backend import OpenVinoBackend

    return OpenVinoBackend(threads)


def _torch(threads: int | None) -> Backend:
    try:
        from rebrain_node.engine.torch_backend import TorchBackend
    except ImportError as error:
        raise EngineFailed(
            f"the torch engine needs torch, which is not installed ({error}); "
            'run `pip install "rebrain-node[train]"`, or set model.engine to "openvino"'
        ) from error
    return TorchBackend(threads)


def _listed() -> str:
    return " or ".join(repr(name) for name in BACKENDS)


#: every engine by its name in the settings; each is imported only when it is opened
BACKENDS: Final[Mapping[str, Callable[[int | None], Backend]]] = {
    "openvino": _openvino,
    "torch": _torch,
}
