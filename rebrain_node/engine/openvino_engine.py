"""OpenVINO on the CPU: the default engine.

It reads the ONNX graph from verified bytes, knows no torch, and starts in well under a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from rebrain_node.engine.openvino_graph import Graph, Runtime
from rebrain_node.errors import EngineFailed

if TYPE_CHECKING:
    from rebrain_node.domain.volume import FloatArray

#: RMS of the deviation over RMS of the golden output. bf16 keeps 8 bits of mantissa, and some
#: twenty layers of it deviate by 0.01; fp32 differs only in the order of its sums, by 2e-6.
LIMITS: Final = {"bf16": 0.03, "fp32": 1e-4}


class OpenVinoEngine:
    """One evaluation of the network on the CPU; not for two threads at a time.

    Parameters
    ----------
    network : bytes
        ONNX graph of static shape: ``x`` and ``s`` to ``f``, and with a control branch what it
        adds to every level, ``c0``, ``c1``, ...
    threads : int or None
        Threads of one evaluation; by default one for each physical core.
    control : bytes or None
        ONNX graph of the control branch: ``x``, ``s`` and ``guide`` to ``c0``, ``c1``, ...

    Raises
    ------
    EngineFailed
        OpenVINO cannot be loaded or cannot compile a graph.
    """

    def __init__(
        self, network: bytes, threads: int | None = None, control: bytes | None = None
    ) -> None:
        runtime = Runtime.of_best_precision(threads)
        self.precision = runtime.precision
        self._network = runtime.graph("network.onnx", network)
        self._control = None if control is None else runtime.graph("control.onnx", control)
        #: what is added where nothing guides
        self._nothing = {
            name: np.zeros(shape, dtype=np.float32)
            for name, shape in self._network.shapes.items()
            if name not in {"x", "s"}
        }
        self.identity = runtime.identity

    @property
    def deviation_limit(self) -> float:
        """Largest normalised deviation from the golden output at this precision."""
        return LIMITS[self.precision]

    def evaluate(self, x: FloatArray, s: FloatArray, guide: FloatArray | None = None) -> FloatArray:
        """Evaluate f: x (1, channels, rows, columns), s (1, scalars) to (1, 1, rows, columns).

        Raises
        ------
        EngineFailed
            A guide is given to a bundle without a control branch; or the shapes are not those
            the network was exported for.
        """
        if guide is None:
            return self._run(self._network, {"x": x, "s": s} | self._nothing)["f"]
        if self._control is None:
            raise EngineFailed(
                f"{self.identity} runs no control branch and was given a guide; "
                'use a bundle with control.onnx, or one with retrieval.method "none"'
            )
        added = self._run(self._control, {"x": x, "s": s, "guide": guide})
        return self._run(self._network, {"x": x, "s": s} | added)["f"]

    def _run(self, graph: Graph, given: dict[str, FloatArray]) -> dict[str, FloatArray]:
        shapes = {name: value.shape for name, value in given.items()}
        if shapes != graph.shapes:
            raise EngineFailed(
                f"{self.identity} was given shapes {shapes}; {graph.name} takes {graph.shapes}, "
                "as the recipe's grid says"
            )
        return graph.run(given)
