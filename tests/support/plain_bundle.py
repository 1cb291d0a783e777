"""The files of a bundle: valid without a network, and graphs without weights for the engines."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import save

from rebrain_node.model.card import Card, TrainingFacts
from rebrain_node.model.recipe import Grid, Output, Recipe, Retrieval, Window

CARD = Card(
    name="tiny",
    version="0.1",
    summary="A bundle without a network.",
    intended_use="Tests.",
    data=(),
    training=TrainingFacts(
        objective="directional",
        steps=0,
        batch=1,
        hours=0,
        hardware="none",
        parameters=1,
        pool_digest="none",
        pool_samples=1,
        seed=0,
    ),
    scores=(),
    choices=(),
    limits=("It has no network.",),
)


def plain_contents() -> dict[str, bytes]:
    """Every required file of a bundle."""
    recipe = Recipe(
        objective="directional",
        grid=Grid(rows=32, columns=32, pixel_mm=0.9),
        brain_window=Window(low_hu=0, high_hu=80),
        wide_window=Window(low_hu=-200, high_hu=1300),
        spacing_mm=1.0,
        sampling=(1.0,),
        eta=0.0,
        output=Output(black=0, white=4095),
    )
    return {
        "recipe.json": recipe.to_json().encode(),
        "card.json": CARD.model_dump_json().encode(),
        "CARD.md": CARD.to_markdown().encode(),
        "weights.safetensors": b"weights",
        "network.onnx": b"network",
        "golden.safetensors": b"golden",
    }


def retrieving_contents(**files: bytes | None) -> dict[str, bytes]:
    """Contents with a knowledge base, and a recipe that retrieves; `files` override."""
    contents = plain_contents()
    recipe = Recipe.model_validate_json(contents["recipe.json"])
    retrieving = recipe.model_copy(update={"retrieval": Retrieval(method="exemplar")})
    more: dict[str, bytes | None] = {
        "recipe.json": retrieving.to_json().encode(),
        "encoder.onnx": b"encoder",
        "control.onnx": b"control",
        "exemplars/index.json": b"{}",
        "exemplars/ct.npy": b"slices",
    }
    return {n: c for n, c in (contents | more | files).items() if c is not None}


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
