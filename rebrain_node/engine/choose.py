"""Open an engine by its name, and let it prove itself before it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from rebrain_node.domain.volume import FloatArray
from rebrain_node.errors import BundleRefused, EngineFailed
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.ports import Encoder, Engine, Scale

#: what golden.safetensors holds; with a control branch it is asked guided as well
GOLDEN: Final = ("x", "s", "f")
GOLDEN_GUIDED: Final = (*GOLDEN, "guide", "f_guided")
#: RMS of the deviation of the scales over their RMS: both engines run the head in fp32
SCALE_LIMIT: Final = 1e-3
#: what the residual-scale head is asked beside x: 2 mm from a measured slice, an exemplar of 0.5
GOLDEN_TOLD: Final = (2.0, 0.5)


class TestableEngine(Engine, Protocol):
    """An engine that knows how far it may deviate from the golden output."""

    @property
    def deviation_limit(self) -> float:
        """Largest RMS of the deviation over RMS of the golden output."""


def open_engine(name: str, bundle: ModelBundle, threads: int | None = None) -> Engine:
    """Start an engine on a bundle and evaluate the bundle's golden input once.

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
    if name not in ENGINES:
        raise EngineFailed(f"there is no engine {name!r}; set model.engine to {_listed()}")
    engine = ENGINES[name](bundle, threads)
    self_test(engine, bundle)
    return engine


def open_encoder(name: str, bundle: ModelBundle, threads: int | None = None) -> Encoder:
    """Start the encoder of retrieval; the knowledge base proves it (`retrieval.opening`).

    Parameters
    ----------
    name : str
        ``openvino`` or ``torch`` (setting ``model.engine``).
    bundle : ModelBundle
        Verified, with the files of an encoder.
    threads : int or None
        Threads of one evaluation.

    Raises
    ------
    EngineFailed
        There is no such engine, or it cannot start here.
    BundleRefused
        The bundle has no encoder of this kind.
    """
    if name not in ENCODERS:
        raise EngineFailed(f"there is no engine {name!r}; set model.engine to {_listed()}")
    return ENCODERS[name](bundle, threads)


def open_scale(name: str, bundle: ModelBundle, threads: int | None = None) -> Scale:
    """Start the residual-scale head and evaluate the golden input once.

    Parameters
    ----------
    name : str
        ``openvino`` or ``torch`` (setting ``model.engine``).
    bundle : ModelBundle
        Verified, with a calibration.
    threads : int or None
        Threads of one evaluation.

    Raises
    ------
    EngineFailed
        There is no such engine, it cannot start here, or its output deviates.
    BundleRefused
        The bundle has no head of this kind, or no golden output of it.
    """
    if name not in SCALES:
        raise EngineFailed(f"there is no engine {name!r}; set model.engine to {_listed()}")
    scale = SCALES[name](bundle, threads)
    golden = _golden(bundle, ("x", "b"))
    told = np.array([GOLDEN_TOLD], dtype=np.float32)
    found = deviation(scale.estimate(golden["x"], told), golden["b"])
    if not found <= SCALE_LIMIT:
        raise EngineFailed(
            f"{scale.identity} deviates by {found:.2g} from the golden scales of bundle "
            f"{bundle.name} {bundle.version}, limit {SCALE_LIMIT:g}; "
            f"set model.engine to another of {_listed()}"
        )
    return scale


def self_test(engine: TestableEngine, bundle: ModelBundle) -> float:
    """Evaluate the golden input and return the deviation from the golden output.

    Raises
    ------
    BundleRefused
        The bundle's golden output cannot be read, or the deviation is beyond the engine's limit
        or not a number: no restart mends either.
    """
    golden = _golden(bundle, GOLDEN_GUIDED if bundle.holds("control.onnx") else GOLDEN)
    found = deviation(engine.evaluate(golden["x"], golden["s"]), golden["f"])
    if bundle.holds("control.onnx"):
        guided = engine.evaluate(golden["x"], golden["s"], golden["guide"])
        found = float(np.max([found, deviation(guided, golden["f_guided"])]))
    if not found <= engine.deviation_limit:  # a deviation that is no number is refused too
        raise BundleRefused(
            f"{engine.identity} deviates by {found:.2g} from the golden output of bundle "
            f"{bundle.name} {bundle.version}, limit {engine.deviation_limit:g}; "
            f"set model.engine to another of {_listed()}"
        )
    return found


