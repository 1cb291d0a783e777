"""The sparse protocols: what is given, what must be drawn."""

import numpy as np
import pytest

from tests.support.prepared_balls import ball_subject
from trainer.data.dataset import Subject
from trainer.data.protocols import ProtocolError, Sparsity, thinned


def ramp(slices: int) -> Subject:
    """A subject whose every slice has the brightness of its number, 3 mm apart."""
    subject = ball_subject("ramp", (slices, 24, 20))
    numbers = np.arange(slices, dtype=np.float32)
    source = np.broadcast_to(numbers[:, None, None], subject.source.shape).copy()
    return Subject(
        "ramp", source, subject.target, subject.mask, None, numbers * 3.0, subject.pixel_mm
    )


@pytest.mark.parametrize("text", ["none", "decimate:2", "decimate:4", "thick:3"])
def test_a_protocol_reads_as_it_is_written(text: str) -> None:
    assert str(Sparsity.parse(text)) == text


@pytest.mark.parametrize("text", ["", "decimate", "decimate:1", "thick:5", "thin:2", "none:2"])
def test_another_protocol_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ProtocolError, match="expected none, decimate:K or thick:K"):
        Sparsity.parse(text)


def test_without_sparsity_everything_is_given_and_nothing_is_filled() -> None:
    case = thinned(ramp(7), Sparsity("none"))

    assert case.source[:, 0, 0].tolist() == list(range(7))
    assert case.measured.all()


@pytest.mark.parametrize(
    ("factor", "given", "drawn"),
    [(2, [0, 2, 4, 6, 8], 9), (3, [0, 3, 6, 9], 10), (4, [0, 4, 8], 9)],
)
def test_decimation_keeps_one_slice_of_every_k(factor: int, given: list[int], drawn: int) -> None:
    case = thinned(ramp(10), Sparsity("decimate", factor))

    assert case.source[:, 0, 0].tolist() == given
    assert case.rows.tolist() == list(range(drawn))  # nothing lies above the last slice given
    assert np.flatnonzero(case.measured).tolist() == given


def test_thick_slabs_are_means_at_the_middle_of_their_slices() -> None:
    case = thinned(ramp(11), Sparsity("thick", 3))

    assert case.source[:, 0, 0].tolist() == [1, 4, 7]
    assert case.positions_mm.tolist() == [3, 12, 21]
    assert case.rows.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert case.rows[case.measured].tolist() == [1, 4, 7]


def test_slabs_of_an_even_number_lie_on_no_slice() -> None:
    case = thinned(ramp(8), Sparsity("thick", 2))

    assert case.positions_mm.tolist() == [1.5, 7.5, 13.5, 19.5]
    assert not case.measured.any()


@pytest.mark.parametrize("text", ["none", "decimate:3", "thick:2", "thick:4"])
def test_linear_interpolation_is_exact_on_what_is_linear(text: str) -> None:
    case = thinned(ramp(13), Sparsity.parse(text))

    np.testing.assert_allclose(case.linear(case.source)[:, 0, 0], case.rows, atol=1e-5)


def test_too_few_slices_to_fill_between_are_refused_with_the_subject() -> None:
    with pytest.raises(ProtocolError, match="ramp: 3 slices leave 1"):
        thinned(ramp(3), Sparsity("decimate", 4))
