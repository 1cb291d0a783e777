"""The residual-scale head on OpenVINO, in single precision: it is small, and widths hang on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rebrain_node.engine.openvino_graph import Runtime
from rebrain_node.errors import EngineFailed

if TYPE_CHECKING:
    from rebrain_node.domain.volume import FloatArray


class OpenVinoScale:
    """One drawn slice to the scales of its residual (port ``Scale``); not for two threads.

    Parameters
    ----------
    graph : bytes
        ONNX of ``x`` (1, 5, rows, columns) and ``s`` (1, 2) to ``b``, static shapes.
    threads : int or None
        Threads of one evaluation; by default one for each physical core.

    Raises
    ------
    EngineFailed
        OpenVINO cannot be loaded, or cannot compile the graph.
    """

    def __init__(self, graph: bytes, threads: int | None = None) -> None:
        runtime = Runtime.of_single_precision(threads)
        self._graph = runtime.graph("scale.onnx", graph)
        self.identity = runtime.identity

    def estimate(self, x: FloatArray, s: FloatArray) -> FloatArray:
        """Estimate b: x (1, 5, rows, columns), s (1, 2) to (1, 1, rows, columns).

        Raises
        ------
        EngineFailed
            The shapes are not those the head was exported for.
        """
        shapes = {"x": x.shape, "s": s.shape}
        if shapes != self._graph.shapes:
            raise EngineFailed(
                f"{self.identity} was given shapes {x.shape} and {s.shape}; the residual-scale "
                f"head takes {' and '.join(map(str, self._graph.shapes.values()))}"
            )
        return self._graph.run({"x": x, "s": s})["b"]
