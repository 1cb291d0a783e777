"""The figures of the retrieval report on embeddings whose answer is known."""

from __future__ import annotations

import itertools
from dataclasses import asdict

import numpy as np
import pytest

from trainer.evaluate.retrieval_reports import retrieval_report
from trainer.retrieval.report import (
    Slices,
    acceptance,
    assess,
    curve_of,
    position_errors_mm,
    reidentification,
    retrieved_ssim,
    search,
    subsets,
    thresholds,
)


def _arc(subjects: int, wobble: float = 0.0, start: int = 0) -> Slices:
    """Twenty slices of each subject, 5 mm apart: the angle of an embedding is its position."""
    position = np.tile(np.arange(20) * 5.0, subjects)
    subject = np.repeat(np.arange(subjects) + start, 20)
    angle = position / 100.0 + wobble * subject
    embedding = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    return Slices(embedding, subject, position)


def test_a_perfect_encoder_has_no_position_error_and_a_shifted_one_has_its_shift():
    assert position_errors_mm(_arc(1, start=9), _arc(3)).max() == 0.0
    shifted = position_errors_mm(_arc(2, wobble=0.1), _arc(2, wobble=0.1))
    assert np.median(shifted) == pytest.approx(10.0)


def test_the_subject_itself_is_never_retrieved():
    base = _arc(4)
    found = search(base, base)
    assert found.matched.all()
    assert (base.subject[found.row] != base.subject).all()


def test_the_position_check_comes_first_and_may_leave_nothing():
    base, query = _arc(2, wobble=0.1, start=5), _arc(1)
    found = search(query, base, window_mm=4.0)
    assert np.abs(base.position_mm[found.row] - query.position_mm).max() <= 4.0
    far = Slices(query.embedding, query.subject, query.position_mm + 500.0)
    nothing = search(far, base, window_mm=6.0)
    assert not nothing.matched.any()
    assert np.isnan(nothing.similarity).all()


def test_tau_is_the_mean_of_the_best_percent_by_hand():
    embedding = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8]], dtype=np.float32)
    base = Slices(embedding, np.array([0, 0, 1, 1]), np.zeros(4))
    best = [1.0, 0.8, 1.0, 0.8]  # of the slices of the other subject
    assert thresholds(base) == pytest.approx(dict.fromkeys((1, 2, 5, 10, 20), np.mean(best)))


def test_tau_falls_and_acceptance_rises_with_the_percentage():
    base, query = _arc(6, wobble=0.01), _arc(1, start=9)
    taus = thresholds(base)
    assert list(taus.values()) == sorted(taus.values(), reverse=True)
    accepted = list(acceptance(search(query, base), taus).values())
    assert accepted == sorted(accepted)


def test_one_subject_alone_has_no_tau():
    with pytest.raises(ValueError, match="at least two subjects"):
        thresholds(_arc(1))


def test_subjects_apart_are_reidentified_and_subjects_alike_are_not():
    apart = _arc(3)
    own = np.eye(3, dtype=np.float32)[apart.subject]
    marked = Slices(np.hstack([0.1 * apart.embedding, own]), apart.subject, apart.position_mm)
    assert reidentification(marked, seed=0) == 1.0
    assert reidentification(_arc(3), seed=0) < 0.7


def test_a_slice_is_like_itself_and_less_like_another():
    random = np.random.default_rng(0)
    slices = random.integers(50, 255, (2, 32, 32)).astype(np.uint8)
    same, other = retrieved_ssim(slices, slices[[0, 0]])
    assert same == pytest.approx(1.0)
    assert other < 0.3


def test_a_smaller_base_is_part_of_the_larger_one():
    parts = [set(np.unique(part.subject)) for part in subsets(_arc(10)).values()]
    assert [len(part) for part in parts] == [10, 7, 5, 3]
    assert all(small <= large for large, small in itertools.pairwise(parts))


def test_all_figures_come_together():
    base, query = _arc(3), _arc(2, start=7)
    planes = np.full((60, 16, 16), 128, dtype=np.uint8)
    figures = assess(query, planes[:40], base, planes, window_mm=6.0)
    assert figures.median_mm == 0.0
    assert figures.ssim == pytest.approx(1.0)
    assert set(figures.accepted) == {1.0, 2.0, 5.0, 10.0, 20.0}
    curve = curve_of(query, base, window_mm=6.0)
    assert min(row["accepted"] for row in curve.values()) > 0.9
    document = {
        "format": 1,
        "bundle": {"name": "b", "version": "1", "digest": "d"},
        "stacks": "s",
        "subjects": ["held"],
        "window_mm": 6.0,
        "encoders": {"mine": asdict(figures)},
        "sizes": {"mine": curve},
    }
    encoders, tau, sizes = retrieval_report(document).tables
    assert [cell.text for cell in encoders.rows[0].cells][:2] == ["0.0", "1.000"]
    assert tau.rows[0].cells[0].note == f"accepts {figures.accepted[1.0]:.1%}"
    assert sizes.columns == ("100%", "70%", "50%", "30%")
    assert sizes.rows[0].cells[3].text == "0.0 mm"
