"""Cases: which slices a protocol gives, and how they are put on the model grid and back."""

import numpy as np
import pytest

from rebrain_node.model.recipe import Grid
from tests.support.ball_head import ball_subject
from tests.support.tiny_bundle import tiny_recipe
from trainer.data.dataset import Subject
from trainer.data.placing import (
    MillimetrePlacement,
    StretchedPlacement,
    levelled_hu,
    levelled_window,
    placements,
)
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


def plane(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (rows, columns)).astype(np.float32)


@pytest.mark.parametrize("centre", [(9.5, 12.0), (10.0, 11.5), (10.3, 11.9)])
def test_data_of_the_grids_own_pixel_size_go_through_unblurred(
    centre: tuple[float, float],
) -> None:
    placement = MillimetrePlacement(
        Grid(rows=64, columns=48, pixel_mm=2.0), (20, 24), (2.0, 2.0), centre
    )
    image = plane(20, 24)

    drawn = placement.onto(image, 0.0)

    assert np.isin(image, drawn).all()
    assert np.count_nonzero(drawn) == image.size
    np.testing.assert_allclose(placement.back(drawn, 0.0), image, atol=1e-5)


def test_a_point_keeps_its_millimetres_between_grids() -> None:
    grid = Grid(rows=64, columns=64, pixel_mm=1.0)
    placement = MillimetrePlacement(grid, (30, 30), (1.5, 2.0), (10.0, 20.0))
    row, column = np.mgrid[:30, :30]
    image = np.exp(-((1.5 * (row - 14)) ** 2 + (2.0 * (column - 17)) ** 2) / 50).astype(np.float32)

    drawn = placement.onto(image, 0.0)

    top = np.unravel_index(np.argmax(drawn), drawn.shape)
    expected = (31.5 + 1.5 * (14 - 10), 31.5 + 2.0 * (17 - 20))
    assert np.abs(np.subtract(top, expected)).max() <= 1.5  # within a pixel of the data set
    assert np.abs(placement.back(drawn, 0.0) - image).max() < 0.08


def test_a_stretched_slice_fills_its_frame_and_comes_back() -> None:
    placement = StretchedPlacement(Grid(rows=64, columns=48, pixel_mm=4.0), (50, 50), (60, 44))
    image = np.broadcast_to(np.linspace(0, 1, 50, dtype=np.float32), (50, 50))

    drawn = placement.onto(image, -1.0)

    assert (drawn == -1).sum() == 64 * 48 - 60 * 44
    np.testing.assert_allclose(placement.back(drawn, -1.0), image, atol=0.02)


def test_the_head_lies_in_the_middle_of_the_grid() -> None:
    head = np.zeros((3, 40, 40), dtype=bool)
    head[:, 20:30, 4:9] = True
    recipe = tiny_recipe()

    (placement,) = placements(head, (4.0, 4.0), recipe)

    rows, columns = np.nonzero(placement.onto(head[0].astype(np.float32), 0.0))
    assert (rows.min() + rows.max()) / 2 == pytest.approx(31.5, abs=0.5)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(23.5, abs=0.5)


def test_slices_of_unknown_size_are_placed_in_three_sizes_and_both_ways_round() -> None:
    image = plane(50, 50)
    ways = placements(np.ones((1, 50, 50), dtype=bool), None, tiny_recipe())

    drawn = [way.onto(image, -1.0) for way in ways]

    assert len(ways) == 6
    for one, other in zip(drawn[::2], drawn[1::2], strict=True):
        np.testing.assert_array_equal(one, other[:, ::-1])
    assert len({int((one == -1).sum()) for one in drawn}) == 3
    for way, one in zip(ways, drawn, strict=True):
        assert np.corrcoef(way.back(one, -1.0).ravel(), image.ravel())[0, 1] > 0.4


def _skull(tissue_hu: float) -> np.ndarray:
    """Slices of 5 mm, rows and columns of 1 mm: a ring of bone with brain of one HU inside."""
    y, x = np.mgrid[-90:91, -90:91]
    radius = np.hypot(y, x)
    plane = np.where(radius < 75, tissue_hu, np.where(radius < 82, 1000.0, -1000.0))
    noise = np.random.default_rng(0).normal(0, 2, (6, *plane.shape)) * (radius < 75)
    return (plane + noise).astype(np.float32)


@pytest.mark.parametrize("tissue_hu", [28.0, 34.0, 40.0])
def test_a_series_of_a_data_set_is_levelled_as_the_node_does(tissue_hu: float) -> None:
    hu = _skull(tissue_hu)
    head = hu > -500
    subject = Subject("s", hu, hu, head, None, np.arange(6) * 5.0, (1.0, 1.0))
    case = thinned(subject, Sparsity("none"))
    expecting = tiny_recipe().model_copy(update={"tissue_level_hu": 34.0})

    levelled = levelled_hu(case, expecting)

    assert np.median(levelled[:, 80:100, 80:100]) == pytest.approx(34.0, abs=0.6)
    assert levelled[head & (hu > 500)] == pytest.approx(1000.0)
    assert np.median(levelled_hu(case, tiny_recipe())[:, 80:100, 80:100]) == pytest.approx(
        tissue_hu, abs=0.3
    )


@pytest.mark.parametrize("tissue_hu", [29.0, 43.0])
def test_a_picture_in_the_brain_window_is_levelled_and_its_black_and_white_stay(
    tissue_hu: float,
) -> None:
    recipe = tiny_recipe().model_copy(update={"tissue_level_hu": 34.0})
    window = (np.asarray(recipe.brain_window.apply(_skull(tissue_hu))) + 1) / 2

    levelled = levelled_window(window, recipe)

    low, high = recipe.brain_window.low_hu, recipe.brain_window.high_hu
    level = low + float(np.median(levelled[:, 80:100, 80:100])) * (high - low)
    assert level == pytest.approx(34.0, abs=0.6)
    assert np.array_equal(levelled == 0, window == 0)
    assert np.array_equal(levelled == 1, window == 1)
