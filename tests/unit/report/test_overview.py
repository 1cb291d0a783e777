"""The overview shows the patient the right way up, whatever way the grid lies."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from PIL import Image

from rebrain_node.domain.volume import Grid
from rebrain_node.pictures import HEAT, KINDS, WARNING, UprightVolume, as_measured, colour_map, grey
from rebrain_node.report.overview import overview
from tests.support.phantoms import head_ct
from tests.support.synthetic_volumes import synthetic_volume

#: every way a right-handed grid can lie along the patient's axes: 24 of the 48 axis orders
_WAYS = [
    (order, signs)
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3))
    if round(np.linalg.det(np.diag(signs)[:, order])) == 1
]


@pytest.fixture(scope="module")
def synthetic():
    source = head_ct(rows=24, columns=24, pixel_spacing_mm=(8.0, 8.0))
    return synthetic_volume(source, pixel_mm=7.0)


@pytest.mark.parametrize(("order", "signs"), _WAYS)
def test_a_mark_is_shown_where_it_lies_in_the_patient(order, signs):
    directions = np.diag(signs)[:, order].T.astype(float)  # of columns, rows, slices
    grid = Grid(
        origin_mm=np.zeros(3),
        row_direction=directions[0],
        column_direction=directions[1],
        pixel_mm=2.0,
        rows=6,
        columns=7,
    )
    assert np.allclose(grid.normal, directions[2])
    corners = [
        (k, r, c) for k in (0, 4) for r in (0, 5) for c in (0, 6)
    ]  # the corner farthest to head, left and back
    places = [
        directions[2] * k * 3.0 + directions[1] * r * 2.0 + directions[0] * c * 2.0
        for k, r, c in corners
    ]
    values = np.zeros((5, 6, 7), dtype=np.float32)
    values[corners[int(np.argmax(np.sum(places, axis=1)))]] = 1.0
    upright = UprightVolume.of(values, grid, 3.0)
    assert upright.values[-1, -1, -1] == 1.0
    axial = upright.axial(upright.values.shape[0] - 1)
    assert axial.values[-1, -1] == 1.0  # back is down, left is right
    coronal = upright.coronal(upright.values.shape[1] - 1)
    assert coronal.values[0, -1] == 1.0  # head is up
    sagittal = upright.sagittal(upright.values.shape[2] - 1)
    assert sagittal.values[0, -1] == 1.0  # anterior is left
    sizes = dict(zip(upright.values.shape, upright.size_mm, strict=True))
    assert sizes == {5: 3.0, 6: 2.0, 7: 2.0}


def test_a_picture_keeps_the_proportions_of_the_patient():
    grid = Grid(
        origin_mm=np.zeros(3),
        row_direction=np.array([1.0, 0.0, 0.0]),
        column_direction=np.array([0.0, 1.0, 0.0]),
        pixel_mm=0.5,
        rows=6,
        columns=4,
    )
    coronal = UprightVolume.of(np.zeros((5, 6, 4), dtype=np.float32), grid, 3.0).coronal(0)
    assert (coronal.height_mm, coronal.width_mm) == (15.0, 2.0)


def test_thick_slices_are_shown_thick():
    hu = np.arange(2, dtype=np.float32)[:, None, None]
    shown = as_measured(hu, np.array([0.0, 4.0], dtype=np.float32), 5, 1.0)
    assert shown.ravel().tolist() == [0, 0, 0, 1, 1]


def test_grey_and_heat_rise_from_black():
    values = np.linspace(-1, 2, 50, dtype=np.float32)
    assert grey(values[None])[0, [0, -1], 0].tolist() == [0, 255]
    lightness = colour_map(values[None], HEAT)[0].astype(int).sum(axis=-1)
    assert lightness[0] == 0
    assert (np.diff(lightness) >= 0).all()


def test_the_overview_is_one_marked_sheet_of_modest_size(synthetic):
    content = overview(synthetic, "Series Head 5.0, bundle tiny 0.0.1")
    assert len(content) < 900_000
    image = Image.open(io.BytesIO(content))
    assert (image.format, image.width) == ("PNG", 1400)
    colours = {colour for _, colour in image.getcolors(1 << 20)}
    assert WARNING in colours
    assert set(KINDS.values()) <= colours
    # nothing of the making is left in the file: no time, no user, no text
    assert image.info == {}


def test_the_same_result_gives_the_same_picture(synthetic):
    assert overview(synthetic, "a") == overview(synthetic, "a")


def test_an_empty_head_is_still_drawn(synthetic):
    empty = replace(
        synthetic,
        intensity=np.zeros_like(synthetic.intensity),
        uncertainty=np.zeros_like(synthetic.uncertainty),
        head=np.zeros_like(synthetic.head),
    )
    assert overview(empty, "nothing").startswith(b"\x89PNG")
