"""From measured slices to the input of one evaluation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rebrain_node.model.recipe import CHANNELS, SCALARS, Grid, Output, Recipe, Window
from rebrain_node.model.source import (
    SourceSlice,
    conditioning_at,
    slerp,
    stack_channels,
    windowed,
)

IMAGES = arrays(np.float32, (6, 5), elements=st.floats(-1, 1, width=32))


def _recipe() -> Recipe:
    return Recipe(
        objective="directional",
        grid=Grid(rows=32, columns=32, pixel_mm=0.9),
        brain_window=Window(low_hu=0, high_hu=80),
        wide_window=Window(low_hu=-200, high_hu=1300),
        spacing_mm=1.0,
        sampling=(1.0,),
        eta=0.0,
        output=Output(black=0, white=4095),
    )


def _stack() -> list[SourceSlice]:
    rng = np.random.default_rng(0)
    return [
        windowed(rng.uniform(-20, 100, (32, 32)).astype(np.float32), z, _recipe())
        for z in (0.0, 5.0, 11.0)
    ]


@given(a=IMAGES, b=IMAGES)
def test_slerp_starts_at_one_slice_and_ends_at_the_other(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(slerp(a, b, 0.0), a, atol=1e-5)
    np.testing.assert_allclose(slerp(a, b, 1.0), b, atol=1e-5)


@given(alpha=st.floats(0, 1), seed=st.integers(0, 100))
def test_slerp_interpolates_length_and_does_not_brighten(alpha: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(-1, 0, (2, 8, 8)).astype(np.float32)  # dim, so that nothing is clipped

    blend = slerp(a, b, alpha)

    lengths = [float(np.linalg.norm((image.astype(np.float64) + 1) / 2)) for image in (a, b, blend)]
    assert lengths[2] == pytest.approx((1 - alpha) * lengths[0] + alpha * lengths[1], rel=1e-4)


def test_slerp_of_air_is_air() -> None:
    air = np.full((4, 4), -1, np.float32)

    np.testing.assert_array_equal(slerp(air, air, 0.4), air)


def test_a_measured_slice_is_its_own_source_with_both_neighbours() -> None:
    stack = _stack()

    given_middle = conditioning_at(stack, 5.0)

    np.testing.assert_array_equal(given_middle.source, stack[1].brain)
    np.testing.assert_array_equal(given_middle.channels[2], stack[0].brain)
    np.testing.assert_array_equal(given_middle.channels[3], stack[2].brain)
    assert given_middle.distances_mm == (5.0, 6.0, 0.0)


def test_a_neighbour_that_does_not_exist_is_the_slice_itself_at_no_distance() -> None:
    stack = _stack()

    lowest = conditioning_at(stack, 0.0)

    np.testing.assert_array_equal(lowest.channels[2], stack[0].brain)
    assert lowest.distances_mm == (0.0, 5.0, 0.0)


def test_a_missing_position_is_the_slerp_of_the_two_slices_around_it() -> None:
    stack = _stack()

    conditioning = conditioning_at(stack, 6.5)

    np.testing.assert_array_equal(conditioning.source, slerp(stack[1].brain, stack[2].brain, 0.25))
    assert conditioning.distances_mm == (1.5, 4.5, 1.5)


def test_a_position_outside_the_stack_is_refused() -> None:
    with pytest.raises(ValueError, match=r"12\.00 mm lies outside .*0\.00 to 11\.00 mm"):
        conditioning_at(_stack(), 12.0)


def test_the_input_of_the_network_has_the_order_that_the_recipe_writes_out() -> None:
    conditioning = conditioning_at(_stack(), 6.5)
    state = np.zeros((32, 32), np.float32)

    x, s = stack_channels(conditioning, state, 0.6)

    assert x.shape == (1, len(CHANNELS), 32, 32)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[0, 0], state)
    assert s.shape == (1, len(SCALARS))
    np.testing.assert_allclose(s[0], [0.6, 1.5, 4.5, 1.5])
