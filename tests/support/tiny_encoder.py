"""An encoder graph without weights: the means of patches, made to have length 1."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper


def tiny_encoder_graph(rows: int, columns: int, patch: int = 8) -> bytes:
    """ONNX of an image (1, 1, rows, columns) to an embedding of rows x columns / patch^2."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, rows, columns])
    dimension = (rows // patch) * (columns // patch)
    answer = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, dimension])
    nodes = [
        helper.make_node(
            "AveragePool",
            ["image"],
            ["means"],
            kernel_shape=[patch, patch],
            strides=[patch, patch],
        ),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("LpNormalization", ["flat"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(nodes, "means", [image], [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    content: bytes = model.SerializeToString(deterministic=True)
    onnx.checker.check_model(model)
    return content
