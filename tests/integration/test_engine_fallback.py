"""Where the engine of a GPU cannot start, OpenVINO computes, and log and audit log say why."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rebrain_node.app import compose
from rebrain_node.app.model_check import activate_bundle
from rebrain_node.engine import cuda_driver
from rebrain_node.errors import BundleError, EngineError
from rebrain_node.model.bundle import load_bundle, write_bundle
from rebrain_node.settings import Model, Settings, Storage
from tests.support.plain_bundle import plain_contents, tiny_network_contents

on_a_cpu = pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")


@pytest.fixture
def settings(tmp_path):
    write_bundle(tmp_path / "b", "tiny", "1", plain_contents() | tiny_network_contents())
    model = Model(bundle=tmp_path / "b", unsigned="accept", engine="tensorrt", threads=1)
    return Settings(model=model, storage=Storage(folder=tmp_path / "state"))


def opened(settings):
    return compose.open_model(settings, load_bundle(settings.model.bundle))


def test_without_the_library_openvino_computes_and_the_log_says_what_to_install(
    settings, monkeypatch, caplog
):
    for package in ("tensorrt_rtx", "tensorrt"):
        monkeypatch.setitem(sys.modules, package, None)
    model = opened(settings)
    assert model.engine.identity.startswith("openvino ")
    assert 'pip install "rebrain-node[gpu]"' in model.fallback
    assert "computes instead of tensorrt" in caplog.text


def test_without_a_driver_openvino_computes(settings, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra gpu)")
    monkeypatch.setattr(cuda_driver, "_LIBRARY", "libcuda-of-nobody.so")
    model = opened(settings)
    assert model.engine.identity.startswith("openvino ")
    assert "no NVIDIA driver" in model.fallback


def test_compiling_without_a_driver_says_how_to_build_for_another_machine(settings, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra gpu)")
    monkeypatch.setattr(cuda_driver, "_LIBRARY", "libcuda-of-nobody.so")
    bundle = load_bundle(settings.model.bundle)
    with pytest.raises(EngineError, match=r"--target, e\.g\. SM89"):
        compose.compile_plans(settings, bundle, None)


def test_an_engine_of_the_processor_has_no_fallback(settings):
    on_openvino = settings.model.model_copy(update={"engine": "openvino"})
    assert opened(settings.model_copy(update={"model": on_openvino})).fallback is None


def test_a_bundle_that_deviates_on_openvino_too_is_refused(settings, tmp_path):
    contents = plain_contents() | tiny_network_contents() | {"golden.safetensors": b""}
    write_bundle(tmp_path / "damaged", "tiny", "2", contents)
    damaged = settings.model.model_copy(update={"bundle": tmp_path / "damaged"})
    with pytest.raises(BundleError, match="cannot be read"):
        opened(settings.model_copy(update={"model": damaged}))


@on_a_cpu
def test_the_audit_log_holds_which_engine_computes_and_why(settings):
    with compose.open_state(settings) as state:
        verdict = activate_bundle(settings, state)
        verified, fallback = state.audit.events(10)
    assert str(verified.event) == "bundle.verified"
    assert (str(fallback.event), fallback.subject) == ("engine.fallback", "tensorrt")
    assert fallback.details == {"engine": verdict.engine, "reason": verdict.fallback}
    assert verdict.engine.startswith("openvino ")
