"""The figures of the scores, on images whose answer is known."""

import numpy as np
import pytest

from rebrain_node.model.source import SourceSlice, at_measured
from trainer.lookup import fit_lookup
from trainer.metrics import correlation, local_correlation, psnr_db, slice_offsets, ssim
from trainer.score import Case, score_held_out


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (32, 32)).astype(np.float32)


EVERYWHERE = np.ones((32, 32), bool)


def test_an_image_scores_perfectly_against_itself(image: np.ndarray) -> None:
    assert ssim(image, image, EVERYWHERE) == pytest.approx(1)
    assert correlation(image, image, EVERYWHERE) == pytest.approx(1)
    assert local_correlation(image, image, EVERYWHERE) == pytest.approx(1, abs=1e-3)


def test_psnr_of_an_error_of_a_tenth_is_twenty_decibels(image: np.ndarray) -> None:
    assert psnr_db(image + np.float32(0.1), image, EVERYWHERE) == pytest.approx(20, abs=1e-3)


def test_a_constant_has_no_correlation_rather_than_no_number(image: np.ndarray) -> None:
    constant = np.full_like(image, 0.5)

    assert correlation(constant, image, EVERYWHERE) == 0
    assert local_correlation(constant, image, EVERYWHERE) == pytest.approx(0)


def test_slice_identity_finds_the_slice_and_sees_a_shift() -> None:
    stack = np.random.default_rng(0).uniform(0, 1, (5, 16, 16)).astype(np.float32)
    masks = np.ones(stack.shape, bool)

    assert slice_offsets(stack, stack, masks).tolist() == [0, 0, 0, 0, 0]
    assert slice_offsets(stack[:4], stack[1:], masks[:4]).tolist()[1:] == [-1, -1, -1]


def test_a_constant_identifies_no_slice() -> None:
    stack = np.random.default_rng(0).uniform(0, 1, (5, 16, 16)).astype(np.float32)

    offsets = slice_offsets(np.full_like(stack, 0.5), stack, np.ones(stack.shape, bool))

    assert (np.abs(offsets) > 1).all()


def test_the_lookup_table_recovers_a_brightness_mapping() -> None:
    levels = np.arange(256, dtype=np.float32)
    source = levels / np.float32(127.5) - 1
    truth = 1 - levels / 255

    lookup = fit_lookup(source, truth, np.ones(256, np.float32))

    np.testing.assert_allclose(lookup.of(source), truth, atol=1e-6)
    assert lookup.mean == pytest.approx(0.5)


def test_a_subject_without_brain_in_its_slices_does_not_spoil_the_mean() -> None:
    def case(subject: str, brain: bool) -> Case:
        plane = np.random.default_rng(1).uniform(-1, 1, (64, 64)).astype(np.float32)
        whole = np.ones(plane.shape, bool)
        truth = (plane + 1) / 2
        conditioning = at_measured(SourceSlice(plane, plane, 0.0))
        return Case(subject, False, conditioning, truth, whole, whole & brain)

    identity = {"identity": lambda given: (given.source + 1) / 2}
    scores = score_held_out([case("a", True), case("b", False)], identity, lambda: None)

    assert scores[0].figures["brain_corr"] == pytest.approx(1)
    assert scores[0].figures["ssim"] == pytest.approx(1)
    assert scores[1].figures == {}
