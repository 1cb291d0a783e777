"""Torch: in fp32 on the CPU the reference of every engine, and in bf16 an engine for a CUDA GPU.

On the GPU several slices are evaluated at once, and each shape is captured once as a CUDA graph and
replayed, because launching some hundred small kernels takes longer than running them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from rebrain_node.errors import EngineError
from rebrain_node.model.control import SteeredUNet, control_of
from rebrain_node.model.encoder import SliceEncoder
from rebrain_node.model.residual_scale import ResidualScaleHead
from rebrain_node.model.unet import BridgeUNet, ScalarEmbedding, from_bundle

if TYPE_CHECKING:
    from rebrain_node.domain.volume import FloatArray
    from rebrain_node.engine.backend import GraphName
    from rebrain_node.model.bundle import ModelBundle

Device = Literal["cpu", "cuda"]
TorchPrecision = Literal["fp32", "bf16"]

#: RMS of the deviation over RMS of the golden output: in fp32 only the order of sums differs; bf16
#: keeps 8 bits of mantissa
DEVIATION_LIMITS: Final[Mapping[TorchPrecision, float]] = {"fp32": 1e-4, "bf16": 0.03}
#: slices of one evaluation on a GPU
BATCH: Final = 16
#: evaluations before a shape is captured, in which cuDNN chooses its kernels
_WARM_UP: Final = 3
#: output of each network; the control branch returns c0, c1, ...
_OUTPUTS: Final[Mapping[GraphName, str]] = {"network": "f", "encoder": "embedding", "scale": "b"}
_IMAGE_AXES: Final = 4
_FILES: Final[Mapping[GraphName, str]] = {"network": "weights.safetensors"}


class TorchBackend:
    """Builds the networks of this version and fills them with the weights of a bundle.

    Parameters
    ----------
    threads : int or None
        Threads of torch in this process; by default torch's own choice.
    device : {"cpu", "cuda"}
        Where the networks run.
    precision : {"fp32", "bf16"}
        Of the network and the control branch; encoder and residual-scale head are always fp32.

    Raises
    ------
    EngineError
        The device is cuda and torch finds no GPU.
    """

    def __init__(
        self,
        threads: int | None = None,
        device: Device = "cpu",
        precision: TorchPrecision = "fp32",
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if device == "cuda":
            _require_gpu()
            # TF32 keeps 10 bits of mantissa, and thresholds apply to what runs in fp32
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self.batch = BATCH if device == "cuda" else 1
        self._device: Device = device
        self._precision: TorchPrecision = precision

    def load(self, name: GraphName, bundle: ModelBundle) -> TorchGraph:
        """Read ``NAME.safetensors``, ``weights.safetensors`` of the network (`Backend.load`).

        Raises
        ------
        EngineError
            The weights do not fit the network of this version.
        """
        file = _FILES.get(name, f"{name}.safetensors")
        try:
            network = _network(name, bundle, file)
        except (RuntimeError, SafetensorError) as error:
            raise EngineError(
                f"{file} does not fit the {name} of this version: {error}; "
                "use the version that the bundle was made for"
            ) from error
        precision = self._precision if name in {"network", "control"} else "fp32"
        return TorchGraph(network.eval(), name, self._device, precision)


class TorchGraph:
    """One network (port ``Graph``)."""

    def __init__(
        self,
        network: nn.Module,
        name: GraphName,
        device: Device = "cpu",
        precision: TorchPrecision = "fp32",
    ) -> None:
        engine = "torch" if device == "cpu" else "torch-cuda"
        self.identity = f"{engine} {torch.__version__.split('+')[0]} {precision}"
        self.deviation_limit = DEVIATION_LIMITS[precision]
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._network = network.to(device)
        if precision == "bf16":
            _reduce(self._network)
        self._device = device
        self._output = _OUTPUTS.get(name)
        self._captured: dict[tuple[torch.Size, ...], _CapturedGraph] = {}

    def run(self, arrays: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Evaluate once (`Graph.run`).

        Raises
        ------
        EngineError
            The shapes are not those that the network takes.
        """
        inputs = [self._given(array) for array in arrays.values()]
        try:
            with torch.inference_mode():
                output = self._evaluate(inputs)
        except RuntimeError as error:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise EngineError(
                f"{self.identity} cannot evaluate shapes {shapes}: {error}"
            ) from error
        outputs = output if isinstance(output, tuple) else (output,)
        names = (self._output,) if self._output else [f"c{k}" for k in range(len(outputs))]
        return {
            name: value.float().cpu().numpy().copy()
            for name, value in zip(names, outputs, strict=True)
        }

    def _given(self, array: FloatArray) -> Tensor:
        """Copy an input to the device; images in the precision of the network, scalars in fp32."""
        dtype = self._dtype if array.ndim == _IMAGE_AXES else torch.float32
        return _channels_last(torch.tensor(array).to(self._device, dtype))

    def _evaluate(self, inputs: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
        if self._device == "cpu":
            return cast("Tensor", self._network(*inputs))
        key = tuple(each.shape for each in inputs)
        if key not in self._captured:
            self._captured[key] = _CapturedGraph(self._network, inputs)
        return self._captured[key].replay(inputs)


class _CapturedGraph:
    """The kernels of one evaluation, captured for one set of shapes."""

    def __init__(self, network: nn.Module, inputs: list[Tensor]) -> None:
        self._inputs = [each.clone() for each in inputs]
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UP):
                network(*self._inputs)
        torch.cuda.current_stream().wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = network(*self._inputs)

    def replay(self, inputs: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
        """Evaluate other inputs; the output is overwritten by the next replay."""
        for ours, given in zip(self._inputs, inputs, strict=True):
            ours.copy_(given)
        self._graph.replay()
        return cast("Tensor", self._output)


def _reduce(network: nn.Module) -> None:
    """Compute in bf16, but embed the scalars in fp32: their sines need more than 8 bits."""
    network.to(torch.bfloat16)
    for module in network.modules():
        if isinstance(module, ScalarEmbedding):
            module.float()
            module.register_forward_hook(lambda _module, _inputs, output: output.bfloat16())


def _require_gpu() -> None:
    """Refuse a machine without a GPU.

    Raises
    ------
    EngineError
        Torch finds none.
    """
    if not torch.cuda.is_available():
        raise EngineError(
            "torch finds no CUDA GPU; install the driver and a torch with CUDA, "
            'or set model.engine to "openvino"'
        )


def _network(name: GraphName, bundle: ModelBundle, file: str) -> nn.Module:
    if name == "network":
        network = from_bundle(bundle)
        steered = SteeredUNet(network) if isinstance(network, BridgeUNet) else network
        return cast("nn.Module", steered.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    if name == "control":
        return control_of(bundle)
    weights = {key: value.float() for key, value in load(bundle.read(file)).items()}
    if name == "scale":
        return ResidualScaleHead.of(weights)
    encoder = SliceEncoder()
    encoder.load_state_dict(weights)
    return encoder


def _channels_last(array: Tensor) -> Tensor:
    if array.dim() != _IMAGE_AXES:
        return array
    return array.to(memory_format=torch.channels_last)
