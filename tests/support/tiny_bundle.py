"""A bundle of the real format with untrained weights on a small grid."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save

from rebrain_node.model.bundle import ModelBundle, load_bundle, write_bundle
from rebrain_node.model.calibration import Calibration, Width
from rebrain_node.model.card import Card, TrainingFacts
from rebrain_node.model.control import ControlBranch
from rebrain_node.model.recipe import Abstain, Grid, Output, Recipe, Window
from rebrain_node.model.residual_scale import ResidualScaleHead
from rebrain_node.model.unet import BridgeUNet
from trainer.calibrate.run import CalibrationParts, write_calibrated
from trainer.calibrate.scale_head import rounded
from trainer.release.bundle import Guidance, golden_input, release

CARD = Card(
    name="tiny",
    version="0.0.1",
    summary="Random weights, for tests.",
    intended_use="Tests of the code around the network.",
    data=(),
    training=TrainingFacts(
        objective="none",
        steps=0,
        batch=1,
        hours=0.0,
        hardware="none",
        parameters=1,
        pool_digest="none",
        pool_samples=1,
        seed=0,
    ),
    scores=(),
    choices=(),
    limits=("Its output is noise.",),
)


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
    word = "calibrated" if subjects >= 20 else "UNCALIBRATED"
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
