"""Writing bundles: from a finished run, or from another bundle with some files changed.

A bundle is never changed in place and never overwritten.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load
from safetensors.torch import save as save_tensors
from torch import Tensor

from rebrain_node.model.bundle import EXEMPLARS, ModelBundle, load_bundle, write_bundle
from rebrain_node.model.card import Card
from rebrain_node.model.control import ControlBranch, SteeredUNet
from rebrain_node.model.ood import OodModel
from rebrain_node.model.recipe import CHANNELS, Recipe, Retrieval
from rebrain_node.model.unet import BridgeUNet, Network, network_of
from rebrain_node.retrieval.knowledge_base import KnowledgeBase, contents_of, read
from trainer.config import TrainConfig
from trainer.data.dataset import PreparedData
from trainer.release.card import (
    OURS,
    RunFacts,
    Title,
    card_files,
    guided_card,
    prepared_card,
    training_facts,
)
from trainer.release.export import Names, export_onnx, halves_of
from trainer.release.requirements import ReleaseError, check_better, check_weights
from trainer.train.bridge import run_digest, start_of
from trainer.train.control import ControlFacts, branch_of, read_facts
from trainer.train.loop import CHECKPOINT, read_checkpoint

GOLDEN_SEED = 20250101


def golden_input(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the fixed x (1, 5, rows, columns) and s (1, 4) of the golden output.

    Smooth, head-like values rather than white noise, so that deviations of an engine are as large
    as on images.
    """
    rng = np.random.default_rng(GOLDEN_SEED)
    x = _smooth(rng, len(CHANNELS), recipe)
    grain = rng.normal(0, 0.1, tuple(x.shape)).astype(np.float32)
    x = (x + torch.from_numpy(grain)).clamp(-1, 1).half().float()
    return x, torch.tensor([[0.75, 2.0, 3.0, 2.0]])


@dataclass(frozen=True)
class Guidance:
    """What a bundle with retrieval holds in addition to its network.

    Attributes
    ----------
    control, encoder : mapping of str to Tensor
        Weights of `ControlBranch` and of `SliceEncoder`.
    encoder_graph : bytes
        `encoder.onnx` that the knowledge base was made with.
    exemplars : mapping of str to bytes
        Files of the knowledge base by name.
    """

    control: Mapping[str, Tensor]
    encoder: Mapping[str, Tensor]
    encoder_graph: bytes
    exemplars: Mapping[str, bytes]


def golden_guide(recipe: Recipe) -> Tensor:
    """Return the fixed guide (1, 1, rows, columns) of the golden output."""
    return _smooth(np.random.default_rng(GOLDEN_SEED + 1), 1, recipe).half().float()


def _smooth(rng: np.random.Generator, channels: int, recipe: Recipe) -> Tensor:
    """Return random values in [-1, 1] that vary slowly, (1, channels, rows, columns)."""
    coarse = torch.from_numpy(rng.uniform(-1, 1, (1, channels, 12, 10)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, size=recipe.grid.shape, mode="bilinear")


def _unguided(network: Network, recipe: Recipe) -> tuple[dict[str, Tensor], dict[str, bytes]]:
    """Return the golden tensors and the graphs of a network without a control branch."""
    x, s = golden_input(recipe)
    with torch.no_grad():
        golden = {"x": x.half(), "s": s, "f": network(x, s)}
    return golden, {"network.onnx": export_onnx(network, (x, s), Names(("x", "s"), ("f",)))}


def _guided(
    network: Network, recipe: Recipe, guidance: Guidance
) -> tuple[dict[str, Tensor], dict[str, bytes]]:
    """Return the golden tensors, and the graphs and weights of network and guidance.

    Raises
    ------
    TypeError
        The network does not accept a control branch.
    """
    if not isinstance(network, BridgeUNet):
        raise TypeError(f"a network of the objective {recipe.objective} accepts no control branch")
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
        _unguided(network, recipe) if guidance is None else _guided(network, recipe, guidance)
    )
    contents = (
        parts
        | card_files(card)
        | {
            "recipe.json": recipe.to_json().encode(),
            "weights.safetensors": save_tensors(halves),
            "golden.safetensors": save_tensors(golden),
        }
    )
    write_bundle(path, card.name, card.version, contents)
    return load_bundle(path)


def derive(
    bundle: ModelBundle, changed: Mapping[str, bytes], out: Path, version: str | None = None
) -> ModelBundle:
    """Write a new bundle: the files of `bundle`, some of them changed or added; load the result.

    Parameters
    ----------
    version : str, optional
        Default: that of `bundle`.

    Raises
    ------
    FileExistsError
        `out` exists.
    BundleError
        What was written cannot be loaded.
    """
    check_unused(out)
    contents = {name: bundle.read(name) for name in bundle.manifest.files} | dict(changed)
    write_bundle(out, bundle.name, version or bundle.version, contents)
    return load_bundle(out)


