"""The prepared run for a GPU, on a CPU at tiny size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load, save

from rebrain_node.model.bundle import load_bundle, write_bundle
from tests.support.tiny_bundle import write_tiny_guided_bundle

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_guided_bundle(tmp_path_factory.mktemp("gpu-check") / "guided")


def gpu_check(bundle, report):
    command = [sys.executable, ROOT / "deploy/gpu-check", "--device", "cpu", "--batch", "2"]
    done = subprocess.run(
        [*command, "--bundle", bundle.path, "--report", report], timeout=120, check=False
    )
    return done.returncode, json.loads(report.read_text())


def test_a_report_names_every_check_its_limit_and_what_was_not_run(bundle, tmp_path):
    code, report = gpu_check(without_encoder(bundle, tmp_path), tmp_path / "report.json")
    assert (code, report["failed"]) == (0, [])
    assert set(report["checks"]) == {
        "golden output on the CPU, torch",
        "golden output, torch",
        "batch, torch",
    }
    assert all(each["value"] <= each["limit"] for each in report["checks"].values())
    assert report["benchmark"]["ms_per_slice_at_2, torch"] > 0
    assert report["training"].startswith("not run")


def test_an_engine_that_does_not_reproduce_the_golden_output_fails(bundle, tmp_path):
    golden = load(bundle.read("golden.safetensors"))
    golden["f"] = golden["f"] * 1.1
    altered = without_encoder(bundle, tmp_path, {"golden.safetensors": save(golden)})
    code, report = gpu_check(altered, tmp_path / "report.json")
    assert code == 1
    assert report["failed"] == ["golden output on the CPU, torch", "golden output, torch"]
    assert "deviates" in report["checks"]["golden output, torch"]["error"]


def test_without_a_gpu_it_says_what_is_missing_and_writes_no_report(bundle, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "deploy/gpu-check", "--report", tmp_path / "report.json"],
        timeout=120,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 2
    assert "finds no CUDA GPU; run it on a machine" in done.stderr
    assert not (tmp_path / "report.json").exists()


def without_encoder(bundle, folder, changed=None):
    """The bundle of the tests names an encoder that cannot be opened."""
    contents = {name: bundle.read(name) for name in bundle.manifest.files} | (changed or {})
    contents = {name: held for name, held in contents.items() if "encoder" not in name}
    write_bundle(folder / "bundle", "tiny", "1", contents)
    return load_bundle(folder / "bundle")
