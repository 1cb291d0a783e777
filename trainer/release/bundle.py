"""From a checkpoint to a bundle: weights, ONNX, golden output, recipe, card, manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from rebrain_node.model.bundle import EXEMPLARS, ModelBundle, load_bundle, write_bundle
from rebrain_node.model.card import Card
from rebrain_node.model.control import ControlBranch, SteeredUNet
from rebrain_node.model.recipe import CHANNELS, Recipe
from rebrain_node.model.unet import BridgeUNet, Network, network_of
from trainer.export import Names, export_onnx, halves_of

GOLDEN_SEED = 20250101


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


@dataclass(frozen=True)
class Guidance:
    """What a bundle that retrieves exemplars holds besides its network.

    Attributes
    ----------
    control, encoder : mapping of str to Tensor
        Weights of `ControlBranch` and of `SliceEncoder`.
    encoder_graph : bytes
        `encoder.onnx` as the knowledge base was made with it.
    exemplars : mapping of str to bytes
        Files of the knowledge base by name.
    """

    control: Mapping[str, Tensor]
    encoder: Mapping[str, Tensor]
    encoder_graph: bytes
    exemplars: Mapping[str, bytes]


def golden_guide(recipe: Recipe) -> Tensor:
    """Return the fixed guide (1, 1, rows, columns) that every engine is held against."""
    rng = np.random.default_rng(GOLDEN_SEED + 1)
    coarse = torch.from_numpy(rng.uniform(-1, 1, (1, 1, 12, 10)).astype(np.float32))
    guide = torch.nn.functional.interpolate(coarse, size=recipe.grid.shape, mode="bilinear")
    return guide.half().float()


def _alone(network: Network, recipe: Recipe) -> tuple[dict[str, Tensor], dict[str, bytes]]:
    """Return the golden tensors and the graphs of a network without a control branch."""
    x, s = golden_input(recipe)
    with torch.no_grad():
        golden = {"x": x.half(), "s": s, "f": network(x, s)}
    return golden, {"network.onnx": export_onnx(network, (x, s), Names(("x", "s"), ("f",)))}


def _guided(
    network: Network, recipe: Recipe, guidance: Guidance
) -> tuple[dict[str, Tensor], dict[str, bytes]]:
    """Return the golden tensors, and the graphs and weights that guidance adds.

    Raises
    ------
    TypeError
        The network is not one that takes a control branch.
    """
    if not isinstance(network, BridgeUNet):
        raise TypeError(f"a network of the objective {recipe.objective} takes no control branch")
    halves = halves_of(guidance.control)
    control = ControlBranch(network)
    control.load_state_dict(halves)
    control.eval()
    x, s = golden_input(recipe)
    guide = golden_guide(recipe)
    with torch.no_grad():
        added = control(x, s, guide)
        golden = {"x": x.half(), "s": s, "f": network(x, s), "guide": guide.half(),
                  "f_guided": network(x, s, added)}  # fmt: skip
    levels = tuple(f"c{k}" for k in range(len(added)))
    exemplars = {f"{EXEMPLARS}/{name}": held for name, held in guidance.exemplars.items()}
    return golden, exemplars | {
        "network.onnx": export_onnx(
            SteeredUNet(network).eval(), (x, s, *added), Names(("x", "s", *levels), ("f",))
        ),
        "control.onnx": export_onnx(control, (x, s, guide), Names(("x", "s", "guide"), levels)),
        "control.safetensors": save_tensors(halves),
        "encoder.onnx": guidance.encoder_graph,
        "encoder.safetensors": save_tensors(halves_of(guidance.encoder)),
    }


def release(
    weights: Mapping[str, Tensor],
    recipe: Recipe,
    card: Card,
    path: Path,
    guidance: Guidance | None = None,
) -> ModelBundle:
    """Write the bundle at `path` and load it back.

    Raises
    ------
    BundleError
        What was written cannot be loaded.
    """
    halves = halves_of(weights)
    network = network_of(recipe)
    network.load_state_dict(halves)
    network.eval()
    golden, parts = (
        _alone(network, recipe) if guidance is None else _guided(network, recipe, guidance)
    )
    contents = parts | {
        "recipe.json": recipe.to_json().encode(),
        "card.json": (card.model_dump_json(indent=2) + "\n").encode(),
        "CARD.md": card.to_markdown().encode(),
        "weights.safetensors": save_tensors(halves),
        "golden.safetensors": save_tensors(golden),
    }
    write_bundle(path, card.name, card.version, contents)
    return load_bundle(path)
