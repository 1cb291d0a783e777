"""From a torch module to ONNX bytes: static shapes, one file, weights at half precision."""

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from rebrain_node.model.encoder import COLUMNS, ROWS, SliceEncoder

OPSET = 18
_HALF = "_half"
_FEW = 256  # values


@dataclass(frozen=True)
class Names:
    """Names of a graph's inputs and outputs, in order."""

    inputs: Sequence[str]
    outputs: Sequence[str]


def export_onnx(module: nn.Module, given: tuple[Tensor, ...], names: Names) -> bytes:
    """Export a module with static shapes.

    Weights that half precision represents exactly are stored so, with a cast in the graph: the
    file is half as large and no value changes.

    Raises
    ------
    onnx.checker.ValidationError
        The exported graph is not valid ONNX.
    RuntimeError
        The exporter gave no graph.
    """
    stream = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # suppresses a note about torchvision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # raised inside the exporter
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            module,
            given,
            input_names=list(names.inputs),
            output_names=list(names.outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    program.save(stream)  # type: ignore[arg-type]
    model = onnx.load_from_string(stream.getvalue())
    remove_traces(model)
    store_at_half_precision(model.graph)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def remove_traces(model: onnx.ModelProto) -> None:
    """Remove the stack traces of the exporter, which contain paths of the machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""


def store_at_half_precision(graph: onnx.GraphProto) -> None:
    """Store each weight that rounding does not change at half precision, with a cast to float32."""
    kept, casts = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        halves = values.astype(np.float16) if values.dtype == np.float32 else values
        if values.size < _FEW or halves is values or not np.array_equal(halves, values):
            kept.append(tensor)
            continue
        kept.append(numpy_helper.from_array(halves, tensor.name + _HALF))
        casts.append(
            helper.make_node(
                "Cast", [tensor.name + _HALF], [tensor.name], to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)


def halves_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round weights to half precision, as all files of a bundle store them."""
    return {name: value.half().contiguous() for name, value in weights.items()}


def export_encoder(weights: Mapping[str, Tensor]) -> bytes:
    """Export, with weights rounded to half precision: `image` (1, 1, 128, 104) to `embedding`."""
    network = SliceEncoder()
    network.load_state_dict(halves_of(weights))
    return export_onnx(
        network.eval(), (torch.zeros(1, 1, ROWS, COLUMNS),), Names(("image",), ("embedding",))
    )
