"""TensorRT: how graphs are rewritten, and plans built; both without a GPU."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from rebrain_node.engine.open import compile_plans, deviation
from rebrain_node.engine.openvino_backend import import_openvino
from rebrain_node.errors import EngineError
from rebrain_node.model.bundle import load_bundle

onnx = pytest.importorskip("onnx")

from rebrain_node.engine import tensorrt_backend  # noqa: E402 - needs onnx
from rebrain_node.engine.half_precision import for_batches  # noqa: E402

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(Path(__file__).parents[2] / "rebrain_node/bundles/demo")


@pytest.fixture
def library():
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra gpu)")


def evaluated(content, **arrays):
    core = import_openvino().Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(io.BytesIO(content)), "CPU", options)
    return {port.get_any_name(): value for port, value in compiled(arrays).to_dict().items()}


def test_the_rewritten_control_branch_gives_for_two_slices_what_each_gives(bundle):
    random, grid = np.random.default_rng(4), bundle.recipe.grid
    shapes = {"x": (2, 5, *grid.shape), "s": (2, 4), "guide": (2, 1, *grid.shape)}
    given = {
        name: random.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()
    }
    content = bundle.read("control.onnx")
    at_once = evaluated(for_batches(content, half=False), **given)
    for k in range(2):
        alone = evaluated(content, **{name: array[k : k + 1] for name, array in given.items()})
        for name, features in alone.items():
            assert deviation(at_once[name][k : k + 1], features) < 1e-5


def test_convolutions_are_in_half_precision_and_what_goes_in_and_out_is_not(bundle):
    graph = onnx.load_model_from_string(for_batches(bundle.read("network.onnx"), half=True)).graph
    casts = {node.output[0]: node.attribute[0].i for node in graph.node if node.op_type == "Cast"}
    read = {name: node.output[0] for node in graph.node for name in node.input
            if node.op_type == "Cast"}  # fmt: skip
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 24
    for node in convolutions:
        assert {casts[name] for name in node.input} == {HALF}
        assert casts[read[node.output[0]]] == FLOAT
    ports = [*graph.input, *graph.output]
    assert {port.type.tensor_type.elem_type for port in ports} == {FLOAT}
    assert {port.type.tensor_type.shape.dim[0].dim_param for port in ports} == {"n"}


def test_what_is_no_graph_is_refused():
    with pytest.raises(EngineError, match="bundle verify"):
        for_batches(b"no graph", half=True)


def test_a_graph_of_two_slices_is_refused(bundle):
    model = onnx.load_model_from_string(bundle.read("scale.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    with pytest.raises(EngineError, match="is not of one slice"):
        for_batches(model.SerializeToString(), half=False)


@pytest.mark.parametrize("target", ["SM86", "SM89"])
def test_a_plan_is_built_without_a_gpu_for_the_target(bundle, library, target):
    plan = tensorrt_backend.PlanBuilder().build("control", bundle, target)
    weights = len(bundle.read("control.onnx"))
    assert weights < len(plan) < 3 * weights  # 3.6 times with convolutions in fp32


def test_the_library_reads_names_and_shapes_of_the_rewritten_network(bundle, library):
    flag = 1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    log = library.Logger(library.Logger.ERROR)
    network = library.Builder(log).create_network(flag)
    content = for_batches(bundle.read("network.onnx"), half=True)
    assert library.OnnxParser(network, log).parse(content)
    inputs = [network.get_input(k) for k in range(network.num_inputs)]
    shape = tuple(bundle.recipe.grid.shape)
    assert [each.name for each in inputs] == ["x", "s", "c0", "c1", "c2", "c3"]
    assert tuple(inputs[0].shape) == (-1, 5, *shape)
    output = network.get_output(0)
    assert (output.name, tuple(output.shape)[1:]) == ("f", (1, *shape))
    assert {each.dtype for each in (*inputs, output)} == {library.float32}
    precisions = {
        network.get_layer(k).get_input(0).dtype
        for k in range(network.num_layers)
        if network.get_layer(k).type == library.LayerType.CONVOLUTION
    }
    assert precisions == {library.float16}


def test_a_target_that_the_library_does_not_know_is_refused_with_those_it_knows(
    bundle, library, tmp_path
):
    with pytest.raises(EngineError, match=r"builds for SM75, .*, not for SM90; install `tensorrt`"):
        compile_plans(bundle, tmp_path, "SM90")


def test_a_plan_is_built_once_and_then_taken_from_the_store(bundle, library, tmp_path, monkeypatch):
    names = ("scale.onnx",)
    monkeypatch.setattr(type(bundle), "holds", lambda _bundle, name: name in names)
    (built,) = compile_plans(bundle, tmp_path, "SM89")
    assert (built.graph, built.precision, built.target) == ("scale", "fp32", "SM89")
    (file,) = tmp_path.glob("scale-SM89-*.plan")
    written = file.stat().st_mtime_ns
    assert compile_plans(bundle, tmp_path, "SM89")[0].size == built.size
    assert file.stat().st_mtime_ns == written
    file.write_bytes(b"damaged")
    compile_plans(bundle, tmp_path, "SM89")
    assert file.stat().st_size == built.size + 32


def test_bytes_that_are_no_plan_are_refused(library):
    with pytest.raises(EngineError, match="cannot load a plan"):
        tensorrt_backend.PlanBuilder().load(b"no plan")


def test_without_the_library_the_engine_says_what_to_install(bundle, tmp_path, monkeypatch):
    for package in ("tensorrt_rtx", "tensorrt"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EngineError, match=r'pip install "rebrain-node\[gpu\]"'):
        compile_plans(bundle, tmp_path, "SM89")
