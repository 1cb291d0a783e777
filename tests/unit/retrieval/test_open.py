"""A knowledge base opens only with the recipe, encoder and template it was made for."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from rebrain_node.engine.open import encoder_of_graph
from rebrain_node.errors import EngineError, KnowledgeBaseError
from rebrain_node.model.bundle import ModelBundle
from rebrain_node.model.recipe import Retrieval
from rebrain_node.retrieval.knowledge_base import contents_of
from rebrain_node.retrieval.open import open_exemplars
from tests.support.knowledge_bases import random_base
from tests.support.tiny_bundle import tiny_recipe
from tests.support.tiny_encoder import tiny_encoder_graph

GRAPH = tiny_encoder_graph(32, 24)


@pytest.fixture(scope="module")
def encoder():
    return encoder_of_graph(GRAPH, threads=1)


@pytest.fixture(scope="module")
def base(encoder):
    base = random_base(entries=20, dimension=12)
    images = base.ct.astype(np.float32) / np.float32(127.5) - 1
    embeddings = np.stack([encoder.embed(image[None, None]) for image in images])
    index = base.index.model_copy(
        update={"encoder_sha256": hashlib.sha256(GRAPH).hexdigest(), "pixel_mm": 8.0}
    )
    return replace(base, embeddings=embeddings, index=index)


def _bundle(tmp_path, base, retrieval=None, graph=GRAPH) -> ModelBundle:
    chosen = retrieval or Retrieval(method="exemplar")
    recipe = tiny_recipe(rows=64, columns=48).model_copy(update={"retrieval": chosen})
    exemplars = {f"exemplars/{name}": c for name, c in contents_of(base).items()}
    return ModelBundle(
        path=tmp_path,
        manifest=None,
        recipe=recipe,
        card=None,
        digest="d" * 64,
        _contents={"encoder.onnx": graph, **exemplars},
    )


def _changed(base, **index):
    return replace(base, index=base.index.model_copy(update=index))


def test_the_threshold_is_the_bases_own_or_the_recipes(tmp_path, base, encoder):
    assert open_exemplars(_bundle(tmp_path, base), encoder).tau == pytest.approx(0.85)
    ten = Retrieval(method="exemplar", p=10)
    assert open_exemplars(_bundle(tmp_path, base, ten), encoder).tau == pytest.approx(0.80)
    own = Retrieval(method="exemplar", tau=0.5)
    assert open_exemplars(_bundle(tmp_path, base, own), encoder).tau == 0.5


@pytest.mark.parametrize(
    ("index", "code"),
    [
        ({"encoder_sha256": "0" * 64}, "KB-ENCODER"),
        ({"template_sha256": "0" * 64}, "KB-TEMPLATE"),
        ({"pixel_mm": 1.8}, "KB-RECIPE"),
        ({"window_hu": (0.0, 100.0)}, "KB-RECIPE"),
        ({"tau": ()}, "KB-TAU"),
    ],
)
def test_a_base_made_for_something_else_is_refused(tmp_path, base, encoder, index, code):
    with pytest.raises(KnowledgeBaseError) as caught:
        open_exemplars(_bundle(tmp_path, _changed(base, **index)), encoder)
    assert caught.value.code == code


@pytest.mark.parametrize(("subjects", "code"), [(1, "KB-ONE-SUBJECT")])
def test_a_base_of_one_subject_is_refused(tmp_path, base, encoder, subjects, code):
    alone = random_base(entries=20, dimension=12, subjects=subjects)
    with pytest.raises(KnowledgeBaseError, match=code):
        open_exemplars(_bundle(tmp_path, alone), encoder)


def test_an_encoder_that_gives_other_directions_is_refused(tmp_path, base, encoder):
    turned = replace(base, embeddings=np.roll(base.embeddings, 1, axis=0))
    with pytest.raises(KnowledgeBaseError, match=r"KB-ENCODER.*agrees .* by -?0\."):
        open_exemplars(_bundle(tmp_path, turned), encoder)


@pytest.mark.parametrize(
    ("answer", "code"),
    [(np.ones(11, dtype=np.float32), "KB-DIMENSION"), (np.full(12, np.nan), "KB-ENCODER")],
)
def test_an_encoder_of_other_dimensions_or_without_an_answer_is_refused(
    tmp_path, base, answer, code
):
    broken = type("Broken", (), {"identity": "broken", "embed": lambda _, __: answer})()
    with pytest.raises(KnowledgeBaseError) as caught:
        open_exemplars(_bundle(tmp_path, base), broken)
    assert caught.value.code == code


def test_an_encoder_refuses_a_slice_of_another_size_and_a_graph_that_is_none(encoder):
    with pytest.raises(EngineError, match="as the recipe's grid says"):
        encoder.embed(np.zeros((1, 1, 32, 32), dtype=np.float32))
    with pytest.raises(EngineError, match=r"cannot compile encoder\.onnx"):
        encoder_of_graph(b"no graph")
