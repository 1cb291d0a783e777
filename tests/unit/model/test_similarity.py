"""The shared definitions, held against scikit-image and against cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from rebrain_node.model.similarity import IntensityScale, psnr_db, rmse, ssim, ssim_map


def pair(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    truth = ndimage.gaussian_filter(random.random(shape), 2.0)
    truth = (truth - truth.min()) / np.ptp(truth)
    return truth, truth + 0.1 * random.random(shape)


@pytest.mark.parametrize("shape", [(24, 26, 28), (40, 44)])
def test_the_map_of_ssim_is_that_of_scikit_image(shape: tuple[int, ...]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    truth, image = pair(shape)

    _, values = metrics.structural_similarity(
        truth, image, data_range=1.0, gaussian_weights=True, use_sample_covariance=False,
        sigma=1.5, win_size=11, full=True,
    )  # fmt: skip

    np.testing.assert_allclose(ssim_map(image, truth), values, atol=1e-9)


def test_ssim_is_the_mean_of_the_map_in_the_mask() -> None:
    truth, image = pair((24, 26, 28))
    mask = np.zeros(truth.shape, dtype=bool)
    mask[2:9, 10:20, 15:] = True

    assert ssim(image, truth, mask) == pytest.approx(ssim_map(image, truth)[mask].mean())


def test_an_error_of_a_tenth_is_twenty_decibels_and_none_is_a_hundred() -> None:
    truth, _ = pair((12, 12))
    everywhere = np.ones(truth.shape, dtype=bool)

    assert rmse(truth - 0.1, truth, everywhere) == pytest.approx(0.1)
    assert psnr_db(truth + 0.1, truth, everywhere) == pytest.approx(20.0)
    assert psnr_db(truth, truth, everywhere) == pytest.approx(100.0)


def test_the_scale_takes_the_percentiles_of_the_reference_in_the_mask_to_zero_and_one() -> None:
    reference = np.arange(2001, dtype=np.float64)
    mask = reference <= 1000

    scale = IntensityScale.of(reference, mask)

    assert (scale.low, scale.high) == pytest.approx((5.0, 995.0))
    np.testing.assert_allclose(scale.map(np.array([5.0, 995.0, 1985.0])), [0, 1, 2])


@pytest.mark.parametrize("kept", [0, 1])
def test_a_scale_of_nothing_or_of_a_flat_image_is_refused(kept: int) -> None:
    with pytest.raises(ValueError, match=r"empty|flat"):
        IntensityScale.of(np.full(9, 7.0), np.arange(9) < 5 * kept)
