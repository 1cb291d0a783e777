"""A whole retrieving bundle at tiny size: encoder, control branch and knowledge base that fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rebrain_node.engine.open import encoder_of_graph
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.control import ControlBranch
from rebrain_node.model.recipe import Recipe, Retrieval
from rebrain_node.model.unet import BridgeUNet
from rebrain_node.retrieval.knowledge_base import KnowledgeBase, contents_of
from tests.support.tiny_bundle import tiny_recipe, write_tiny_bundle
from tests.support.tiny_encoder import tiny_encoder_graph
from trainer.release.bundle import Guidance
from trainer.retrieval.knowledge_base import EntrySettings, SubjectSlices, extended
from trainer.retrieval.subject_keys import subject_hash

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
    """The tiny recipe with retrieval and one time step."""
    changes = {"retrieval": Retrieval(method="exemplar", p=20), "sampling": (1.0,)}
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
