"""torch for a GPU: what a CPU can show of it at tiny size, and the GPU itself under its mark."""

from __future__ import annotations

import numpy as np
import pytest

from rebrain_node.engine.open import deviation, open_engine, reproduce_golden
from rebrain_node.engine.roles import BridgeEngine
from rebrain_node.errors import EngineError
from rebrain_node.model.sampling import sample_slice, sample_slices
from rebrain_node.model.source import Conditioning
from tests.support.tiny_bundle import write_tiny_guided_bundle

torch = pytest.importorskip("torch")

from rebrain_node.engine.torch_backend import BATCH, TorchBackend  # noqa: E402 - needs torch

COUNT = 3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_guided_bundle(tmp_path_factory.mktemp("guided"))


def engine_on_cpu(bundle, precision):
    backend = TorchBackend(1, "cpu", precision)
    return BridgeEngine(backend.load("network", bundle), backend.load("control", bundle))


def slices(bundle, count=COUNT):
    random = np.random.default_rng(3)
    grid = bundle.recipe.grid
    x = random.uniform(-1, 1, (count, 5, grid.rows, grid.columns)).astype(np.float32)
    guide = random.uniform(-1, 1, (count, 1, grid.rows, grid.columns)).astype(np.float32)
    s = random.uniform(0, 4, (count, 4)).astype(np.float32)
    return x, s, guide


def one_by_one(engine, x, s, guide):
    return np.concatenate(
        [engine.evaluate(x[k : k + 1], s[k : k + 1], guide[k : k + 1]) for k in range(len(x))]
    )


def test_bf16_reproduces_the_golden_output_with_and_without_a_guide(bundle):
    engine = engine_on_cpu(bundle, "bf16")
    assert engine.identity.endswith("bf16")
    assert 1e-4 < reproduce_golden(engine, bundle) <= 0.03


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-5), ("bf16", 0.01)])
def test_a_batch_gives_what_its_slices_give_one_by_one(bundle, precision, limit):
    engine, given = engine_on_cpu(bundle, precision), slices(bundle)
    assert deviation(engine.evaluate(*given), one_by_one(engine, *given)) < limit


def test_slices_sampled_at_once_are_those_sampled_one_by_one(bundle):
    engine, (x, _, _) = engine_on_cpu(bundle, "fp32"), slices(bundle)
    places = [
        Conditioning(channels=each[1:], distances_mm=(1.0 + k, 2.0, 3.0 + k))
        for k, each in enumerate(x)
    ]
    steps, noise = (1.0, 0.5), x[0, 0]
    at_once = sample_slices(engine.evaluate, places, steps, eta=0.5, noise=noise)
    singly = [sample_slice(engine.evaluate, each, steps, eta=0.5, noise=noise) for each in places]
    for one, other in zip(at_once, singly, strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_without_a_gpu_the_engine_says_what_it_needs(bundle, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match=r"no CUDA GPU; .* model\.engine"):
        open_engine("torch-cuda", bundle)


@pytest.mark.gpu
def test_a_captured_graph_gives_what_the_reference_gives(bundle):
    gpu, reference = open_engine("torch-cuda", bundle), engine_on_cpu(bundle, "fp32")
    assert gpu.batch == BATCH
    for count in (1, COUNT, BATCH):
        given = slices(bundle, count)
        first = gpu.evaluate(*given)
        assert deviation(first, one_by_one(reference, *given)) <= 0.03
        gpu.evaluate(*(each * np.float32(0.5) for each in given))
        assert np.array_equal(gpu.evaluate(*given), first)
