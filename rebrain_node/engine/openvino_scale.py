"""The residual-scale head on OpenVINO, in single precision: it is small, and widths hang on it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from rebrain_node.engine.openvino_engine import first_line, import_openvino
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
        openvino = import_openvino()
        plan: dict[str, object] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            plan["INFERENCE_NUM_THREADS"] = threads
        try:
            runtime = openvino.Core()
            compiled = runtime.compile_model(runtime.read_model(io.BytesIO(graph)), "CPU", plan)
            self._shapes = tuple(tuple(each.shape) for each in compiled.inputs)
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            raise EngineFailed(
                f"openvino cannot compile scale.onnx: {first_line(error)}; "
                "check the bundle with `rebrain-node bundle verify`"
            ) from error
        version = openvino.get_version().split("-")[0]
        self.identity = f"openvino {version} fp32"

    def estimate(self, x: FloatArray, s: FloatArray) -> FloatArray:
        """Estimate b: x (1, 5, rows, columns), s (1, 2) to (1, 1, rows, columns).

        Raises
        ------
        EngineFailed
            The shapes are not those the head was exported for.
        """
        if (x.shape, s.shape) != self._shapes:
            raise EngineFailed(
                f"{self.identity} was given shapes {x.shape} and {s.shape}; the residual-scale "
                f"head takes {' and '.join(map(str, self._shapes))}"
            )
        given = [np.ascontiguousarray(each, dtype=np.float32) for each in (x, s)]
        return np.array(self._request.infer(given)[0], dtype=np.float32)
