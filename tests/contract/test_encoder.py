"""The encoder on every engine through the same test, and against each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save

from rebrain_node.engine.open import BACKENDS, deviation, open_encoder
from rebrain_node.errors import EngineError
from rebrain_node.model.encoder import SliceEncoder
from tests.support.engines import CPU, ENGINES
from tests.support.tiny_bundle import write_bundle_without_network
from trainer.release.export import export_encoder, halves_of

SHAPE = (1, 1, 128, 104)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.manual_seed(3)
    weights = halves_of(SliceEncoder().state_dict())
    bare = write_bundle_without_network(tmp_path_factory.mktemp("bundle") / "bare")
    files = {
        "encoder.onnx": export_encoder(weights),
        "encoder.safetensors": save(weights),
    }
    return replace(bare, _contents={**bare._contents, **files})


@pytest.fixture(scope="module", params=ENGINES)
def encoder(request, bundle):
    return open_encoder(request.param, bundle, threads=1)


def _image(seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, SHAPE).astype(np.float32)


def test_a_slice_becomes_a_vector_of_length_one(encoder):
    embedding = encoder.embed(_image())
    assert embedding.shape == (192,)
    assert embedding.dtype == np.float32
    assert float(np.linalg.norm(embedding)) == pytest.approx(1.0, abs=1e-5)


def test_the_same_slice_gives_the_same_bits_and_an_answer_outlives_the_next(encoder):
    first = encoder.embed(_image())
    kept = first.copy()
    assert not np.array_equal(encoder.embed(_image(seed=1)), kept)
    assert np.array_equal(first, kept)
    assert np.array_equal(encoder.embed(_image()), kept)


def test_the_identity_names_engine_version_and_single_precision(encoder):
    name, version, precision = encoder.identity.split(" ")
    assert name in BACKENDS
    assert version[0].isdigit()
    assert precision == "fp32"


def test_a_slice_of_another_size_is_refused(encoder):
    with pytest.raises(EngineError, match=r"32, 24"):
        encoder.embed(np.zeros((1, 1, 32, 24), dtype=np.float32))


def test_the_engines_agree(bundle):
    found = [open_encoder(name, bundle).embed(_image()) for name in CPU]
    assert deviation(found[0], found[1]) < 1e-4


@pytest.mark.parametrize(
    ("name", "file", "sentence"),
    [
        ("openvino", "encoder.onnx", r"cannot compile encoder\.onnx"),
        ("torch", "encoder.safetensors", r"encoder\.safetensors does not fit"),
    ],
)
def test_a_file_that_holds_no_encoder_is_refused(bundle, name, file, sentence):
    broken = replace(bundle, _contents={**bundle._contents, file: b"no network at all"})
    with pytest.raises(EngineError, match=sentence):
        open_encoder(name, broken)
