"""Torch on the CPU in single precision: the reference with which every engine is compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from rebrain_node.errors import EngineError
from rebrain_node.model.control import SteeredUNet, control_of
from rebrain_node.model.encoder import SliceEncoder
from rebrain_node.model.residual_scale import ResidualScaleHead
from rebrain_node.model.unet import BridgeUNet, from_bundle

if TYPE_CHECKING:
    from rebrain_node.domain.volume import FloatArray
    from rebrain_node.engine.backend import GraphName
    from rebrain_node.model.bundle import ModelBundle

#: RMS of the deviation over RMS of the golden output; only the order of sums differs.
DEVIATION_LIMIT: Final = 1e-4
#: output of each network; the control branch returns c0, c1, ...
_OUTPUTS: Final[Mapping[GraphName, str]] = {"network": "f", "encoder": "embedding", "scale": "b"}
_FILES: Final[Mapping[GraphName, str]] = {"network": "weights.safetensors"}


class TorchBackend:
    """Builds the networks of this version and fills them with the weights of a bundle.

    Parameters
    ----------
    threads : int or None
        Threads of torch in this process; by default torch's own choice.
    """

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)

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
        return TorchGraph(network.eval(), name)


class TorchGraph:
    """One network (port ``Graph``), fp32."""

    deviation_limit = DEVIATION_LIMIT

    def __init__(self, network: nn.Module, name: GraphName) -> None:
        self.identity = f"torch {torch.__version__.split('+')[0]} fp32"
        self._network = network
        self._output = _OUTPUTS.get(name)

    def run(self, arrays: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Evaluate once (`Graph.run`).

        Raises
        ------
        EngineError
            The shapes are not those that the network takes.
        """
        inputs = [_channels_last(torch.tensor(array)) for array in arrays.values()]
        try:
            with torch.inference_mode():
                output = self._network(*inputs)
        except RuntimeError as error:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise EngineError(
                f"{self.identity} cannot evaluate shapes {shapes}: {error}"
            ) from error
        if self._output is not None:
            return {self._output: output.numpy()}
        return {f"c{level}": added.numpy() for level, added in enumerate(output)}


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
    return array.to(memory_format=torch.channels_last) if array.dim() == 4 else array
