"""Opening an engine, and its golden output, without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from rebrain_node.engine.open import (
    deviation,
    open_engine,
    reproduce_golden,
    reproduce_golden_scales,
)
from rebrain_node.engine.roles import BridgeEngine, GraphResidualScale
from rebrain_node.errors import BundleError, EngineError
from rebrain_node.model.bundle import Manifest, ModelBundle
from tests.support.tiny_bundle import CARD, tiny_recipe


def bundle_of(golden: bytes) -> ModelBundle:
    return ModelBundle(
        path=Path("tiny"),
        manifest=Manifest(name="tiny", version="1", files={}),
        recipe=tiny_recipe(),
        card=CARD,
        digest="0" * 64,
        _contents={"golden.safetensors": golden},
    )


class DoublingGraph:
    """Returns twice its first channel, off by a ratio."""

    identity = "doubling 1 fp32"
    deviation_limit = 1e-4

    def __init__(self, off):
        self.off = off

    def run(self, arrays):
        return {"f": (2.0 + 2.0 * self.off) * arrays["x"][:, :1]}


def doubling(off=0.0):
    return BridgeEngine(DoublingGraph(off))


class StubGraph:
    """Runs a function of the named arrays."""

    identity = "stub 1 fp32"
    deviation_limit = 1e-4

    def __init__(self, run):
        self.run = run


def golden_of_every_role():
    random = np.random.default_rng(0)
    x = random.normal(size=(1, 5, 8, 8)).astype(np.float32)
    guide = random.normal(size=(1, 1, 8, 8)).astype(np.float32)
    f, s = 2.0 * x[:, :1], np.ones((1, 4), np.float32)
    return save({"x": x, "s": s, "f": f, "guide": guide, "f_guided": f + guide, "b": x[:, 1:2]})


def check_role(role, factor):
    """Compare one role with its golden output; its graph's output is multiplied by a factor."""
    factors = dict.fromkeys(("network", "control", "scale"), 1.0) | {role: factor}
    bundle = bundle_of(golden_of_every_role())
    if role == "scale":
        scale = StubGraph(lambda arrays: {"b": factors["scale"] * arrays["x"][:, 1:2]})
        return reproduce_golden_scales(GraphResidualScale(scale), bundle)
    network = StubGraph(
        lambda arrays: {"f": factors["network"] * 2.0 * arrays["x"][:, :1] + arrays.get("c0", 0.0)}
    )
    control = StubGraph(lambda arrays: {"c0": factors["control"] * arrays["guide"]})
    return reproduce_golden(BridgeEngine(network, control), bundle)


@pytest.mark.parametrize("role", ["network", "control", "scale"])
@pytest.mark.parametrize("factor", [1.1, float("nan")])
def test_a_deviation_is_a_refused_bundle_in_every_role(role, factor):
    assert check_role(role, 1.0) < 1e-6
    with pytest.raises(BundleError, match=r"deviates by .* from the golden output"):
        check_role(role, factor)


def golden_of_doubling():
    x = np.random.default_rng(0).normal(size=(1, 5, 8, 8)).astype(np.float16)
    f = 2.0 * x[:, :1].astype(np.float32)
    return save({"x": x, "s": np.ones((1, 4), np.float32), "f": f})


def test_an_exact_engine_has_no_deviation():
    assert reproduce_golden(doubling(), bundle_of(golden_of_doubling())) == 0.0


@pytest.mark.parametrize(("off", "passes"), [(0.9e-4, True), (1.1e-4, False)])
def test_a_deviation_beyond_the_limit_is_refused(off, passes):
    bundle = bundle_of(golden_of_doubling())
    if passes:
        assert reproduce_golden(doubling(off), bundle) == pytest.approx(off, rel=1e-2)
    else:
        with pytest.raises(BundleError, match=r"deviates by 0\.00011 .* limit 0\.0001"):
            reproduce_golden(doubling(off), bundle)


def test_a_golden_output_of_zero_is_never_reproduced():
    zero = np.zeros((1, 1, 8, 8), np.float32)
    assert deviation(zero, zero) == float("inf")


def test_an_output_of_another_shape_deviates_infinitely():
    ones = np.ones((1, 1, 8, 8), np.float32)
    assert deviation(ones[:, :, :4], ones) == float("inf")


def test_the_error_for_an_unknown_engine_names_the_known_ones():
    with pytest.raises(EngineError, match=r"no engine 'abacus'; .* 'openvino' or 'torch'"):
        open_engine("abacus", bundle_of(b""))


@pytest.mark.parametrize("golden", [b"", save({"x": np.zeros(1, np.float32)})])
def test_a_bundle_without_a_readable_golden_output_is_refused(golden):
    with pytest.raises(BundleError, match=r"golden\.safetensors"):
        reproduce_golden(doubling(), bundle_of(golden))


def test_without_torch_the_torch_engine_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "rebrain_node.engine.torch_backend", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineError, match=r"pip install .*rebrain-node\[train\]"):
        open_engine("torch", bundle_of(b""))


def test_importing_the_module_loads_no_engine():
    program = (
        "import sys, json, rebrain_node.engine.open; "
        "print(json.dumps([n for n in ('torch', 'openvino') if n in sys.modules]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(result.stdout) == []
