"""From a checkpoint to a bundle: weights, ONNX, golden output, recipe, card, manifest."""

import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import save as save_tensors
from torch import Tensor

from rebrain_node.model.bundle import ModelBundle, load_bundle, write_bundle
from rebrain_node.model.card import Card
from rebrain_node.model.recipe import CHANNELS, Recipe
from rebrain_node.model.unet import Network, network_of

GOLDEN_SEED = 20250101
OPSET = 18


def golden_input(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the fixed x (1, 5, rows, columns) and s (1, 4) that every engine is held against.

    Smooth, head-like values rather than white noise, so that a deviation means what it would
    mean on a patient.
    """
    rng = np.random.default_rng(GOLDEN_SEED)
    coarse = torch.from_numpy(rng.uniform(-1, 1, (1, len(CHANNELS), 12, 10)).astype(np.float32))
    x = torch.nn.functional.interpolate(coarse, size=recipe.grid.shape, mode="bilinear")
    grain = rng.normal(0, 0.1, tuple(x.shape)).astype(np.float32)
    x = (x + torch.from_numpy(grain)).clamp(-1, 1).half().float()
    return x, torch.tensor([[0.75, 2.0, 3.0, 2.0]])


def export_onnx(network: Network, x: Tensor, s: Tensor) -> bytes:
    """Export with static shapes and everything in one file.

    Raises
    ------
    onnx.checker.ValidationError
        The exported graph is not valid ONNX.
    RuntimeError
        The exporter gave no graph.
    """
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # raised inside the exporter
        program = torch.onnx.export(
            network,
            (x, s),
            input_names=["x", "s"],
            output_names=["f"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    program.save(stream)  # type: ignore[arg-type]
    model = onnx.load_from_string(stream.getvalue())
    forget_the_exporter(model)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def forget_the_exporter(model: onnx.ModelProto) -> None:
    """Drop the stack traces that the exporter leaves: they name folders of the machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""


def release(weights: dict[str, Tensor], recipe: Recipe, card: Card, path: Path) -> ModelBundle:
    """Write the bundle at `path` and load it back.

    Raises
    ------
    BundleRefused
        What was written cannot be loaded.
    """
    # Rounded to half precision first, so that every file of the bundle holds the same weights.
    halves = {name: value.half().contiguous() for name, value in weights.items()}
    network = network_of(recipe)
    network.load_state_dict(halves)
    network.eval()
    x, s = golden_input(recipe)
    with torch.no_grad():
        f = network(x, s)
    golden = {"x": x.half().numpy(), "s": s.numpy(), "f": f.numpy()}
    contents = {
        "recipe.json": recipe.to_json().encode(),
        "card.json": (card.model_dump_json(indent=2) + "\n").encode(),
        "CARD.md": card.to_markdown().encode(),
        "weights.safetensors": save_tensors(halves),
        "network.onnx": export_onnx(network, x, s),
        "golden.safetensors": save_arrays(golden),
    }
    write_bundle(path, card.name, card.version, contents)
    return load_bundle(path)
