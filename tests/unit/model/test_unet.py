"""The network and its files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from rebrain_node.model.bundle import ModelBundle, load_bundle
from rebrain_node.model.unet import BridgeUNet, from_bundle

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def demo() -> ModelBundle:
    return load_bundle(ROOT / "rebrain_node" / "bundles" / "demo")


def test_one_evaluation_keeps_the_contract_of_shapes() -> None:
    network = BridgeUNet((8, 16)).eval()

    with torch.inference_mode():
        flow = network(torch.zeros(1, 5, 32, 16), torch.zeros(1, 4))

    assert flow.shape == (1, 1, 32, 16)


def test_the_place_on_the_bridge_changes_the_answer(demo: ModelBundle) -> None:
    network, golden = from_bundle(demo), load(demo.read("golden.safetensors"))
    x, s = torch.from_numpy(golden["x"].astype(np.float32)), torch.from_numpy(golden["s"])

    with torch.inference_mode():
        elsewhere = network(x, s * torch.tensor([0.2, 1, 1, 1]))

    assert (elsewhere.numpy() - golden["f"]).std() > 1e-3


def test_the_weights_of_the_shipped_bundle_give_its_golden_output(demo: ModelBundle) -> None:
    golden = load(demo.read("golden.safetensors"))

    with torch.inference_mode():
        flow = from_bundle(demo)(
            torch.from_numpy(golden["x"].astype(np.float32)), torch.from_numpy(golden["s"])
        )

    np.testing.assert_allclose(flow.numpy(), golden["f"], atol=1e-4)


def test_the_shipped_bundle_fits_the_budget_of_the_repository(demo: ModelBundle) -> None:
    assert sum(record.size for record in demo.manifest.files.values()) < 20e6
