"""The scores of a release, and the table of its baseline."""

import numpy as np
import pytest

from rebrain_node.model.source import SourceSlice, at_measured
from trainer.evaluate.baselines import Tally
from trainer.evaluate.release_scores import HeldOutSlice, score_held_out


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
