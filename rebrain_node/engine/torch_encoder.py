"""The encoder of retrieval on torch: the twin against which the exported graph is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from rebrain_node.errors import EngineFailed
from rebrain_node.model.encoder import SliceEncoder

if TYPE_CHECKING:
    from rebrain_node.domain.volume import FloatArray


class TorchEncoder:
    """One CT slice to its embedding (port ``Encoder``), fp32; not for two threads at a time.

    Parameters
    ----------
    weights : bytes
        ``encoder.safetensors`` of a bundle.

    Raises
    ------
    EngineFailed
        The weights do not fit the encoder of this version.
    """

    def __init__(self, weights: bytes) -> None:
        encoder = SliceEncoder()
        try:
            encoder.load_state_dict({name: w.float() for name, w in load(weights).items()})
        except (RuntimeError, SafetensorError) as error:
            raise EngineFailed(
                f"encoder.safetensors does not fit the encoder of this version: {error}; "
                "use the bundle that belongs to it"
            ) from error
        self._encoder = encoder.eval()
        self.identity = f"torch {torch.__version__.split('+')[0]} fp32"

    def embed(self, image: FloatArray) -> FloatArray:
        """Embed (1, 1, rows, columns), brain window in [-1, 1], to (d,).

        Raises
        ------
        EngineFailed
            The shape is not that the encoder takes.
        """
        try:
            with torch.inference_mode():
                answer: FloatArray = self._encoder(torch.tensor(image))[0].numpy()
        except RuntimeError as error:
            raise EngineFailed(f"{self.identity} cannot embed {image.shape}: {error}") from error
        return answer
