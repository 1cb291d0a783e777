"""The recipe that travels with the weights."""

import numpy as np
import pytest
from pydantic import ValidationError

from rebrain_node.model.recipe import Grid, Output, Recipe, Retrieval, Window


def _recipe(**changes: object) -> Recipe:
    fields: dict[str, object] = {
        "objective": "directional",
        "grid": Grid(rows=256, columns=208, pixel_mm=0.9),
        "brain_window": Window(low_hu=0, high_hu=80),
        "wide_window": Window(low_hu=-200, high_hu=1300),
        "spacing_mm": 1.0,
        "sampling": (1.0, 0.6, 0.3),
        "eta": 0.0,
        "output": Output(black=0, white=4095),
    }
    return Recipe.model_validate(fields | changes)


def test_a_recipe_is_equal_after_writing_and_reading() -> None:
    assert Recipe.from_json(_recipe().to_json()) == _recipe()


def test_an_unknown_key_is_refused() -> None:
    text = _recipe().to_json().replace('"eta"', '"etta"')

    with pytest.raises(ValidationError, match="etta"):
        Recipe.from_json(text)


@pytest.mark.parametrize("sampling", [(), (0.9,), (1.0, 1.0), (1.0, 0.3, 0.6), (1.0, 0.0)])
def test_time_steps_that_do_not_fall_from_one_are_refused(sampling: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        _recipe(sampling=sampling)


def test_channels_in_another_order_are_refused() -> None:
    swapped = ["source_brain", "bridge_state", "source_wide", "below_brain", "above_brain"]

    with pytest.raises(ValidationError):
        _recipe(channels=swapped)


def test_a_window_maps_its_ends_to_minus_one_and_one_and_clips_beyond() -> None:
    window = Window(low_hu=0, high_hu=80)

    mapped = window.apply(np.array([-1000, 0, 40, 80, 3000], dtype=np.int16))

    np.testing.assert_allclose(mapped, [-1, -1, 0, 1, 1])
    assert mapped.dtype == np.float32


def test_a_window_whose_ends_do_not_rise_is_refused() -> None:
    with pytest.raises(ValidationError, match="must lie below"):
        Window(low_hu=80, high_hu=80)


def test_stored_values_span_black_to_white() -> None:
    stored_range = Output(black=100, white=3100).stored_range
    stored = stored_range.stored(np.array([-0.2, 0, 0.5, 1, 1.5], dtype=np.float32))

    np.testing.assert_array_equal(stored, [100, 100, 1600, 3100, 3100])
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored_range.intensity(stored), [0, 0, 0.5, 1, 1])


def test_an_output_whose_black_is_not_below_white_is_refused() -> None:
    with pytest.raises(ValidationError, match="must be less than white"):
        Output(black=200, white=200)


def test_the_number_of_candidates_in_released_recipes_is_read_and_no_longer_written() -> None:
    text = _recipe(retrieval=Retrieval(method="exemplar")).to_json()
    released = text.replace('"method"', '"k": 1, "method"')

    assert '"k"' not in text
    assert Recipe.from_json(released) == Recipe.from_json(text)
    with pytest.raises(ValidationError, match="retrieval"):
        Recipe.from_json(released.replace('"k": 1', '"k": 2'))
