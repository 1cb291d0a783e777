"""The filter along the normal: stripes go, tissue stays, nothing is mixed in from outside."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from rebrain_node.model.z_filter import second_difference, z_filtered

MEASURED = np.arange(41) % 5 == 0
HEAD = np.ones((41, 24, 20), dtype=bool)


def smooth(seed=0):
    """A volume that is as smooth along the normal as tissue."""
    noise = np.random.default_rng(seed).normal(size=HEAD.shape)
    volume = ndimage.gaussian_filter(noise, (2.0, 1.0, 1.0))
    return (0.5 + 0.1 * volume / volume.std()).astype(np.float32)


def striped(seed=0):
    """The same with more noise in the slices that were measured."""
    noise = np.random.default_rng(seed + 1).normal(scale=0.03, size=HEAD.shape)
    return (smooth(seed) + noise * MEASURED[:, None, None]).astype(np.float32)


def ratio(volume):
    """Roughness at measured positions over that at the others."""
    squares = (second_difference(volume).astype(np.float64) ** 2).mean(axis=(1, 2))
    return squares[MEASURED[1:-1]].mean() / squares[~MEASURED[1:-1]].mean()


@pytest.mark.parametrize("sigma", [0.0, 0.5, 1.0])
def test_stripes_of_measured_slices_go(sigma):
    volume = striped()
    assert ratio(volume) > 2.0
    assert ratio(z_filtered(volume, HEAD, MEASURED, sigma)) < 1.2


def test_the_gaussian_smooths_from_slice_to_slice_and_not_in_the_plane():
    volume, nothing = striped(), np.zeros(41, dtype=bool)
    found = z_filtered(volume, HEAD, nothing, 1.0)
    expected = ndimage.gaussian_filter1d(volume, 1.0, axis=0, truncate=4.0)
    assert np.allclose(found[4:-4], expected[4:-4], atol=1e-5)


def test_without_a_gaussian_only_slices_at_measured_positions_change():
    volume = striped()
    found = z_filtered(volume, HEAD, MEASURED, 0.0)
    assert np.array_equal(found[~MEASURED], volume[~MEASURED])
    assert not np.allclose(found[5], volume[5])


def test_a_volume_without_stripes_is_not_evened():
    volume = smooth()
    found = z_filtered(volume, HEAD, MEASURED, 0.0)
    assert np.abs(found - volume).max() < 0.02
    every = np.ones(41, dtype=bool)
    assert np.allclose(z_filtered(striped(), HEAD, every, 0.0), striped())


def test_a_constant_head_stays_constant_up_to_its_rim_and_its_ends():
    rows, columns = np.indices(HEAD.shape[1:])
    radius = 9.0 * np.sin(np.linspace(0.2, np.pi - 0.2, 41))[:, None, None]
    head = np.hypot(rows - 12, columns - 10) < radius
    volume = np.where(head, np.float32(0.7), 0.0)
    found = z_filtered(volume, head, MEASURED, 1.0)
    assert np.allclose(found[head], 0.7, atol=1e-6)
    assert (found[~head] == 0.0).all()


def test_the_mean_is_kept():
    volume = striped()
    found = z_filtered(volume, HEAD, MEASURED, 1.0)
    assert found.mean() == pytest.approx(volume.mean(), abs=2e-3)


def test_the_same_volume_gives_the_same_result():
    volume = striped()
    once, again = (z_filtered(volume, HEAD, MEASURED, 0.5) for _ in range(2))
    assert np.array_equal(once, again)
