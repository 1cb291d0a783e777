"""The residual-scale head on torch: the twin against which the exported graph is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from rebrain_node.errors import EngineFailed
from rebrain_node.model.uncertainty import ScaleHead

if TYPE_CHECKING:
    from rebrain_node.domain.volume import FloatArray


class TorchScale:
    """One drawn slice to the scales of its residual (port ``Scale``), fp32; not for two threads.

    Parameters
    ----------
    weights : bytes
        ``scale.safetensors`` of a bundle.

    Raises
    ------
    EngineFailed
        The weights do not fit the head of this version.
    """

    def __init__(self, weights: bytes) -> None:
        head = ScaleHead()
        try:
            head.load_state_dict({name: w.float() for name, w in load(weights).items()})
        except (RuntimeError, SafetensorError) as error:
            raise EngineFailed(
                f"scale.safetensors does not fit the residual-scale head of this version: {error}; "
                "use the bundle that belongs to it"
            ) from error
        self._head = head.eval()
        self.identity = f"torch {torch.__version__.split('+')[0]} fp32"

    def estimate(self, x: FloatArray, s: FloatArray) -> FloatArray:
        """Estimate b: x (1, 5, rows, columns), s (1, 2) to (1, 1, rows, columns).

        Raises
        ------
        EngineFailed
            The shapes are not those the head takes.
        """
        try:
            with torch.inference_mode():
                answer: FloatArray = self._head(torch.tensor(x), torch.tensor(s)).numpy()
        except RuntimeError as error:
            raise EngineFailed(
                f"{self.identity} cannot evaluate shapes {x.shape} and {s.shape}: {error}"
            ) from error
        return answer
