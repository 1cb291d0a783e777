"""Every residual-scale head through the same test, and against each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rebrain_node.engine.open import deviation, open_scale
from rebrain_node.errors import BundleError, EngineError
from rebrain_node.model.bundle import load_bundle, write_bundle
from tests.support.engines import CPU, ENGINES
from tests.support.tiny_bundle import calibrated, write_bundle_without_network


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    return calibrated(write_bundle_without_network(folder / "bare"), folder / "calibrated")


@pytest.fixture(scope="module", params=ENGINES)
def scale(request, bundle):
    return open_scale(request.param, bundle, threads=1)


def _input(bundle, seed=0):
    grid = bundle.recipe.grid
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, (1, 5, grid.rows, grid.columns)).astype(np.float32)
    return x, np.array([[2.5, 0.0]], dtype=np.float32)


def test_one_slice_gives_one_positive_scale_a_voxel(scale, bundle):
    found = scale.estimate(*_input(bundle))
    assert found.shape == (1, 1, bundle.recipe.grid.rows, bundle.recipe.grid.columns)
    assert found.dtype == np.float32
    assert (found > 0).all()
    assert np.isfinite(found).all()


def test_the_same_input_gives_the_same_bits_and_an_answer_outlives_the_next(scale, bundle):
    first = scale.estimate(*_input(bundle))
    kept = first.copy()
    scale.estimate(*_input(bundle, seed=1))
    assert np.array_equal(first, kept)
    assert np.array_equal(scale.estimate(*_input(bundle)), kept)


def test_distance_and_similarity_reach_the_head(scale, bundle):
    x, s = _input(bundle)
    plain = scale.estimate(x, s)
    for told in ([[0.0, 0.0]], [[2.5, 0.9]]):
        assert not np.array_equal(scale.estimate(x, np.array(told, dtype=np.float32)), plain)


def test_the_engines_agree(bundle):
    found = [open_scale(name, bundle).estimate(*_input(bundle)) for name in CPU]
    assert deviation(found[0], found[1]) < 1e-4


def test_a_wrong_shape_is_refused(scale, bundle):
    x, s = _input(bundle)
    with pytest.raises(EngineError, match=r"\(1, 3, 64, 48\)"):
        scale.estimate(x[:, :3], s)


def test_a_head_that_deviates_from_its_golden_scales_is_not_used(bundle, tmp_path):
    from safetensors.torch import load, save

    contents = {name: bundle.read(name) for name in bundle.manifest.files}
    golden = load(contents["golden.safetensors"])
    contents["golden.safetensors"] = save(golden | {"b": golden["b"] * 1.01})
    write_bundle(tmp_path / "other", "other", "1", contents)
    with pytest.raises(BundleError, match=r"deviates by 0\.0099 from the golden output"):
        open_scale("openvino", load_bundle(tmp_path / "other"))


def test_a_bundle_without_a_head_and_an_unknown_engine_are_refused(bundle, tmp_path):
    with pytest.raises(EngineError, match="no engine 'abacus'"):
        open_scale("abacus", bundle)
    bare = {
        name: bundle.read(name)
        for name in bundle.manifest.files
        if not name.startswith(("scale", "calibration"))
    }
    write_bundle(tmp_path / "bare", "bare", "1", bare)
    with pytest.raises(BundleError, match=r"no file scale\.onnx"):
        open_scale("openvino", load_bundle(tmp_path / "bare"))


@pytest.mark.parametrize(
    ("name", "file", "sentence"),
    [
        ("openvino", "scale.onnx", r"cannot compile scale\.onnx"),
        ("torch", "scale.safetensors", r"scale\.safetensors does not fit"),
    ],
)
def test_a_file_that_holds_no_head_is_refused(bundle, name, file, sentence):
    contents = {each: bundle.read(each) for each in bundle.manifest.files}
    broken = replace(bundle, _contents=contents | {file: b"no network at all"})
    with pytest.raises(EngineError, match=sentence):
        open_scale(name, broken)


CALIBRATION = "calibration.json"


def _without(bundle, *names):
    return {name: bundle.read(name) for name in bundle.manifest.files if name not in names}


@pytest.mark.parametrize("missing", [CALIBRATION, "scale.onnx"])
def test_head_and_calibration_come_together_or_not_at_all(bundle, tmp_path, missing):
    write_bundle(tmp_path / "half", "half", "1", _without(bundle, missing))
    with pytest.raises(BundleError, match=f"no {missing}"):
        load_bundle(tmp_path / "half")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"format": 1', b'"format": 2', r"calibration\.json: format"),
        (
            b'"people": 25,\n  "label"',
            b'"people": 19,\n  "label"',
            "label is 'calibrated on simulated CT, n = 25'",
        ),
        (b'"alpha": 0.1', b'"alpha": NaN', r"calibration\.json: "),
        (b'"measured": {', b'"guessed": {', r"calibration\.json: widths"),
    ],
)
def test_a_calibration_of_another_format_or_that_flatters_is_refused(
    bundle, tmp_path, old, new, said
):
    text = bundle.read(CALIBRATION)
    assert old in text
    contents = _without(bundle) | {CALIBRATION: text.replace(old, new)}
    write_bundle(tmp_path / "altered", "altered", "1", contents)
    with pytest.raises(BundleError, match=said):
        load_bundle(tmp_path / "altered")


@pytest.mark.parametrize("file", ["network.onnx", "scale.onnx"])
def test_a_calibration_of_another_network_is_refused(bundle, tmp_path, file):
    contents = _without(bundle) | {file: bundle.read(file) + b" "}
    write_bundle(tmp_path / "swapped", "swapped", "1", contents)
    with pytest.raises(BundleError, match=f"made with {file} of SHA-256"):
        load_bundle(tmp_path / "swapped")


def test_a_calibrated_bundle_says_so_and_the_old_one_is_left_alone(bundle):
    bare = load_bundle(bundle.path.parent / "bare")
    assert bare.calibration is None
    assert bare.recipe.abstain is None
    assert bundle.calibration is not None
    assert bundle.calibration.label == "calibrated on simulated CT, n = 25"
    assert bundle.version == bundle.card.version == "0.0.2"
    assert bundle.card.choices[-1] == "The uncertainty is that of a test."
    assert bundle.read("network.onnx") == bare.read("network.onnx")
    assert bundle.recipe.abstain is not None