def check_unused(out: Path) -> None:
    """Refuse to overwrite a bundle.

    Raises
    ------
    FileExistsError
        `out` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; a bundle is never overwritten: name a new folder")


def finished_run(config: TrainConfig, run: Path, out: Path) -> tuple[dict[str, Tensor], RunFacts]:
    """Return weights and facts of a finished run.

    Raises
    ------
    FileExistsError
        `out` exists; a released bundle is never overwritten.
    ReleaseError
        The run has not reached the last step.
    """
    check_unused(out)
    start = start_of(run)
    content = read_checkpoint(run / CHECKPOINT, run_digest(config, start))
    if content["step"] != config.train.steps:
        raise ReleaseError(
            f"{run} is at step {content['step']} of {config.train.steps}: resume the training"
        )
    weights: dict[str, Tensor] = content["mean"]
    return weights, RunFacts(
        steps=content["step"],
        seconds=content["seconds"],
        parameters=sum(value.numel() for value in weights.values()),
        hardware=f"CPU ({torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} cores",
        start=start,
    )


def release_prepared(
    config: TrainConfig, run: Path, folder: Path, out: Path, title: Title
) -> ModelBundle:
    """Turn a finished run on the prepared data in `folder` into a bundle.

    Raises
    ------
    FileExistsError
        `out` exists; a released bundle is never overwritten.
    ReleaseError
        The run has not reached the last step, or its evaluation is of other weights, of training
        subjects, or no better than the lookup table or the template.
    """
    weights, facts = finished_run(config, run, out)
    check_weights(
        title.evaluation.digest, run, f"`rebrain-train evaluate --bundle {run} --data {folder}`"
    )
    if title.evaluation.split == "train":
        raise ReleaseError("the evaluation is of training subjects: evaluate --split test")
    excuse = check_better(title.evaluation.scores, OURS, title.override)
    data = PreparedData.open(folder)
    slices = sum(len(data.subject(name).positions_mm) for name in data.split["train"])
    training = training_facts(config, facts, data.digest, slices)
    return release(weights, config.recipe, prepared_card(data, training, title, excuse), out)


@dataclass(frozen=True)
class GuidanceFolders:
    """Folders of a run of `train-encoder`, a run of `train-control` and a knowledge base."""

    encoder: Path
    control: Path
    exemplars: Path


def release_guided(
    bundle: ModelBundle, folders: GuidanceFolders, retrieval: Retrieval, version: str, out: Path
) -> ModelBundle:
    """Write a new bundle: `bundle` with retrieval.

    Whether exemplars are registered is taken from the run of the branch: it must guide the node by
    what it was trained with.

    Raises
    ------
    FileExistsError
        `out` exists; a released bundle is never overwritten.
    ReleaseError
        The branch was trained with another bundle, or not to its last step.
    KnowledgeBaseError
        The knowledge base is damaged.
    """
    check_unused(out)
    facts = read_facts(folders.control)
    if facts.bundle != bundle.digest:
        raise ReleaseError(
            f"{folders.control} was trained with the bundle {facts.bundle}, not {bundle.digest}"
        )
    base = read(folders.exemplars)
    guidance = Guidance(
        control=branch_of(folders.control),
        encoder=load((folders.encoder / "encoder.safetensors").read_bytes()),
        encoder_graph=(folders.encoder / "encoder.onnx").read_bytes(),
        exemplars=contents_of(base, packed=True),
    )
    retrieval = retrieval.model_copy(update={"registration": facts.registration})
    recipe = bundle.recipe.model_copy(update={"retrieval": retrieval, "abstain": None})
    card = guided_card(bundle.card, version, _sentence(facts, base, retrieval.method))
    return release(load(bundle.read("weights.safetensors")), recipe, card, out, guidance)


_METHOD_SENTENCES = {
    "exemplar": "",
    "slerp": " The recipe does not use them: missing slices are drawn without a guide.",
    "linear": " The recipe does not use them: missing slices are interpolated between the "
    "synthetic slices at the measured ones.",
}


def _sentence(facts: ControlFacts, base: KnowledgeBase, method: str) -> str:
    return (
        f"Guidance: a control branch trained for {facts.steps} steps of {facts.batch} with the "
        f"frozen network (target {facts.target}), and a knowledge base of {base.index.entries} "
        f"simulated CT slices of {len(base.index.subjects)} of the training heads of the network."
        + _METHOD_SENTENCES[method]
    )


def release_ood(bundle: ModelBundle, model: OodModel, out: Path) -> ModelBundle:
    """Write a bundle with its out-of-distribution model; raises as `derive`."""
    return derive(bundle, {"domain.json": model.to_json().encode()}, out)
