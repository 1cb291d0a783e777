"""Graphs without weights for the engine: a network and a control branch of one addition each."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import save

ROWS, COLUMNS = 16, 12


def tiny_network_contents() -> dict[str, bytes]:
    """Network, control branch and golden arrays: f = mean of x over channels + mean of s (+ c0)."""
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, (1, 5, ROWS, COLUMNS)).astype(np.float16)
    guide = random.uniform(-1, 1, (1, 1, ROWS, COLUMNS)).astype(np.float16)
    s = np.full((1, 4), 0.5, dtype=np.float32)
    f = x.astype(np.float32).mean(axis=1, keepdims=True) + np.float32(0.5)
    guided = f + guide.astype(np.float32)
    golden = {"x": x, "s": s, "f": f, "guide": guide, "f_guided": guided}
    return {
        "network.onnx": _graph(("x", "s", "c0"), "f", _NETWORK),
        "control.onnx": _graph(("x", "s", "guide"), "c0", _CONTROL),
        "golden.safetensors": save(golden),
    }


_SHAPES = {"x": [1, 5, ROWS, COLUMNS], "s": [1, 4]}
_IMAGE = [1, 1, ROWS, COLUMNS]
_NETWORK = (
    helper.make_node("ReduceMean", ["x", "channels"], ["image"], keepdims=1),
    helper.make_node("ReduceMean", ["s"], ["scalars"], keepdims=0),
    helper.make_node("Sum", ["image", "scalars", "c0"], ["f"]),
)
#: x and s are inputs and have no effect
_CONTROL = (
    helper.make_node("ReduceMean", ["x", "channels"], ["image"], keepdims=1),
    helper.make_node("ReduceMean", ["s"], ["scalars"], keepdims=0),
    helper.make_node("Mul", ["image", "zero"], ["none of x"]),
    helper.make_node("Mul", ["scalars", "zero"], ["none of s"]),
    helper.make_node("Sum", ["none of x", "none of s", "guide"], ["c0"]),
)


def _graph(takes: tuple[str, ...], gives: str, nodes: tuple[onnx.NodeProto, ...]) -> bytes:
    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, _SHAPES.get(name, _IMAGE))

    constants = [
        helper.make_tensor("channels", TensorProto.INT64, [1], [1]),
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
    ]
    graph = helper.make_graph(nodes, "tiny", [value(name) for name in takes], [value(gives)])
    graph.initializer.extend(constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