def deviation(found: FloatArray, golden: FloatArray) -> float:
    """Root mean square of the difference over root mean square of the golden output."""
    if found.shape != golden.shape:
        return float("inf")
    error = float(np.sqrt(np.mean((found - golden) ** 2, dtype=np.float64)))
    size = float(np.sqrt(np.mean(golden**2, dtype=np.float64)))
    return error / size if size > 0 else float("inf")


def _golden(bundle: ModelBundle, wanted: tuple[str, ...]) -> Mapping[str, FloatArray]:
    try:
        golden = load(bundle.read("golden.safetensors"))
    except SafetensorError as error:
        raise BundleRefused(
            f"golden.safetensors of bundle {bundle.name} {bundle.version} cannot be read: {error}"
        ) from error
    missing = set(wanted) - golden.keys()
    if missing:
        raise BundleRefused(
            f"golden.safetensors of bundle {bundle.name} {bundle.version} lacks {sorted(missing)}"
        )
    # x is stored at half precision, which holds it exactly
    return {name: np.asarray(golden[name], dtype=np.float32) for name in wanted}


def _open_openvino(bundle: ModelBundle, threads: int | None) -> TestableEngine:
    from rebrain_node.engine.openvino_engine import OpenVinoEngine

    control = bundle.read("control.onnx") if bundle.holds("control.onnx") else None
    return OpenVinoEngine(bundle.read("network.onnx"), threads, control)


def _open_torch(bundle: ModelBundle, threads: int | None) -> TestableEngine:
    try:
        from rebrain_node.engine.torch_engine import TorchEngine
    except ImportError as error:
        raise _torch_is_absent(error) from error
    return TorchEngine(bundle, threads)


def _openvino_encoder(bundle: ModelBundle, threads: int | None) -> Encoder:
    from rebrain_node.engine.openvino_encoder import OpenVinoEncoder

    return OpenVinoEncoder(bundle.read("encoder.onnx"), threads)


def _torch_encoder(bundle: ModelBundle, _: int | None) -> Encoder:
    try:
        from rebrain_node.engine.torch_encoder import TorchEncoder
    except ImportError as error:
        raise _torch_is_absent(error) from error
    return TorchEncoder(bundle.read("encoder.safetensors"))


def _openvino_scale(bundle: ModelBundle, threads: int | None) -> Scale:
    from rebrain_node.engine.openvino_scale import OpenVinoScale

    return OpenVinoScale(bundle.read("scale.onnx"), threads)


def _torch_scale(bundle: ModelBundle, _: int | None) -> Scale:
    try:
        from rebrain_node.engine.torch_scale import TorchScale
    except ImportError as error:
        raise _torch_is_absent(error) from error
    return TorchScale(bundle.read("scale.safetensors"))


def _torch_is_absent(error: ImportError) -> EngineFailed:
    return EngineFailed(
        f"the torch engine needs torch, which is not installed ({error}); "
        'run `pip install "rebrain-node[train]"`, or set model.engine to "openvino"'
    )


def _listed() -> str:
    return " or ".join(repr(name) for name in ENGINES)


#: every engine by its name in the settings; each is imported only when it is opened
ENGINES: Final[Mapping[str, Callable[[ModelBundle, int | None], TestableEngine]]] = {
    "openvino": _open_openvino,
    "torch": _open_torch,
}

#: every encoder by the name of its engine
ENCODERS: Final[Mapping[str, Callable[[ModelBundle, int | None], Encoder]]] = {
    "openvino": _openvino_encoder,
    "torch": _torch_encoder,
}

#: every residual-scale head by the name of its engine
SCALES: Final[Mapping[str, Callable[[ModelBundle, int | None], Scale]]] = {
    "openvino": _openvino_scale,
    "torch": _torch_scale,
}
