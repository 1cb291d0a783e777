"""The level of brain tissue: what it is measured from, and what a shift to it moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rebrain_node.model.recipe import Recipe
from rebrain_node.model.tissue_level import (
    LARGEST_SHIFT_HU,
    brain_mask,
    level_of,
    shift_to,
    shifted,
)
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.preprocess import judge_tissue, preprocess
from tests.support.geometry_cases import GEOMETRY, RECIPE
from tests.support.phantoms import head_ct

SCAN = {
    "rows": 110,
    "columns": 110,
    "pixel_spacing_mm": (2.2, 2.2),
    "slice_distances_mm": tuple(-40.0 + 10.0 * k for k in range(12)),
    "slice_thickness_mm": 10.0,
    "noise_hu": 4.0,
}
LEVELLED = RECIPE.model_copy(update={"tissue_level_hu": 33.0})


@pytest.fixture(scope="module")
def volume():
    return assemble(head_ct(**SCAN), GEOMETRY)


def reading(volume, low_by_hu):
    """The same head by a scanner that reads tissue low."""
    return replace(volume, hu=np.where(volume.hu > -300.0, volume.hu - low_by_hu, volume.hu))


def brain(rng, offset=0.0):
    """Values of a brain: grey and white matter with noise."""
    grey, white = rng.normal(37.0, 4.0, 60_000), rng.normal(29.0, 4.0, 50_000)
    return np.concatenate([grey, white]) + offset


@pytest.mark.parametrize(
    ("what", "hu", "count"),
    [
        ("fluid", 6.0, 60_000),
        ("hypodense white matter", 20.0, 20_000),
        ("an infarct", 14.0, 30_000),
        ("a bleeding", 68.0, 30_000),
        ("calcium and bone", 300.0, 20_000),
    ],
)
def test_disease_does_not_move_the_level(what, hu, count):
    rng = np.random.default_rng(0)
    healthy = brain(rng)
    sick = np.concatenate([healthy, rng.normal(hu, 4.0, count)])
    assert level_of(sick) == pytest.approx(level_of(healthy), abs=1.5), what


@pytest.mark.parametrize("offset", [-8.0, -3.5, 6.0])
def test_the_level_follows_the_scanner(offset):
    healthy = level_of(brain(np.random.default_rng(0)))
    assert level_of(brain(np.random.default_rng(1), offset)) == pytest.approx(
        healthy + offset, abs=0.6
    )


def test_sharp_peaks_of_grey_and_white_matter_have_one_level_between_them():
    grey, white = np.full(51_000, 37.0), np.full(50_000, 29.0)
    more_white = np.concatenate([grey, white, white[:3_000]])
    assert 31.0 < level_of(np.concatenate([grey, white])) < 35.0
    assert abs(level_of(more_white) - level_of(np.concatenate([grey, white]))) < 1.5


def test_the_brain_is_what_lies_inside_the_skull(volume):
    prepared = preprocess(volume, RECIPE)
    found = brain_mask(prepared.hu, prepared.head, prepared.grid.pixel_mm)
    values = prepared.hu[found]
    assert found.sum() * 0.81 * 10.0 / 1000.0 > 700.0  # ml
    assert (np.abs(values - 25.0) < 45.0).mean() > 0.995  # neither scalp nor bone


def test_a_shift_leaves_air_and_bone_and_the_order_of_values():
    hu = np.arange(-1024.0, 2000.0, 1.0, dtype=np.float32)
    for by in (-LARGEST_SHIFT_HU, 5.0, LARGEST_SHIFT_HU):
        moved = shifted(hu, by)
        assert np.array_equal(moved[(hu < -165) | (hu > 235)], hu[(hu < -165) | (hu > 235)])
        assert np.allclose(moved[(hu >= -65) & (hu <= 135)] - by, hu[(hu >= -65) & (hu <= 135)])
        assert (np.diff(moved) > 0).all()


@pytest.mark.hazard("H12")
@pytest.mark.parametrize("low_by_hu", [8.0, -5.0])
def test_a_scanner_that_reads_low_gives_the_same_prepared_tissue(volume, low_by_hu):
    expected, found = (preprocess(v, LEVELLED) for v in (volume, reading(volume, low_by_hu)))
    soft = (expected.hu > -50.0) & (expected.hu < 120.0)
    assert found.tissue.shift_hu == pytest.approx(expected.tissue.shift_hu + low_by_hu, abs=0.3)
    difference = np.abs(found.hu - expected.hu)[soft]
    assert np.percentile(difference, 98) < 0.5  # the rest is partial volume with air
    assert judge_tissue(found.tissue) == ()


def test_without_a_level_in_the_recipe_nothing_is_shifted(volume):
    prepared = preprocess(volume, RECIPE)
    assert prepared.tissue is None
    levelled = preprocess(volume, LEVELLED)
    assert np.array_equal(shifted(prepared.hu, levelled.tissue.shift_hu), levelled.hu)


@pytest.mark.hazard("H12")
def test_a_shift_is_limited_and_what_is_beyond_is_flagged(volume):
    found = preprocess(reading(volume, 16.0), LEVELLED).tissue
    assert found.shift_hu == LARGEST_SHIFT_HU
    (finding,) = judge_tissue(found)
    assert (finding.code, finding.severity) == ("TISSUE-LEVEL", "flag")
    assert f"brain tissue lies at {found.measured_hu:.0f} HU" in finding.sentence
    assert "at most 12 HU are corrected" in finding.sentence


def test_a_series_without_brain_is_not_shifted_and_flagged(volume):
    hollow = replace(volume, hu=np.where(np.abs(volume.hu) < 500.0, 800.0, volume.hu))
    found = preprocess(hollow, LEVELLED)
    assert found.tissue.measured_hu is None
    assert np.array_equal(found.hu, preprocess(hollow, RECIPE).hu)
    (finding,) = judge_tissue(found.tissue)
    assert "too little brain" in finding.sentence


def test_a_measured_level_is_shifted_to_the_expected_one():
    level = shift_to(28.0, 33.0)
    assert (level.shift_hu, level.missing_hu) == (5.0, 0.0)
    assert level.to_json() == {"measured_hu": 28.0, "expected_hu": 33.0, "shift_hu": 5.0}


def test_a_recipe_without_a_level_is_written_as_before_the_field_existed():
    text = RECIPE.to_json()
    assert "tissue_level_hu" not in text
    assert "z_filter_mm" not in text
    again = Recipe.from_json(LEVELLED.to_json())
    assert again.tissue_level_hu == 33.0
