"""The metrics, on images whose answer is known and against scikit-image."""

import numpy as np
import pytest
from scipy import ndimage as ndi

from rebrain_node.model.similarity import ssim_map
from rebrain_node.model.source import SourceSlice, at_measured
from trainer.evaluate import metrics
from trainer.evaluate.baselines import Tally
from trainer.evaluate.release_scores import HeldOutSlice, score_held_out
from trainer.evaluate.spectrum import radial_spectrum


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, shape).astype(np.float32)


def everywhere(volume: np.ndarray) -> np.ndarray:
    return np.ones(volume.shape, dtype=bool)


def test_nrmse_is_the_error_over_the_range_of_the_reference() -> None:
    reference = np.array([[[0.0, 2.0, 4.0]]], dtype=np.float32)

    assert metrics.nrmse(
        reference + 1, reference, everywhere(reference), extent=4.0
    ) == pytest.approx(0.25)


def test_mae_counts_the_mask_alone() -> None:
    reference = np.zeros((1, 2, 2), dtype=np.float32)
    image = np.array([[[0.5, -0.1], [9.0, 9.0]]], dtype=np.float32)
    mask = np.array([[[True, True], [False, False]]])

    assert metrics.mae(image, reference, mask) == pytest.approx(0.3)


def test_i_ssim_of_two_slices_is_their_ssim_and_of_a_constant_volume_one() -> None:
    volume = noise(2, 24, 24)
    mask = everywhere(volume)
    mask[0, :12], mask[1, 12:] = False, False  # the pair counts where either is head

    assert metrics.i_ssim(volume, mask) == pytest.approx(ssim_map(*volume).mean(), abs=1e-6)
    assert metrics.i_ssim(np.full_like(volume, 0.4), mask) == pytest.approx(1)


def test_a_wave_has_its_power_at_its_frequency() -> None:
    wave = np.cos(2 * np.pi * 0.25 * np.arange(64), dtype=np.float32)
    volume = np.tile(wave, (3, 64, 1))

    frequency, power = radial_spectrum(volume, everywhere(volume))

    assert frequency[np.argmax(power)] == pytest.approx(0.25, abs=0.5 / 64)
    assert power.sum() == pytest.approx(power.max())


def test_half_the_amplitude_is_six_decibels_of_spectrum_at_every_frequency() -> None:
    volume = noise(4, 33, 40)

    assert metrics.spectrum_error(volume, volume, everywhere(volume)) == 0
    assert metrics.spectrum_error(volume / 2, volume, everywhere(volume)) == pytest.approx(
        20 * np.log10(2), abs=1e-4
    )


def test_intensity_matching_undoes_any_rising_map_and_keeps_order() -> None:
    reference = noise(3, 20, 20)
    mask = reference > 0.1

    alike = metrics.matched(np.exp(3 * reference), reference, mask)

    np.testing.assert_allclose(alike[mask], reference[mask], atol=5e-3)
    order = np.argsort(reference[mask])
    assert (np.diff(alike[mask][order]) >= 0).all()


def test_a_constant_is_matched_to_the_median_of_the_reference() -> None:
    reference = noise(3, 20, 20)

    alike = metrics.matched(np.full_like(reference, 7), reference, everywhere(reference))

    assert alike == pytest.approx(np.median(reference), abs=1e-3)


def test_correlations_of_an_image_with_itself_its_negative_and_a_constant() -> None:
    volume = noise(2, 32, 32)
    mask, constant = everywhere(volume), np.full_like(volume, 0.5)

    for measure in (metrics.correlation, metrics.gradient_correlation, metrics.lncc):
        assert measure(volume, volume, mask) == pytest.approx(1, abs=1e-3)
        assert measure(1 - volume, volume, mask) == pytest.approx(-1, abs=1e-3)
        assert measure(constant, volume, mask) == pytest.approx(0, abs=1e-6)


def test_lncc_is_blind_to_a_slow_change_of_brightness_where_correlation_is_not() -> None:
    volume = noise(1, 96, 96)
    shaded = volume + np.linspace(0, 8, 96, dtype=np.float32)[None, None]

    assert metrics.lncc(shaded, volume, everywhere(volume)) > 0.6
    assert metrics.correlation(shaded, volume, everywhere(volume)) < 0.3


