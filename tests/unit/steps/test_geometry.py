"""Assemble, preprocess, retrieve and synthesise: where every voxel lies, and what is refused."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rebrain_node.domain.volume import AIR_HU
from rebrain_node.errors import EngineError, SeriesRejectedError
from rebrain_node.model.source import targets_of
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.preprocess import preprocess
from rebrain_node.steps.retrieve import retrieve
from rebrain_node.steps.synthesise import synthesise
from tests.support.geometry_cases import (
    GEOMETRY,
    RECIPE,
    SMALL,
    WindowedSource,
    marker_of,
    prepared_marker,
)
from tests.support.phantoms import MARKER_HU, MARKER_MM, Ellipsoid, enhanced_ct, head_ct


def codes(error: pytest.ExceptionInfo[SeriesRejectedError]) -> set[str]:
    return {finding.code for finding in error.value.findings}


@pytest.mark.hazard("H12")
@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"signed": False},
        {"slope": 0.5, "intercept": -1000.0},
        {"bits_stored": 12, "signed": False},
    ],
    ids=["signed", "unsigned", "half steps", "twelve bits"],
)
def test_hounsfield_units_do_not_depend_on_how_they_are_stored(storage):
    volume = assemble(head_ct(**SMALL, **storage), GEOMETRY)
    reference = assemble(head_ct(**SMALL), GEOMETRY)
    assert np.abs(volume.hu - reference.hu).max() <= 1.0
    assert volume.hu.max() > 800.0


@pytest.mark.hazard("H12")
@pytest.mark.parametrize("declared", [True, False])
def test_padding_is_recognised_whether_it_is_declared_or_not(declared):
    volume = assemble(head_ct(**SMALL, padding=-2048, declare_padding=declared), GEOMETRY)
    assert volume.padding.any()
    assert (volume.hu[volume.padding] == AIR_HU).all()
    assert volume.hu.min() >= AIR_HU


@pytest.mark.hazard("H12")
@pytest.mark.parametrize("declared", [1024, (1024, -1500), (-1500, 1064)])
def test_padding_that_tissue_may_have_is_not_believed(declared):
    instances = head_ct(**SMALL)
    value, limit = declared if isinstance(declared, tuple) else (declared, None)
    for instance in instances:
        instance.add_new("PixelPaddingValue", "SS", value)
        if limit is not None:
            instance.add_new("PixelPaddingRangeLimit", "SS", limit)
    volume = assemble(instances, GEOMETRY)
    assert not volume.padding.any()
    assert np.array_equal(volume.hu, assemble(head_ct(**SMALL), GEOMETRY).hu)


@pytest.mark.hazard("H12")
@pytest.mark.parametrize(
    ("slope", "taken"), [(["1", "1"], True), (["1", "2"], False), ("0", False), ("", False)]
)
def test_a_rescale_slope_is_one_number_above_zero_or_refused_by_name(slope, taken):
    instances = head_ct(**SMALL)
    for instance in instances:
        instance.RescaleSlope = slope
    if taken:
        assert np.array_equal(
            assemble(instances, GEOMETRY).hu, assemble(head_ct(**SMALL), GEOMETRY).hu
        )
        return
    with pytest.raises(SeriesRejectedError, match="Rescale Slope") as error:
        assemble(instances, GEOMETRY)
    assert codes(error) == {"HU"}


@given(order=st.permutations(range(8)))
@settings(max_examples=10, deadline=None)
def test_the_order_of_arrival_changes_nothing(order):
    instances = head_ct(**SMALL)
    straight, shuffled = (
        assemble(instances, GEOMETRY),
        assemble([instances[k] for k in order], GEOMETRY),
    )
    assert shuffled.sop_instance_uids == straight.sop_instance_uids
    assert np.array_equal(shuffled.hu, straight.hu)


def test_frames_of_an_enhanced_ct_lie_where_the_classic_slices_lie():
    classic, enhanced = (
        assemble(head_ct(**SMALL), GEOMETRY),
        assemble([enhanced_ct(**SMALL)], GEOMETRY),
    )
    assert np.allclose(classic.positions_mm, enhanced.positions_mm, atol=1e-3)
    assert np.array_equal(classic.hu, enhanced.hu)
    assert sorted(number or 0 for number in enhanced.frame_numbers) == list(range(1, 9))


@pytest.mark.hazard("H5")
def test_two_slices_at_one_position_are_refused():
    instances = head_ct(**SMALL)
    instances[3].ImagePositionPatient = instances[4].ImagePositionPatient
    with pytest.raises(SeriesRejectedError) as error:
        assemble(instances, GEOMETRY)
    assert codes(error) == {"GEOM-DUPLICATE"}


@pytest.mark.hazard("H5")
def test_a_turned_slice_is_refused():
    instances = head_ct(**SMALL)
    instances[2].ImageOrientationPatient = [1, 0, 0, 0, 0.9848, 0.1736]
    with pytest.raises(SeriesRejectedError) as error:
        assemble(instances, GEOMETRY)
    assert codes(error) == {"GEOM-ORIENTATION"}


@pytest.mark.parametrize(
    "cosines",
    [
        [1, 0, 0, 0, 0.98, -0.18],  # two digits: length 0.9964
        [1, 0, 0, 0, 0.983, -0.183],
    ],
)
def test_direction_cosines_of_few_digits_are_normalised(cosines):
    instances = head_ct(**SMALL)
    for instance in instances:
        instance.ImageOrientationPatient = cosines
    volume = assemble(instances, GEOMETRY)
    assert np.linalg.norm(volume.column_direction) == pytest.approx(1.0)


@pytest.mark.hazard("H5")
def test_direction_cosines_that_are_not_perpendicular_are_refused_with_the_limit_by_name():
    instances = head_ct(**SMALL)
    for instance in instances:
        instance.ImageOrientationPatient = [1, 0, 0, 0.1, 0.995, 0]
    with pytest.raises(SeriesRejectedError, match=r"geometry\.direction_deg") as error:
        assemble(instances, GEOMETRY)
    assert codes(error) == {"GEOM-ORIENTATION"}


@pytest.mark.hazard("H4")
def test_two_frames_of_reference_or_none_are_refused():
    instances = head_ct(**SMALL)
    instances[0].FrameOfReferenceUID = "1.2.3"
    with pytest.raises(SeriesRejectedError) as mixed:
        assemble(instances, GEOMETRY)
    assert "ID-MIXED" in codes(mixed)
    for instance in instances:
        del instance.FrameOfReferenceUID
    with pytest.raises(SeriesRejectedError) as absent:
        assemble(instances, GEOMETRY)
    assert "GEOM-REFERENCE" in codes(absent)


@pytest.mark.hazard("H5")
@pytest.mark.parametrize("tilt_deg", [-30.0, -10.5, 0.0, 10.5, 30.0])
def test_gantry_tilt_is_undone_within_a_tenth_of_a_voxel(tilt_deg):
    instances = head_ct(**SMALL, gantry_tilt_deg=tilt_deg)
    volume = assemble(instances, GEOMETRY)
    assert volume.tilt_deg == pytest.approx(abs(tilt_deg), abs=0.1)
    found_mm = prepared_marker(preprocess(volume, RECIPE))
    assert np.linalg.norm(found_mm - marker_of(volume)) < 1.0


@pytest.mark.hazard("H5")
def test_fourteen_thin_and_fourteen_thick_overlapping_tilted_slices_give_a_uniform_volume():
    thin = np.arange(14) * 4.0 - 80.0
    thick = thin[-1] + 2.0 - 1.1 + 3.5 + np.arange(14) * 7.0
    spec = {
        **SMALL,
        "slice_distances_mm": tuple(np.concatenate([thin, thick])),
        "slice_thickness_mm": (4.0,) * 14 + (7.0,) * 14,
        "gantry_tilt_deg": 18.0,
        "table": False,
    }
    volume = assemble(head_ct(**spec), GEOMETRY)
    prepared = preprocess(volume, RECIPE)
    distances = np.array([target.distance_mm for target in prepared.targets])
    assert np.allclose(np.diff(distances), prepared.spacing_mm, atol=1e-9)
    assert 0.75 <= prepared.spacing_mm <= 1.25
    assert distances[-1] == pytest.approx(prepared.distances_mm[-1], abs=prepared.spacing_mm)
    measured = {target.below for target in prepared.targets if target.below == target.above}
    assert len(measured) >= 14
    assert np.linalg.norm(prepared_marker(prepared) - marker_of(volume)) < 1.5


@given(
    gaps=st.lists(st.floats(2.0, 9.0), min_size=1, max_size=30),
    spacing_mm=st.sampled_from([0.8, 1.0, 1.5]),
)
@settings(deadline=None)
def test_targets_are_uniform_start_at_the_first_slice_and_stay_between_their_neighbours(
    gaps, spacing_mm
):
    distances = np.concatenate([[0.0], np.cumsum(gaps)])
    targets = targets_of(distances, spacing_mm)
    steps = np.diff([target.distance_mm for target in targets])
    assert targets[0].distance_mm == 0.0
    assert np.allclose(steps, steps[0])
    for target in targets:
        low, high = distances[target.below], distances[target.above]
        assert low - 0.05 <= target.distance_mm <= high + 0.05
        assert 0.0 <= target.alpha < 1.0
        if target.below != target.above:
            assert low + target.alpha * (high - low) == pytest.approx(target.distance_mm, abs=1e-6)


@given(gap_mm=st.floats(1.0, 10.0), count=st.integers(2, 40))
@settings(deadline=None)
def test_with_equal_gaps_every_measured_slice_is_met(gap_mm, count):
    targets = targets_of(np.arange(count) * gap_mm, 1.0)
    measured = [target.below for target in targets if target.below == target.above]
    assert measured == list(range(count))


def test_the_table_is_removed_and_the_head_kept():
    with_table = preprocess(assemble(head_ct(**SMALL, table=True), GEOMETRY), RECIPE)
    without = preprocess(assemble(head_ct(**SMALL, table=False), GEOMETRY), RECIPE)
    assert np.array_equal(with_table.head, without.head)
    assert (with_table.hu[~with_table.head] > 500.0).sum() == 0


def test_a_head_larger_than_the_grid_is_refused_with_its_size():
    with pytest.raises(SeriesRejectedError) as error:
        preprocess(assemble(head_ct(**SMALL, scale=1.35), GEOMETRY), RECIPE)
    assert codes(error) == {"GEOM-SIZE"}


def test_a_sagittal_series_and_a_single_slice_are_refused():
    sagittal = head_ct(**SMALL, orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    with pytest.raises(SeriesRejectedError) as error:
        preprocess(assemble(sagittal, GEOMETRY), RECIPE)
    assert codes(error) == {"GEOM-ORIENTATION"}
    with pytest.raises(SeriesRejectedError) as alone:
        preprocess(assemble(head_ct(**SMALL)[:1], GEOMETRY), RECIPE)
    assert codes(alone) == {"TOO-FEW"}


def test_each_slice_says_whether_it_was_measured_or_interpolated_and_why():
    prepared = preprocess(assemble(head_ct(**SMALL), GEOMETRY), RECIPE)
    guides = retrieve(prepared, RECIPE)
    kinds = [guide.kind for guide in guides]
    assert kinds.count("measured") == 8
    assert set(kinds) == {"measured", "interpolated"}
    assert all(guide.reason for guide in guides)
    between = next(guide for guide in guides if guide.kind == "interpolated")
    assert "mm below" in between.reason


def test_the_synthetic_volume_lies_on_the_source_and_is_black_outside_the_head():
    prepared = preprocess(assemble(head_ct(**SMALL), GEOMETRY), RECIPE)
    guides = retrieve(prepared, RECIPE)
    volume = synthesise(prepared, guides, WindowedSource(), RECIPE, 1)
    assert volume.intensity.shape == (len(guides), RECIPE.grid.rows, RECIPE.grid.columns)
    assert not volume.meaning.calibrated
    assert volume.intensity[:, :4].max() == 0.0
    for guide, synthesised in zip(guides, volume.intensity, strict=True):
        if guide.kind == "measured":
            window = (RECIPE.brain_window.apply(prepared.hu[guide.target.below]) + 1.0) / 2.0
            inside = prepared.head[guide.target.below]
            assert np.allclose(synthesised[inside], window[inside], atol=1e-5)


def test_the_same_seed_draws_the_same_volume_and_uncertainty_grows_away_from_measured_slices():
    prepared = preprocess(assemble(head_ct(**SMALL), GEOMETRY), RECIPE)
    guides = retrieve(prepared, RECIPE)
    first, again = (synthesise(prepared, guides, WindowedSource(), RECIPE, 7) for _ in range(2))
    assert np.array_equal(first.intensity, again.intensity)
    far = np.array([g.target.alpha * (1.0 - g.target.alpha) for g in guides])
    inside = np.where(first.head, first.uncertainty, np.inf)
    flat = inside.min(axis=(1, 2))  # where the image is flat, distance alone counts
    assert np.all(flat[far == 0.0] < flat[far > 0.0].min())
    assert first.uncertainty[~first.head].max() == 0.0


@pytest.mark.hazard("H5")
def test_irregular_steps_give_a_uniform_volume_whose_anatomy_stays():
    steps = np.array([0.0, 3.0, 9.5, 12.0, 19.0, 24.0, 31.0, 38.0, 40.5, 48.0])
    spec = {**SMALL, "slice_distances_mm": tuple(steps), "slice_thickness_mm": 5.0}
    volume = assemble(head_ct(**spec, shuffled=True, seed=4), GEOMETRY)
    assert np.allclose(np.diff(volume.distances_mm), np.diff(steps), atol=1e-6)
    prepared = preprocess(volume, RECIPE)
    assert np.allclose(np.diff([t.distance_mm for t in prepared.targets]), prepared.spacing_mm)
    assert np.linalg.norm(prepared_marker(prepared) - marker_of(volume)) < 1.0


@pytest.mark.parametrize("answer", ["shape", "nan"])
def test_an_engine_that_answers_nonsense_is_not_believed(answer):
    prepared = preprocess(assemble(head_ct(**SMALL), GEOMETRY), RECIPE)
    with pytest.raises(EngineError):
        synthesise(prepared, retrieve(prepared, RECIPE), WindowedSource(answer), RECIPE, 1)


@pytest.mark.hazard("H5")
def test_the_hospital_study_is_assembled_with_its_tilt_and_padding(shared_data):
    instances = [
        instance
        for path in sorted((shared_data / "ct_toshiba_head_study").glob("*.dcm"))
        if (instance := pydicom.dcmread(path)).get("SeriesDescription") == "Brain Head 5.0"
    ]
    volume = assemble(instances, GEOMETRY)
    assert volume.hu.shape == (33, 512, 512)
    assert volume.tilt_deg == pytest.approx(10.5, abs=0.05)
    assert volume.hu.min() == AIR_HU
    assert volume.padding.any()
    prepared = preprocess(volume, RECIPE)
    assert len(prepared.targets) > 120
    middles = np.array([np.argwhere(mask).mean(axis=0) for mask in prepared.head[8:26]])
    assert np.abs(np.diff(middles, axis=0)).max() < 4.0  # no shear left: about 1 mm a slice before


def test_the_marker_of_the_phantom_is_what_the_tests_look_for():
    volume = assemble(head_ct(**SMALL), GEOMETRY)
    assert volume.hu.max() > MARKER_HU
    assert np.linalg.norm(marker_of(volume) - MARKER_MM) < 3.0


def test_the_whole_face_is_in_the_mask_where_the_recipe_says_so_and_the_grid_stays():
    nose = Ellipsoid((0.0, -105.0, 20.0), (2.5, 22.0, 20.0), 40.0)  # thin
    spec = {**SMALL, "pixel_spacing_mm": (2.0, 2.0), "rows": 120, "columns": 120, "parts": (nose,)}
    volume = assemble(head_ct(**spec), GEOMETRY)
    whole = RECIPE.model_copy(update={"whole_face": True})
    before, after = (preprocess(volume, recipe) for recipe in (RECIPE, whole))
    assert np.array_equal(before.grid.origin_mm, after.grid.origin_mm)
    added = after.head & ~before.head
    assert added.sum() > 100
    assert not (before.head & ~after.head).any()
    assert (after.hu[added] > -300.0).mean() > 0.5
    assert np.array_equal(after.hu[before.head], before.hu[before.head])
