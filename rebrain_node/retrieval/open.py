"""Open the knowledge base of a bundle: it must match the recipe and the encoder."""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

from rebrain_node.errors import KnowledgeBaseError
from rebrain_node.model.bundle import EXEMPLARS, ModelBundle
from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.recipe import Recipe
from rebrain_node.ports import Encoder
from rebrain_node.retrieval.knowledge_base import Index, KnowledgeBase, check_usable, parse
from rebrain_node.retrieval.search import FaissExemplars

#: slices that are embedded again and compared with their stored embeddings
_CHECKED_ROWS: Final = 4
#: minimum cosine of the two; single precision agrees to 1e-5
LEAST_AGREEMENT: Final = 0.999
_PIXEL_LIMIT: Final = 1e-6


def open_exemplars(bundle: ModelBundle, encoder: Encoder) -> FaissExemplars:
    """Verify a bundle's knowledge base and check the encoder with its stored embeddings.

    Parameters
    ----------
    bundle : ModelBundle
        Verified, with an encoder and a knowledge base.
    encoder : Encoder
        Started from the same bundle.

    Raises
    ------
    KnowledgeBaseError
        It cannot be searched, or was made for another recipe or encoder.
    """
    where = str(bundle.path / EXEMPLARS)
    base = parse(bundle.exemplars, where)
    check_usable(base, where)
    _check_plane(base.index, bundle.recipe, where)
    found = hashlib.sha256(bundle.read("encoder.onnx")).hexdigest()
    if found != base.index.encoder_sha256:
        raise KnowledgeBaseError(
            "KB-ENCODER",
            where,
            f"was made with the encoder {base.index.encoder_sha256}, the bundle's is "
            f"{found}; build the knowledge base with this encoder",
        )
    template = load_head_template().digest
    if template != base.index.template_sha256:
        raise KnowledgeBaseError(
            "KB-TEMPLATE",
            where,
            f"has positions relative to the head template {base.index.template_sha256}, this "
            f"version has {template}; build the knowledge base with this version",
        )
    check_encoder(base, encoder, where)
    retrieval = bundle.recipe.retrieval
    tau = base.tau(retrieval.p) if retrieval.tau is None else retrieval.tau
    return FaissExemplars(base, tau)


def check_encoder(base: KnowledgeBase, encoder: Encoder, where: str) -> None:
    """Embed some slices of the base again and compare with the stored embeddings.

    Raises
    ------
    KnowledgeBaseError
        The embeddings have another dimension or direction: the base was made with another
        encoder, or this machine computes another result.
    """
    for row in np.unique(np.linspace(0, base.index.entries - 1, _CHECKED_ROWS).astype(int)):
        image = base.ct[row].astype(np.float32) / np.float32(127.5) - np.float32(1)
        embedding, stored = encoder.embed(image[None, None]), base.embeddings[row]
        if embedding.shape != stored.shape:
            raise KnowledgeBaseError(
                "KB-DIMENSION",
                where,
                f"contains embeddings of shape {stored.shape}, {encoder.identity} gives "
                f"{embedding.shape}; build the knowledge base with this encoder",
            )
        agreement = float(embedding @ stored)
        if not agreement >= LEAST_AGREEMENT:  # refuses NaN too
            raise KnowledgeBaseError(
                "KB-ENCODER",
                where,
                f"row {row}: {encoder.identity} agrees with the stored embedding by "
                f"{agreement:.4f}, at least {LEAST_AGREEMENT} is needed; build the knowledge base "
                "with this encoder",
            )


def _check_plane(index: Index, recipe: Recipe, where: str) -> None:
    grid, window = recipe.grid, recipe.brain_window
    actual = (*index.plane, *index.window_hu)
    expected = (grid.rows // 2, grid.columns // 2, window.low_hu, window.high_hu)
    if actual != expected or abs(index.pixel_mm - 2 * grid.pixel_mm) > _PIXEL_LIMIT:
        raise KnowledgeBaseError(
            "KB-RECIPE",
            where,
            f"contains slices of {index.plane} pixels of {index.pixel_mm:g} mm in the window "
            f"{index.window_hu} HU; the recipe needs half its grid, {expected[:2]} pixels of "
            f"{2 * grid.pixel_mm:g} mm in {expected[2:]} HU; build the knowledge base for it",
        )
