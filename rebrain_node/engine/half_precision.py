"""Rewrites the ONNX graph of a bundle for a GPU: any number of slices, convolutions in fp16.

The graphs of a bundle are of one slice and in fp32, but hold their weights in fp16, so fp16 rounds
what flows through a convolution and none of its weights. All else stays in fp32: the embedding of
the scalars, normalisation, and the sums of the branches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from rebrain_node.errors import EngineError

#: changes with each change of what is rewritten, so that older plans are built again
REWRITING: Final = 1
_SLICES: Final = "n"  #: name of the first axis


def for_batches(content: bytes, *, half: bool) -> bytes:
    """Return the graph for any number of slices, with its convolutions in fp16 if `half`.

    Parameters
    ----------
    content : bytes
        ONNX graph of one slice: the first axis of every input and output is 1.

    Raises
    ------
    EngineError
        The graph cannot be read, or an input is not of one slice.
    """
    model = _read(content)
    graph = model.graph
    del graph.value_info[:]
    for port in (*graph.input, *graph.output):
        axes = port.type.tensor_type.shape.dim
        if not axes or axes[0].dim_value != 1:
            raise EngineError(f"{port.name} of the graph is not of one slice; export it again")
        axes[0].dim_param = _SLICES
    _free_first_axis(graph)
    if half:
        nodes = [each for node in graph.node for each in _in_half(node)]
        del graph.node[:]
        graph.node.extend(nodes)
    rewritten: bytes = model.SerializeToString()
    return rewritten


def _read(content: bytes) -> ModelProto:
    try:
        return onnx.load_model_from_string(content)
    except DecodeError as error:
        raise EngineError(
            f"the graph cannot be read ({error}); check the bundle with "
            "`rebrain-node bundle verify`"
        ) from error


def _free_first_axis(graph: GraphProto) -> None:
    """Let a Reshape to one slice take as many as come."""
    shapes = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for held in graph.initializer:
        if held.name in shapes:
            shape = numpy_helper.to_array(held).copy()
            if shape[0] == 1 and -1 not in shape:
                shape[0] = -1
                held.CopyFrom(numpy_helper.from_array(shape, held.name))


def _in_half(node: NodeProto) -> Iterator[NodeProto]:
    """Yield a node, a convolution with casts around it."""
    if node.op_type != "Conv":
        yield node
        return
    (output,) = node.output
    for place, name in enumerate(node.input):
        cast = f"{output}.half.{place}"
        yield helper.make_node("Cast", [name], [cast], name=cast, to=TensorProto.FLOAT16)
        node.input[place] = cast
    node.output[0] = f"{output}.half"
    yield node
    yield helper.make_node("Cast", [node.output[0]], [output], to=TensorProto.FLOAT)