def test_mutual_information_is_that_of_scikit_image_and_blind_to_contrast() -> None:
    skimage = pytest.importorskip("skimage.metrics")
    reference = noise(3, 24, 24)
    image = reference + 0.1 * noise(3, 24, 24, seed=1)

    assert metrics.nmi(image, reference, everywhere(image)) == pytest.approx(
        skimage.normalized_mutual_information(image, reference, bins=metrics.BINS)
    )
    assert metrics.nmi(1 - reference, reference, everywhere(image)) == pytest.approx(2, abs=0.01)
    assert metrics.nmi(np.full_like(image, 3), reference, everywhere(image)) == pytest.approx(1)


def test_slice_identity_finds_the_slice_and_sees_a_shift() -> None:
    stack = noise(5, 16, 16)
    masks = everywhere(stack)

    assert metrics.slice_offsets(stack, stack, masks).tolist() == [0, 0, 0, 0, 0]
    assert metrics.slice_offsets(stack[:4], stack[1:], masks[:4]).tolist()[1:] == [-1, -1, -1]


def test_a_constant_identifies_no_slice() -> None:
    stack = noise(5, 16, 16)

    offsets = metrics.slice_offsets(np.full_like(stack, 0.5), stack, everywhere(stack))

    assert (np.abs(offsets) > 1).all()


def test_a_slice_is_supratentorial_when_brain_fills_more_than_half_of_the_head() -> None:
    head = np.ones((2, 10, 10), dtype=bool)
    brain = head.copy()
    brain[0, 5:] = False

    assert metrics.supratentorial(head, brain).tolist() == [False, True]


def test_ct2mri_mode_is_that_code_bases_definitions() -> None:
    skimage = pytest.importorskip("skimage.metrics")
    reference = ndi.gaussian_filter(noise(14, 16, 18), 1).astype(np.float64)
    image = 0.5 * reference + 0.1 * noise(14, 16, 18, seed=1)
    mask = np.zeros(image.shape, dtype=bool)
    mask[2:12, 3, 3], mask[5, 3:15, 2:17] = True, True  # its box is 2:12, 3:15, 2:17
    box = np.s_[2:12, 3:15, 2:17]

    found = metrics.ct2mri(image, reference, mask)

    a, b = image[box], reference[box]
    error = np.sqrt(((a - b) ** 2).mean())
    assert found["nrmse"] == pytest.approx(error / np.ptp(a))  # the synthetic range
    assert found["psnr"] == pytest.approx(
        skimage.peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-6
    )
    assert found["ssim"] == pytest.approx(
        skimage.structural_similarity(a, b, data_range=1.0), abs=1e-6
    )
    assert found["mae"] == pytest.approx(np.abs(a - b).mean())


def test_the_lookup_table_recovers_a_brightness_mapping() -> None:
    levels = np.arange(256, dtype=np.float32)
    source = levels / np.float32(127.5) - 1
    truth = 1 - levels / 255

    lookup = Tally.of(source, truth, np.ones(256, np.float32)).lookup()

    np.testing.assert_allclose(lookup.of(source), truth, atol=1e-6)
    assert lookup.mean == pytest.approx(0.5)


def test_tallies_of_two_subjects_add_up_to_the_tally_of_both() -> None:
    rng = np.random.default_rng(0)
    source = rng.uniform(-1, 1, 400).astype(np.float32)
    truth, weights = rng.uniform(0, 1, (2, 400)).astype(np.float32)
    both = Tally.of(source, truth, weights).lookup()

    parts = [Tally.of(source[k], truth[k], weights[k]) for k in (slice(150), slice(150, None))]

    np.testing.assert_allclose((parts[0] + parts[1]).lookup().table, both.table, atol=1e-6)


def test_a_subject_without_brain_in_its_slices_does_not_spoil_the_mean() -> None:
    def case(subject: str, brain: bool) -> HeldOutSlice:
        plane = np.random.default_rng(1).uniform(-1, 1, (64, 64)).astype(np.float32)
        whole = np.ones(plane.shape, bool)
        truth = (plane + 1) / 2
        conditioning = at_measured(SourceSlice(plane, plane, 0.0))
        return HeldOutSlice(subject, False, conditioning, truth, whole, whole & brain)

    identity = {"identity": lambda given: (given.source + 1) / 2}
    scores = score_held_out([case("a", True), case("b", False)], identity, lambda: None)

    assert scores[0].figures["brain_correlation"] == pytest.approx(1)
    assert scores[0].figures["ssim"] == pytest.approx(1)
    assert scores[1].figures == {}
