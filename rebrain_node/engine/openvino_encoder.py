"""The encoder of retrieval on OpenVINO, in single precision: it runs once a measured slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rebrain_node.engine.openvino_graph import Runtime
from rebrain_node.errors import EngineFailed

if TYPE_CHECKING:
    from rebrain_node.domain.volume import FloatArray


class OpenVinoEncoder:
    """One CT slice to its embedding (port ``Encoder``); not for two threads at a time.

    Parameters
    ----------
    graph : bytes
        ONNX of one image (1, 1, rows, columns) to (1, d), static shapes.
    threads : int or None
        Threads of one evaluation; by default one for each physical core.

    Raises
    ------
    EngineFailed
        OpenVINO cannot be loaded, or cannot compile the graph.
    """

    def __init__(self, graph: bytes, threads: int | None = None) -> None:
        runtime = Runtime.of_single_precision(threads)
        self._graph = runtime.graph("encoder.onnx", graph)
        self.identity = runtime.identity

    def embed(self, image: FloatArray) -> FloatArray:
        """Embed (1, 1, rows, columns), brain window in [-1, 1], to (d,).

        Raises
        ------
        EngineFailed
            The shape is not that the encoder was exported for.
        """
        (name, shape), *_ = self._graph.shapes.items()
        if image.shape != shape:
            raise EngineFailed(
                f"{self.identity} was given a slice of shape {image.shape}; the encoder takes "
                f"{shape}, half the recipe's grid"
            )
        (embeddings,) = self._graph.run({name: image}).values()
        embedding: FloatArray = embeddings[0]
        return embedding
