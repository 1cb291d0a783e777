"""Every engine through the same test, and against each other."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from rebrain_node.engine.open import BACKENDS, deviation, open_engine, reproduce_golden
from rebrain_node.engine.openvino_backend import REPORTING_MODULES, OpenVinoBackend
from rebrain_node.engine.roles import BridgeEngine
from rebrain_node.errors import BundleError, EngineError
from tests.support.engines import CPU, ENGINES
from tests.support.tiny_bundle import write_tiny_bundle, write_tiny_guided_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, bundle):
    return open_engine(request.param, bundle, threads=1)


def _input(bundle, seed=0):
    random = np.random.default_rng(seed)
    grid = bundle.recipe.grid
    x = random.uniform(-1, 1, (1, 5, grid.rows, grid.columns)).astype(np.float32)
    return x, np.array([[1.0, 2.0, 3.0, 2.0]], dtype=np.float32)


def test_one_evaluation_gives_one_image_of_the_grid(engine, bundle):
    x, s = _input(bundle)
    found = engine.evaluate(x, s)
    assert found.shape == (1, 1, bundle.recipe.grid.rows, bundle.recipe.grid.columns)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


def test_the_same_input_gives_the_same_bits(engine, bundle):
    first = engine.evaluate(*_input(bundle)).copy()
    engine.evaluate(*_input(bundle, seed=1))
    assert np.array_equal(engine.evaluate(*_input(bundle)), first)


def test_an_answer_outlives_the_next_evaluation(engine, bundle):
    first = engine.evaluate(*_input(bundle))
    kept = first.copy()
    engine.evaluate(*_input(bundle, seed=1))
    assert np.array_equal(first, kept)


def test_the_scalars_reach_the_network(engine, bundle):
    x, s = _input(bundle)
    assert not np.array_equal(engine.evaluate(x, s), engine.evaluate(x, s * 0.5))


def test_the_input_is_left_as_it_was(engine, bundle):
    x, s = _input(bundle)
    before = x.copy(), s.copy()
    x.flags.writeable = s.flags.writeable = False
    engine.evaluate(x, s)
    assert np.array_equal(x, before[0])
    assert np.array_equal(s, before[1])


def test_the_identity_names_engine_version_and_precision(engine):
    name, version, precision = engine.identity.split(" ")
    assert name in BACKENDS
    assert version[0].isdigit()
    assert precision in {"bf16", "fp32"}


def test_an_engine_within_its_limit_passes_the_golden_output(engine, bundle):
    assert 0 <= reproduce_golden(engine, bundle) <= engine.network.deviation_limit


def test_a_wrong_shape_is_refused_with_both_shapes(engine, bundle):
    x, s = _input(bundle)
    with pytest.raises(EngineError, match=r"7"):
        engine.evaluate(x[:, :, :7], s)


def test_the_engines_agree_within_the_wider_limit(bundle):
    engines = {name: open_engine(name, bundle) for name in CPU}
    golden = engines["torch"].evaluate(*_input(bundle))
    for engine in engines.values():
        assert deviation(engine.evaluate(*_input(bundle)), golden) <= engine.network.deviation_limit


class AlteredGraph:
    """A graph whose outputs are altered: the negative control of the golden output."""

    def __init__(self, graph, alter):
        self.identity, self.deviation_limit = graph.identity, graph.deviation_limit
        self._graph, self._alter = graph, alter

    def run(self, arrays):
        return {name: self._alter(value) for name, value in self._graph.run(arrays).items()}


def test_an_engine_on_other_weights_does_not_reproduce_the_golden_output(bundle, engine):
    altered = BridgeEngine(AlteredGraph(engine.network, lambda f: f * np.float32(1.05)))
    with pytest.raises(BundleError, match=r"deviates by 0\.0[3-7]\d* from the golden output"):
        reproduce_golden(altered, bundle)


def test_an_engine_that_answers_with_nan_does_not_reproduce_the_golden_output(bundle, engine):
    broken = BridgeEngine(AlteredGraph(engine.network, lambda f: np.full_like(f, np.nan)))
    with pytest.raises(BundleError, match="deviates by nan"):
        reproduce_golden(broken, bundle)


def test_weights_of_another_network_are_refused_by_torch(bundle, tmp_path):
    from safetensors.torch import save

    from rebrain_node.model.bundle import load_bundle, write_bundle

    contents = {name: bundle.read(name) for name in bundle.manifest.files}
    contents["weights.safetensors"] = save({})
    write_bundle(tmp_path / "other", "other", "1", contents)
    with pytest.raises(EngineError, match=r"weights\.safetensors does not fit the network"):
        open_engine("torch", load_bundle(tmp_path / "other"))


def test_a_graph_that_is_none_is_refused_by_openvino():
    with pytest.raises(EngineError, match=r"cannot compile network\.onnx"):
        OpenVinoBackend().compile("network", b"no graph at all")


def test_openvino_sends_nothing_and_loads_neither_torch_nor_a_reporter(bundle, tmp_path):
    program = f"""
        import os, socket, sys
        def refuse(*arguments):
            raise SystemExit(f"a socket was opened: {{arguments}}")
        socket.socket.connect = refuse
        socket.getaddrinfo = refuse
        from pathlib import Path
        from rebrain_node.engine.open import open_engine
        from rebrain_node.model.bundle import load_bundle
        open_engine("openvino", load_bundle(Path({str(bundle.path)!r})))
        loaded = {{name for name, module in sys.modules.items() if module is not None}}
        forbidden = {{*{REPORTING_MODULES!r}, "torch", "requests"}}
        found = sorted(n for n in loaded if n in forbidden or "telemetry" in n)
        raise SystemExit(f"loaded {{found}}" if found else 0)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={"HOME": str(tmp_path), "PYTHONPATH": ".", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    # The reporter would leave its client id in the home folder.
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def guided_bundle(tmp_path_factory):
    return write_tiny_guided_bundle(tmp_path_factory.mktemp("guided"))


@pytest.fixture(scope="module", params=ENGINES)
def guided(request, guided_bundle):
    return open_engine(request.param, guided_bundle, threads=1)


def _guide(bundle, seed=5):
    grid = bundle.recipe.grid
    random = np.random.default_rng(seed)
    return random.uniform(-1, 1, (1, 1, grid.rows, grid.columns)).astype(np.float32)


def test_a_guide_reaches_the_network_and_another_guide_otherwise(guided, guided_bundle):
    bare = guided.evaluate(*_input(guided_bundle))
    one, other = (
        guided.evaluate(*_input(guided_bundle), _guide(guided_bundle, seed)) for seed in (5, 6)
    )
    assert deviation(one, bare) > 0.01
    assert not np.array_equal(one, other)
    assert np.array_equal(guided.evaluate(*_input(guided_bundle)), bare)


def test_without_a_guide_a_guided_bundle_gives_the_output_of_its_network(
    guided, guided_bundle, bundle
):
    # The backbone is frozen: the same weights, whether a control branch stands beside or not.
    assert guided_bundle.read("weights.safetensors") == bundle.read("weights.safetensors")
    bare = open_engine(guided.identity.split(" ")[0], bundle, threads=1)
    found = guided.evaluate(*_input(bundle))
    assert deviation(found, bare.evaluate(*_input(bundle))) <= guided.network.deviation_limit


def test_the_engines_agree_on_a_guided_evaluation(guided_bundle):
    engines = {name: open_engine(name, guided_bundle) for name in CPU}
    given = (*_input(guided_bundle), _guide(guided_bundle))
    golden = engines["torch"].evaluate(*given)
    for engine in engines.values():
        assert deviation(engine.evaluate(*given), golden) <= engine.network.deviation_limit


def test_the_golden_output_includes_the_control_branch(guided_bundle, guided):
    # Negative control: a control branch that adds nothing is not let through.
    silent = AlteredGraph(guided.control, np.zeros_like)
    with pytest.raises(BundleError, match="deviates"):
        reproduce_golden(BridgeEngine(guided.network, silent), guided_bundle)


def test_a_guide_without_a_control_branch_is_refused(engine, bundle):
    with pytest.raises(EngineError, match="no control branch"):
        engine.evaluate(*_input(bundle), _guide(bundle))


def test_an_untrained_control_branch_changes_nothing():
    torch = pytest.importorskip("torch")
    from rebrain_node.model.control import ControlBranch, SteeredUNet
    from rebrain_node.model.unet import BridgeUNet

    torch.manual_seed(1)
    network = BridgeUNet((8, 16, 16)).eval()
    control = ControlBranch(network)
    x, s, guide = torch.randn(1, 5, 16, 16), torch.rand(1, 4), torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(SteeredUNet(network)(x, s, *control(x, s, guide)), network(x, s))
