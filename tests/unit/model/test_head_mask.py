"""The head mask against the morphology of the Insight Toolkit."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from rebrain_node.model.head_mask import dilated_in_plane, head_mask, with_whole_face


def _insight(operation, mask, radius):
    """A binary filter with a disc, beyond the border background, by the Insight Toolkit."""
    padded = np.pad(mask, ((0, 0), (radius, radius), (radius, radius))).astype(np.uint8)
    result = operation(sitk.GetImageFromArray(padded), (radius, radius, 0), sitk.sitkBall)
    return sitk.GetArrayFromImage(result)[:, radius:-radius, radius:-radius] > 0


def _blobs(seed, shape=(4, 90, 70)):
    """Irregular regions, some of which touch the border; the last slice is empty."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (0, 3, 3))
    mask = noise > 0.05
    mask[-1] = False
    return mask


@pytest.mark.parametrize("radius", [1, 4, 6, 8, 12])
@pytest.mark.parametrize("seed", range(4))
def test_dilation_is_that_of_the_insight_toolkit(radius, seed):
    mask = _blobs(seed)
    assert np.array_equal(dilated_in_plane(mask, radius), _insight(sitk.BinaryDilate, mask, radius))


def _reference_mask(hu, pixel_mm):
    tissue = hu > -200.0
    radius = max(1, round(4.0 / pixel_mm))
    labels, count = ndimage.label(_insight(sitk.BinaryMorphologicalOpening, tissue, radius))
    if count == 0:
        return np.zeros(hu.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    head = _insight(sitk.BinaryDilate, labels == sizes.argmax(), radius) & tissue
    closed = _insight(sitk.BinaryMorphologicalClosing, head, round(6.0 / pixel_mm))
    return np.stack([ndimage.binary_fill_holes(plane) for plane in closed])


@pytest.mark.parametrize("pixel_mm", [0.46, 0.9, 1.6])
@pytest.mark.parametrize("seed", range(4))
def test_the_mask_is_the_one_that_the_insight_toolkit_gives(pixel_mm, seed):
    random = np.random.default_rng(seed)
    _, y, x = np.indices((5, 120, 110))
    distance = np.hypot((y - 58) / 42, (x - 54) / random.uniform(30, 38))
    hu = np.where(distance < 1.0, 40.0, -1000.0)
    hu[(distance > 0.85) & (distance < 1.0)] = 800.0
    hu[:, 112:116] = 100.0  # the table
    hu[:, 60:66, 50:54] = -900.0  # a cavity
    hu[2] = np.where(ndimage.gaussian_filter(random.normal(size=(120, 110)), 2) > 0.15, -950, hu[2])
    hu += random.normal(scale=20.0, size=hu.shape)
    assert np.array_equal(head_mask(hu, pixel_mm), _reference_mask(hu, pixel_mm))


def test_air_alone_holds_no_head():
    assert not head_mask(np.full((3, 40, 40), -1000.0), 1.0).any()


def _with_a_nose():
    """A head with a hollow nose of thin walls in front, a table behind, a strap at its side."""
    _, y, x = np.indices((3, 150, 120))
    hu = np.where(np.hypot((y - 85) / 50, (x - 60) / 40) < 1.0, 40.0, -1000.0)
    hollow = (np.abs(x - 60) < 12) & (y > 20) & (y < 60)
    hu[hollow] = -1000.0  # the airway, open in front
    wall = (np.abs(x - 60) >= 10) & (np.abs(x - 60) < 13) & (y > 22) & (y < 42)
    hu[wall | ((np.abs(x - 60) < 13) & (y >= 20) & (y <= 22))] = 30.0
    hu[:, 140:143] = 100.0
    hu[:, 60:62, 101:115] = 100.0
    return hu


def test_a_thin_nose_and_the_air_behind_it_belong_to_the_head():
    hu = _with_a_nose()
    core = head_mask(hu, 1.0)
    whole = with_whole_face(core, hu, 1.0)
    assert not core[:, 22:30, 50:70].any()
    assert whole[:, 21:58, 50:70].all()
    assert (whole | ~core).all()
    assert not whole[:, 139:].any()
    assert not whole[:, 60:62, 104:].any()


def test_a_face_without_anything_thin_is_unchanged():
    _, y, x = np.indices((3, 120, 110))
    hu = np.where(np.hypot((y - 58) / 42, (x - 54) / 35) < 1.0, 40.0, -1000.0)
    hu[2] = -1000.0  # air alone
    core = head_mask(hu, 0.9)
    assert np.array_equal(with_whole_face(core, hu, 0.9), core)
