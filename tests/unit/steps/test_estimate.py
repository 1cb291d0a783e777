"""Calibrated intervals take the place of the rule of thumb; what is too wide is marked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from rebrain_node.domain.uncertainty import UncertaintyInterpretation
from rebrain_node.errors import EngineError, SeriesRejectedError
from rebrain_node.limits_file import shipped_limits
from rebrain_node.model.recipe import Abstain
from rebrain_node.model.z_filter import z_filtered
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.estimate import abstain, estimate, scale_inputs
from rebrain_node.steps.preprocess import preprocess
from rebrain_node.steps.retrieve import retrieve
from rebrain_node.steps.synthesise import synthesise
from tests.support.geometry_cases import GEOMETRY, RECIPE, SMALL, WindowedSource
from tests.support.phantoms import head_ct
from tests.support.synthetic_volumes import synthetic_volume
from tests.support.tiny_bundle import tiny_calibration

LIMITS = Abstain(voxel_above=0.3, slice_above=0.14, series_share=0.5)


class Distance:
    """A head that answers 0.02, and 0.01 more for each millimetre from a measured slice."""

    identity = "distance 1 fp32"

    def __init__(self, nonsense=""):
        self.nonsense = nonsense

    def estimate(self, x, s):
        answer = np.full((1, 1, *x.shape[2:]), 0.02 + 0.01 * s[0, 0], dtype=np.float32)
        if self.nonsense == "zero":
            answer[..., 3, 3] = 0.0
        return answer[..., 1:] if self.nonsense == "shape" else answer


@pytest.fixture(scope="module")
def drawn():
    prepared = preprocess(assemble(head_ct(**SMALL), GEOMETRY), RECIPE)
    return synthesise(prepared, retrieve(prepared, RECIPE), WindowedSource(), RECIPE, 1)


def test_a_slice_is_so_many_scales_wide_as_its_kind_says(drawn):
    found = estimate(drawn, RECIPE, Distance(), tiny_calibration())
    scales = {"measured": 2.0, "interpolated": 3.0}
    for guide, values, head in zip(found.guides, found.uncertainty, found.head, strict=True):
        distances = np.abs(found.prepared.distances_mm - guide.target.distance_mm)
        expected = scales[guide.kind] * (0.02 + 0.01 * distances.min())
        assert np.allclose(values[head], expected, atol=1e-5)
    assert np.array_equal(found.intensity, drawn.intensity)
    assert found.meaning == UncertaintyInterpretation(alpha=0.1, subjects=25)
    assert found.meaning.calibrated


def test_the_uncertainty_is_0_outside_the_head(drawn):
    found = estimate(drawn, RECIPE, Distance(), tiny_calibration())
    for volume in (drawn, found):
        assert volume.head.any()
        assert (volume.uncertainty[volume.head] > 0.0).all()
        assert (volume.uncertainty[~volume.head] == 0.0).all()


def test_image_and_uncertainty_are_filtered_along_the_normal_and_the_latter_more(drawn):
    filtered = RECIPE.model_copy(update={"z_filter_mm": 0.8})
    image = synthesise(drawn.prepared, drawn.guides, WindowedSource(), filtered, 1)
    measured = np.array([guide.kind == "measured" for guide in drawn.guides])
    sigma = 0.8 / drawn.prepared.spacing_mm
    expected = z_filtered(drawn.intensity, drawn.intensity > 0.0, measured, sigma)
    inside = ndimage.binary_erosion(drawn.head, np.ones((5, 3, 3)))
    assert np.mean(np.abs(image.intensity - expected)[inside] < 2e-3) > 0.98
    assert not np.allclose(image.intensity, drawn.intensity, atol=1e-3)
    plain = estimate(drawn, RECIPE, Distance(), tiny_calibration()).uncertainty
    found = estimate(image, filtered, Distance(), tiny_calibration()).uncertainty
    assert np.allclose(found, z_filtered(plain, drawn.head, measured, 1.25 * sigma), atol=1e-5)
    assert not np.allclose(found, plain, atol=1e-3)


def test_some_slices_alone_are_not_filtered_from_slice_to_slice(drawn):
    filtered = RECIPE.model_copy(update={"z_filter_mm": 0.8})
    with pytest.raises(ValueError, match="synthesise all of them"):
        synthesise(drawn.prepared, drawn.guides[::2], WindowedSource(), filtered, 1)


def test_few_subjects_are_not_called_a_calibration(drawn):
    found = estimate(drawn, RECIPE, Distance(), tiny_calibration(subjects=4))
    assert found.meaning.label == "UNCALIBRATED, n = 4"
    assert not found.meaning.calibrated


def test_no_interval_is_wider_than_the_display_range(drawn):
    class Wide(Distance):
        def estimate(self, x, s):
            return np.full((1, 1, *x.shape[2:]), 0.6, dtype=np.float32)

    assert estimate(drawn, RECIPE, Wide(), tiny_calibration()).uncertainty.max() == 1.0


@pytest.mark.parametrize("nonsense", ["shape", "zero"])
def test_a_head_that_answers_nonsense_is_not_believed(drawn, nonsense):
    with pytest.raises(EngineError, match="distance 1 fp32"):
        estimate(drawn, RECIPE, Distance(nonsense), tiny_calibration())


def test_the_head_sees_the_drawn_slice_the_ct_and_how_far_the_next_measured_one_is(drawn):
    for guide, image, (x, s) in zip(
        drawn.guides, drawn.intensity, scale_inputs(drawn, RECIPE), strict=True
    ):
        assert x.shape == (1, 5, RECIPE.grid.rows, RECIPE.grid.columns)
        assert np.allclose(x[0, 0], 2 * image - 1, atol=1e-6)
        if guide.kind == "measured":
            hu = drawn.prepared.hu[guide.target.below]
            assert np.allclose(x[0, 1], RECIPE.brain_window.apply(hu))
            assert s[0, 0] == 0.0
        else:
            assert 0.0 < s[0, 0] <= 3.0
        assert s[0, 1] == 0.0


def test_an_exemplar_that_was_not_used_is_not_told_to_the_head():
    volume = synthetic_volume(head_ct(**SMALL), rows=64, columns=48)
    recipe = RECIPE.model_copy(
        update={"grid": RECIPE.grid.model_copy(update={"rows": 64, "columns": 48})}
    )
    told = [s[0, 1] for _, s in scale_inputs(volume, recipe)]
    for guide, similarity in zip(volume.guides, told, strict=True):
        used = guide.similarity if guide.kind == "retrieved" else 0.0
        assert similarity == pytest.approx(used)
    assert max(told) > 0


def test_a_slice_above_the_limit_is_marked_and_without_a_limit_none_is(drawn):
    recipe = RECIPE.model_copy(update={"abstain": LIMITS})
    found = estimate(drawn, recipe, Distance(), tiny_calibration())
    by_kind = dict.fromkeys(zip((g.kind for g in found.guides), found.trusted, strict=True))
    assert ("measured", True) in by_kind
    assert ("measured", False) not in by_kind
    assert ("interpolated", False) in by_kind  # 3 mm from a measured slice: 0.15
    assert set(estimate(drawn, RECIPE, Distance(), tiny_calibration()).trusted) == {None}


def uncertain(share):
    """A volume of which so large a share of the slices is above the limit."""
    volume = synthetic_volume(head_ct(**SMALL))
    count = len(volume.guides)
    values = np.zeros_like(volume.uncertainty)
    values[: round(share * count)] = 0.5
    everywhere = np.ones_like(volume.head)
    limit = UncertaintyInterpretation(untrusted_above=0.14)
    return replace(volume, uncertainty=values, head=everywhere, meaning=limit)


def test_a_series_is_flagged_above_the_share_and_not_at_it():
    assert abstain(uncertain(0.45), LIMITS, shipped_limits()) == ()
    assert abstain(uncertain(1.0), None, shipped_limits()) == ()
    (finding,) = abstain(uncertain(0.8), LIMITS, shipped_limits())
    assert (finding.code, finding.severity, finding.limit) == ("UNCERTAIN", "flag", 0.5)
    assert finding.value == pytest.approx(0.8, abs=0.05)


def test_the_site_may_refuse_an_uncertain_series():
    strict = shipped_limits().model_copy(
        update={"policy": {**shipped_limits().policy, "UNCERTAIN": "refuse"}}
    )
    with pytest.raises(SeriesRejectedError) as refused:
        abstain(uncertain(0.8), LIMITS, strict)
    assert [f.code for f in refused.value.findings] == ["UNCERTAIN"]
