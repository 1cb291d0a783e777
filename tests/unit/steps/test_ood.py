"""The out-of-domain score: what is measured of a slice, and what a score above the limit does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rebrain_node.domain.headframe import HeadFrame
from rebrain_node.domain.ood import OodScore
from rebrain_node.domain.volume import Grid, PreparedVolume
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.limits_file import shipped_limits
from rebrain_node.steps.ood import PICTURE, admit, looked_at, recognise, statistics
from tests.support.ood_models import ood_model

LIMITS = shipped_limits()
POSITIONS = np.linspace(-80.0, 90.0, 18)


def _prepared(noise_hu=3.0):
    """A ball of brain in a skull in fat, its middle a little darker; 18 slices."""
    z, y, x = np.meshgrid(np.linspace(-1, 1, 18), *[np.linspace(-1, 1, 128)] * 2, indexing="ij")
    radius = np.sqrt(z**2 + (y / 0.9) ** 2 + (x / 0.75) ** 2)
    hu = np.select(
        [radius < 0.3, radius < 0.8, radius < 0.9, radius < 1.0], [25.0, 36.0, 900.0, -90.0], -1024
    )
    head = radius < 1.0
    grain = np.random.default_rng(0).normal(0, noise_hu, hu.shape)
    return PreparedVolume(
        hu=np.where(head, hu + grain, hu).astype(np.float32),
        head=head,
        grid=Grid(
            origin_mm=np.zeros(3),
            row_direction=np.array([1.0, 0.0, 0.0]),
            column_direction=np.array([0.0, 1.0, 0.0]),
            pixel_mm=1.8,
            rows=128,
            columns=128,
        ),
        distances_mm=POSITIONS - POSITIONS[0],
        thickness_mm=(10.0,) * 18,
        targets=(),
        spacing_mm=1.0,
        sop_instance_uids=("1.2",) * 18,
        frame_numbers=(None,) * 18,
        frame_of_reference_uid="1.2",
    )


def _frame(**more):
    told = {
        "position_mm": POSITIONS, "head_from_patient": np.eye(4), "pitch_deg": 0.0,
        "roll_deg": 0.0, "yaw_deg": 0.0, "size": 1.0, "coverage": 1.0, "symmetry": 0.95,
        "likeness": 0.93, "plausibility": 1.0,
    }  # fmt: skip
    return HeadFrame(**(told | more))


def _middle(prepared):
    return dict(zip(PICTURE, statistics(prepared)[9], strict=True))


def test_the_statistics_say_what_a_slice_shows():
    found = _middle(_prepared())
    area_mm2 = _prepared().head[9].sum() * 1.8**2
    assert found["section"] == pytest.approx(np.sqrt(area_mm2), rel=0.02)
    assert found["width"] == pytest.approx(0.75 / 0.9, rel=0.03)
    assert found["fat"] == pytest.approx(0.19, abs=0.05)
    assert found["bone"] == pytest.approx(0.17, abs=0.05)
    assert found["middle"] == pytest.approx(36.0, abs=1.0)
    assert found["air"] < 0.03


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("noise", lambda hu: hu + np.random.default_rng(1).normal(0, 12, hu.shape)),
        ("middle", lambda hu: np.where((hu > -20) & (hu < 80), hu + 25, hu)),
        ("bright", lambda hu: np.where((hu > -20) & (hu < 80), hu + 25, hu)),
        ("asymmetry", lambda hu: hu + 20 * (np.arange(128) < 64) * ((hu > -20) & (hu < 80))),
        ("air", lambda hu: np.where((hu > -20) & (hu < 30), -900, hu)),
    ],
)
def test_each_statistic_rises_with_its_cause(name, change):
    prepared = _prepared()
    changed = replace(prepared, hu=change(prepared.hu).astype(np.float32))
    assert _middle(changed)[name] > _middle(prepared)[name] + 0.05


def test_slices_between_base_and_vertex_are_looked_at_or_all_with_head():
    prepared = _prepared()
    chosen = POSITIONS[looked_at(prepared, _frame())]
    assert (chosen.min(), chosen.max()) == (-60.0, 80.0)
    astray = looked_at(prepared, _frame(position_mm=POSITIONS + 400.0))
    assert astray.sum() > len(chosen)


def test_a_series_without_soft_tissue_is_scored_all_the_same():
    prepared = _prepared()
    bare = replace(prepared, hu=np.where(prepared.head, -700, -1024).astype(np.float32))
    strange = recognise(bare, _frame(likeness=0.1), None, ood_model())
    assert np.isfinite(strange.score)
    assert strange.score > strange.threshold


def _strange(score):
    return OodScore(
        parts={"head frame": score, "picture": 0.4},
        threshold=1.5,
        deviations={"likeness": -9.0, "noise": 0.2, "fat": 1.0, "bone": -2.0},
    )


@pytest.mark.hazard("H13")
def test_a_score_above_the_threshold_is_flagged_and_says_what_is_unusual():
    assert admit(_strange(1.5), LIMITS) == ()
    (finding,) = admit(_strange(3.21), LIMITS)
    assert (finding.code, finding.severity) == ("OOD", "flag")
    assert (finding.value, finding.limit) == (3.21, 1.5)
    assert "3.2 times the usual distance, at most 1.5" in finding.sentence
    assert "likeness, bone, fat" in finding.sentence


@pytest.mark.hazard("H13")
def test_a_site_may_refuse_what_is_out_of_domain():
    strict = LIMITS.model_copy(update={"policy": {**LIMITS.policy, "OOD": "refuse"}})
    assert admit(_strange(1.4), strict) == ()
    with pytest.raises(SeriesRejectedError) as caught:
        admit(_strange(1.6), strict)
    assert [finding.code for finding in caught.value.findings] == ["OOD"]


def test_the_audit_details_hold_score_threshold_and_parts():
    details = _strange(3.21).to_json()
    assert details["score"] == details["parts"]["head frame"] == 3.21
    assert details["threshold"] == 1.5
    assert details["deviations"]["likeness"] == -9.0
