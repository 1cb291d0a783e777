"""Bundles of the real format at tiny size: untrained weights, control branch, knowledge base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from rebrain_node.engine.open import encoder_of_graph
from rebrain_node.model.bundle import ModelBundle, load_bundle, write_bundle
from rebrain_node.model.calibration import Calibration, Width
from rebrain_node.model.control import ControlBranch
from rebrain_node.model.recipe import Abstain, Grid, Output, Recipe, Retrieval, Window
from rebrain_node.model.residual_scale import ResidualScaleHead
from rebrain_node.model.unet import BridgeUNet
from rebrain_node.retrieval.knowledge_base import KnowledgeBase, contents_of
from tests.support import plain_bundle
from tests.support.plain_bundle import tiny_encoder_graph
from trainer.calibrate.run import CalibrationParts, write_calibrated
from trainer.calibrate.scale_head import rounded
from trainer.release.bundle import Guidance, golden_input, release
from trainer.retrieval.knowledge_base import EntrySettings, SubjectSlices, extended
from trainer.retrieval.subject_keys import subject_hash

CARD = plain_bundle.CARD.model_copy(update={"version": "0.0.1"})


def tiny_recipe(rows: int = 64, columns: int = 48) -> Recipe:
    """A recipe like the demonstration's on a grid of ``rows`` x ``columns``, 4 mm pixels."""
    return Recipe(
        objective="directional",
        grid=Grid(rows=rows, columns=columns, pixel_mm=4.0),
        brain_window=Window(low_hu=0.0, high_hu=80.0),
        wide_window=Window(low_hu=-200.0, high_hu=1300.0),
        spacing_mm=4.0,
        sampling=(1.0, 0.5),
        eta=0.0,
        output=Output(black=0, white=4095),
    )


def _untrained(recipe: Recipe) -> BridgeUNet:
    torch.manual_seed(0)
    network = BridgeUNet(recipe.widths)
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):  # zero at the start: nothing would reach s
            torch.nn.init.normal_(module.weight, std=0.1)
    return network


def write_tiny_bundle(
    folder: Path, recipe: Recipe | None = None, guidance: Guidance | None = None
) -> ModelBundle:
    """Release untrained weights; the export of the graph takes some seconds."""
    recipe = recipe or tiny_recipe()
    return release(dict(_untrained(recipe).state_dict()), recipe, CARD, folder, guidance)


def write_tiny_guided_bundle(folder: Path) -> ModelBundle:
    """Release untrained weights with a control branch that adds something; nothing to retrieve."""
    recipe = tiny_recipe()
    control = ControlBranch(_untrained(recipe))
    for mix in control.zero:
        torch.nn.init.normal_(mix.weight, std=0.05)
    guidance = Guidance(
        control=control.state_dict(), encoder={}, encoder_graph=b"not opened", exemplars={}
    )
    return write_tiny_bundle(folder, recipe, guidance)


def write_bundle_without_network(folder: Path) -> ModelBundle:
    """Write a bundle whose network is never opened: no graph need be exported."""
    recipe = tiny_recipe()
    x, _ = golden_input(recipe)
    contents = {
        "recipe.json": recipe.to_json().encode(),
        "card.json": CARD.model_dump_json().encode(),
        "CARD.md": CARD.to_markdown().encode(),
        "weights.safetensors": b"not opened",
        "network.onnx": b"not opened",
        "golden.safetensors": save({"x": x.half()}),
    }
    write_bundle(folder, CARD.name, CARD.version, contents)
    return load_bundle(folder)


def tiny_calibration(subjects: int = 25) -> Calibration:
    """Widths of 2, 4 and 3 scales, as from this number of subjects."""
    widths = {"measured": 2.0, "retrieved": 4.0, "interpolated": 3.0}
    word = "calibrated on simulated CT" if subjects >= 20 else "UNCALIBRATED"
    return Calibration(
        alpha=0.1,
        people=subjects,
        label=f"{word}, n = {subjects}",
        widths={
            kind: Width(scales=scales, people=subjects, conformal=subjects >= 9)
            for kind, scales in widths.items()
        },
        set_digest="c" * 64,
        subjects=tuple(f"subject {k}" for k in range(subjects)),
        files={},
    )


def calibrated(bundle: ModelBundle, folder: Path, subjects: int = 25) -> ModelBundle:
    """Add an untrained residual-scale head, whose output depends on all its inputs, to a bundle."""
    torch.manual_seed(2)
    head = ResidualScaleHead()
    torch.nn.init.normal_(head.leave.weight, std=0.2)
    added = CalibrationParts(
        head=rounded(head),
        calibration=tiny_calibration(subjects),
        abstain=Abstain(voxel_above=0.3, slice_above=0.2, series_share=0.5),
        scores=(),
        choice="The uncertainty is that of a test.",
    )
    return write_calibrated(bundle, added, folder, "0.0.2")


KEY = bytes(range(32))
SUBJECTS = ("anna", "bert", "carl")


def hash_of(name: str) -> str:
    """The keyed hash of a made-up subject."""
    return subject_hash(KEY, name)


def tiny_base(recipe: Recipe, graph: bytes) -> KnowledgeBase:
    """Twelve slices of noise of each subject, between -60 and 80 mm."""
    settings = EntrySettings(
        graph=graph, encoder=encoder_of_graph(graph), recipe=recipe, hash_of=hash_of
    )
    plane = (recipe.grid.rows // 2, recipe.grid.columns // 2)

    def slices_of(name: str) -> SubjectSlices:
        rng = np.random.default_rng([*name.encode()])
        slices = rng.integers(0, 256, (12, *plane), dtype=np.uint8)
        return SubjectSlices(name, "CC0-1.0", slices, np.sort(rng.uniform(-60, 80, 12)))

    return extended(settings.empty(), map(slices_of, SUBJECTS), settings)


def tiny_retrieving_recipe() -> Recipe:
    """The tiny recipe with retrieval, one time step and two levels: a quick export."""
    changes = {"retrieval": Retrieval(method="exemplar", p=20), "sampling": (1.0,)}
    changes |= {"widths": (8, 16)}
    return tiny_recipe().model_copy(update=changes)


def write_tiny_retrieving_bundle(folder: Path) -> ModelBundle:
    """Release untrained weights whose control branch adds something."""
    recipe = tiny_retrieving_recipe()
    torch.manual_seed(0)
    control = ControlBranch(BridgeUNet(recipe.widths))
    for mix in control.zero:
        torch.nn.init.normal_(mix.weight, std=0.2)
    graph = tiny_encoder_graph(recipe.grid.rows // 2, recipe.grid.columns // 2)
    guidance = Guidance(
        control=control.state_dict(),
        encoder={},
        encoder_graph=graph,
        exemplars=contents_of(tiny_base(recipe, graph)),
    )
    return write_tiny_bundle(folder, recipe, guidance)
