"""Torch on the CPU in single precision: the reference against which every engine is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from rebrain_node.errors import EngineFailed
from rebrain_node.model.control import control_of
from rebrain_node.model.unet import from_bundle

if TYPE_CHECKING:
    from rebrain_node.domain.volume import FloatArray
    from rebrain_node.model.bundle import ModelBundle

#: RMS of the deviation over RMS of the golden output; only the order of sums differs.
LIMIT: Final = 1e-4


class TorchEngine:
    """One evaluation of the network, fp32, channels last; not for two threads at a time.

    Parameters
    ----------
    bundle : ModelBundle
        Verified; the weights are read from its ``weights.safetensors`` and, where it has one,
        ``control.safetensors``.
    threads : int or None
        Threads of torch in this process; by default torch's own choice.

    Raises
    ------
    EngineFailed
        The weights do not fit the network.
    """

    def __init__(self, bundle: ModelBundle, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            network = from_bundle(bundle)
            steered = bundle.holds("control.safetensors")
            self._control = control_of(bundle) if steered else None
        except RuntimeError as error:
            raise EngineFailed(
                f"the weights of the bundle do not fit the network of this version: {error}; "
                "use the bundle that belongs to it"
            ) from error
        # torch's stub of Module.to lacks memory_format alone
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.identity = f"torch {torch.__version__.split('+')[0]} fp32"

    @property
    def deviation_limit(self) -> float:
        """Largest normalised deviation from the golden output."""
        return LIMIT

    def evaluate(self, x: FloatArray, s: FloatArray, guide: FloatArray | None = None) -> FloatArray:
        """Evaluate f: x (1, channels, rows, columns), s (1, scalars) to (1, 1, rows, columns).

        Raises
        ------
        EngineFailed
            A guide is given to a bundle without a control branch; or the shapes are not those
            the network takes.
        """
        image, scalars = torch.tensor(x).to(memory_format=torch.channels_last), torch.tensor(s)
        try:
            with torch.inference_mode():
                added = self._added(image, scalars, guide)
                answer: FloatArray = self._network(image, scalars, added).numpy()
        except RuntimeError as error:
            raise EngineFailed(
                f"{self.identity} cannot evaluate shapes {x.shape} and {s.shape}: {error}"
            ) from error
        return answer

    def _added(
        self, image: torch.Tensor, scalars: torch.Tensor, guide: FloatArray | None
    ) -> tuple[torch.Tensor, ...]:
        """Return what the control branch adds to every level; nothing without a guide.

        Raises
        ------
        EngineFailed
            The bundle has no control branch.
        """
        if guide is None:
            return ()
        if self._control is None:
            raise EngineFailed(
                f"{self.identity} runs no control branch and was given a guide; "
                'use a bundle with control.safetensors, or one with retrieval.method "none"'
            )
        added: tuple[torch.Tensor, ...] = self._control(image, scalars, torch.tensor(guide))
        return added
