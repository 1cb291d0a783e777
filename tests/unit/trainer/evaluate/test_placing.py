"""Slices on the model grid and back."""

import numpy as np
import pytest

from rebrain_node.model.recipe import Grid
from tests.support.tiny_bundle import tiny_recipe
from trainer.data.placing import MillimetrePlacement, StretchedPlacement, placements


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
