"""The encoder: shapes, directions of length one, what it sees and what it does not."""

from __future__ import annotations

import pytest
import torch

from rebrain_node.model.encoder import COLUMNS, EMBEDDING, PATCH, ROWS, SliceEncoder


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
