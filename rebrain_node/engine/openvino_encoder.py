"""The encoder of retrieval on OpenVINO, in single precision: it runs once a measured slice."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from rebrain_node.engine.openvino_engine import first_line, import_openvino
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
        openvino = import_openvino()
        plan: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": "f32",  # thresholds on the similarity are set at this one
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            plan["INFERENCE_NUM_THREADS"] = threads
        try:
            runtime = openvino.Core()
            compiled = runtime.compile_model(runtime.read_model(io.BytesIO(graph)), "CPU", plan)
            self._shape = tuple(compiled.input(0).shape)
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            raise EngineFailed(
                f"openvino cannot compile encoder.onnx: {first_line(error)}; "
                "check the bundle with `rebrain-node bundle verify`"
            ) from error
        version = openvino.get_version().split("-")[0]
        self.identity = f"openvino {version} fp32"

    def embed(self, image: FloatArray) -> FloatArray:
        """Embed (1, 1, rows, columns), brain window in [-1, 1], to (d,).

        Raises
        ------
        EngineFailed
            The shape is not that the encoder was exported for.
        """
        if image.shape != self._shape:
            raise EngineFailed(
                f"{self.identity} was given a slice of shape {image.shape}; the encoder takes "
                f"{self._shape}, half the recipe's grid"
            )
        answer = self._request.infer([np.ascontiguousarray(image, dtype=np.float32)])
        return np.array(answer[0][0], dtype=np.float32)
