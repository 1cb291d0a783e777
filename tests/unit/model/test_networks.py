"""The networks: U-Net of the bridge and encoder of retrieval; shapes, sizes, what they see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from rebrain_node.model import bridge
from rebrain_node.model.bundle import ModelBundle, load_bundle
from rebrain_node.model.encoder import COLUMNS, EMBEDDING, PATCH, ROWS, SliceEncoder
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.unet import BridgeUNet, UnitizedUNet, from_bundle

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
    assert sum(record.size for record in demo.manifest.files.values()) <= 25e6


def test_a_unitized_network_answers_as_any_other_and_undoes_its_own_emission() -> None:
    torch.manual_seed(0)
    network = UnitizedUNet((8, 16)).eval()
    x, s = torch.rand(2, 5, 32, 16) * 2 - 1, torch.tensor([[1.0, 0, 0, 0], [0.4, 2, 2, 1]])

    with torch.inference_mode():
        emitted, log_rho = network.emission(x, s)
        x0_hat = x[:, :1] - network(x, s)

    weight = bridge.directional_weight(s[:, :1, None, None], log_rho.exp())
    again = bridge.direction(x0_hat, x[:, 1:2], x[:, :1], weight)
    torch.testing.assert_close(again, emitted, atol=1e-5, rtol=0)


def test_a_recipe_without_widths_means_the_widths_of_the_shipped_bundle(demo: ModelBundle) -> None:
    text = demo.recipe.model_dump(mode="json", exclude={"widths"})

    assert Recipe.model_validate(text).widths == (48, 96, 128, 192)


def test_a_grid_that_the_levels_do_not_divide_is_refused(demo: ModelBundle) -> None:
    text = demo.recipe.model_dump(mode="json") | {"widths": [8, 8, 8, 8, 8]}

    with pytest.raises(ValueError, match="256 x 208 must be multiples of 32"):
        Recipe.model_validate(text)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return SliceEncoder().eval()


def _slices(count: int) -> torch.Tensor:
    return torch.rand(count, 1, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_an_embedding_is_a_direction_of_length_one(encoder):
    with torch.no_grad():
        found = encoder.encode(_slices(3))
    assert found.embedding.shape == (3, EMBEDDING)
    assert torch.allclose(found.embedding.norm(dim=1), torch.ones(3), atol=1e-6)
    assert found.middle.shape == (3, ROWS // PATCH * (COLUMNS // PATCH), EMBEDDING)


def test_a_slice_gets_the_same_embedding_alone_and_in_a_batch(encoder):
    slices = _slices(4)
    with torch.no_grad():
        together = encoder(slices)
        alone = torch.cat([encoder(piece[None]) for piece in slices])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_position_of_a_patch_changes_the_embedding(encoder):
    """Mean pooling alone would not tell a slice from the same patches in another order."""
    slices = _slices(1)
    with torch.no_grad():
        moved = encoder(slices.roll(PATCH, dims=3))
        assert (encoder(slices) - moved).abs().max() > 1e-4


def test_every_parameter_is_reached_by_the_gradient_of_the_embedding():
    torch.manual_seed(0)
    network = SliceEncoder()
    (network(_slices(2)) * torch.randn(2, EMBEDDING)).sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_it_has_about_two_million_parameters(encoder):
    assert 1.5e6 < sum(p.numel() for p in encoder.parameters()) < 2.5e6
