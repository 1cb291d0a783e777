"""Several slices to a rotation of a tilted gantry: recognised, and placed by the outline."""

from __future__ import annotations

import numpy as np
import pytest

from rebrain_node.domain.arrangement import arrange_frames, judge_arrangement
from rebrain_node.domain.rotations import phase_offsets_mm, rotation_phases
from rebrain_node.instance.header import frames
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.preprocess import preprocess
from tests.support.geometry_cases import GEOMETRY, RECIPE
from tests.support.phantoms import head_ct

TILT_DEG = 15.0
COUNT = 24
COLUMN = np.array([0.0, np.cos(np.radians(TILT_DEG)), np.sin(np.radians(TILT_DEG))])


def tilted(header_mm, slices_to_a_rotation=2, first=0):
    """A sound head whose header shifts slices by ``header_mm`` of their place in the rotation."""
    instances = head_ct(gantry_tilt_deg=TILT_DEG, table=False)
    for place, instance in enumerate(instances):
        phase = (place + first) % slices_to_a_rotation
        position = np.array(instance.ImagePositionPatient, dtype=float)
        instance.ImagePositionPatient = [*(position + header_mm[phase] * COLUMN).round(4)]
        instance.AcquisitionNumber = 1 + (place + first) // slices_to_a_rotation
    return instances


@pytest.mark.hazard("H5")
@pytest.mark.parametrize("header_mm", [(0.0, 3.0), (0.0, -5.5), (2.0, -2.0, 0.5, 1.0)])
@pytest.mark.parametrize("first", [0, 1])
def test_slices_of_a_rotation_are_put_where_their_outlines_lie(header_mm, first):
    straight = assemble(head_ct(gantry_tilt_deg=TILT_DEG, table=False), GEOMETRY)
    volume = assemble(tilted(header_mm, len(header_mm), first), GEOMETRY)
    off = volume.positions_mm - straight.positions_mm
    assert np.ptp(off, axis=0).max() < 0.5
    assert np.abs(off @ volume.normal).max() < 1e-3
    assert volume.rotations.shift_mm == pytest.approx(np.ptp(header_mm), abs=0.5)
    assert volume.tilt_deg == pytest.approx(TILT_DEG, abs=0.2)


@pytest.mark.hazard("H5")
def test_the_slices_made_of_pairs_form_a_straight_stack():
    instances = [i for i in tilted((0.0, 4.0)) if 8 <= i.InstanceNumber <= 19]
    prepared = preprocess(assemble(instances, GEOMETRY), RECIPE)
    middles = np.array([np.argwhere(mask).mean(axis=0) for mask in prepared.head])
    assert np.abs(np.diff(middles, n=2, axis=0)).max() * RECIPE.grid.pixel_mm < 1.5


@pytest.mark.hazard("H5")
def test_without_tilt_nothing_is_shifted_and_a_step_is_a_fault():
    instances = head_ct(table=False)
    for place, instance in enumerate(instances):
        instance.AcquisitionNumber = 1 + place // 2
        instance.ImagePositionPatient[1] = float(instance.ImagePositionPatient[1]) + 3 * (place % 2)
    assert assemble(instances, GEOMETRY).rotations is None
    found = judge_arrangement(arrange_frames(frames(instances)), GEOMETRY)
    assert [finding.code for finding in found] == ["GEOM-SPACING"]


@pytest.mark.hazard("H5")
def test_one_slice_beside_its_pair_is_still_a_fault():
    instances = tilted((0.0, 3.0))
    instances[9].ImagePositionPatient[0] = float(instances[9].ImagePositionPatient[0]) + 1.0
    found = judge_arrangement(arrange_frames(frames(instances)), GEOMETRY)
    assert [finding.code for finding in found] == ["GEOM-SPACING"]


def test_the_place_within_a_rotation_is_known_from_runs_of_equal_length():
    assert rotation_phases([1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]) == (0, 1) * 6
    assert rotation_phases([1, 2, 2, 3, 3, 4, 4, 5, 5, 6]) == (1, 0, 1, 0, 1, 0, 1, 0, 1, 0)
    assert rotation_phases([9, 8, 8, 8, 7, 7, 7, 6, 6, 6, 5, 5, 5, 4]) == (2, *(0, 1, 2) * 4, 0)


@pytest.mark.parametrize(
    "acquisitions",
    [
        [1] * 12,
        list(range(12)),
        [1, 1, 2, 2, 3, None, 4, 4, 5, 5, 6, 6],
        [1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6],
        [1, 1, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2],
    ],
)
def test_other_numbers_show_no_rotations(acquisitions):
    assert rotation_phases(acquisitions) is None


def test_offsets_are_found_beside_a_curved_line_and_one_outlier():
    rng = np.random.default_rng(1)
    distances = np.cumsum(rng.uniform(4.0, 6.0, COUNT))
    true = np.array([[0.0, 0.0], [3.0, -1.0], [1.0, 2.0]])
    phases = tuple(k % 3 for k in range(COUNT))
    places = np.stack([0.002 * distances**2, 0.2 * distances], axis=1) + true[list(phases)]
    places[11] += 20.0
    offsets, _ = phase_offsets_mm(places, distances, phases)
    assert np.abs(offsets - (true - true.mean(axis=0))).max() < 0.2


def sums_below_pairs(shift_mm):
    """A sound head: ten slices that are the sum of a rotation, above them pairs."""
    instances = head_ct(gantry_tilt_deg=TILT_DEG, table=False)
    for place, instance in enumerate(instances):
        pair, phase = divmod(place - 10, 2)
        instance.AcquisitionNumber = 1 + place if place < 10 else 11 + pair
        if place >= 10:
            position = np.array(instance.ImagePositionPatient, dtype=float)
            shifted = position + (phase - 0.5) * shift_mm * COLUMN
            instance.ImagePositionPatient = [*shifted.round(4)]
    return instances


@pytest.mark.hazard("H5")
def test_pairs_are_recentred_above_slices_that_are_the_sum_of_a_rotation():
    straight = assemble(head_ct(gantry_tilt_deg=TILT_DEG, table=False), GEOMETRY)
    volume = assemble(sums_below_pairs(4.6), GEOMETRY)
    assert np.ptp(volume.positions_mm - straight.positions_mm, axis=0).max() < 0.5
    assert volume.rotations.phases == (-1,) * 10 + (0, 1) * 7
    assert volume.rotations.shift_mm == pytest.approx(4.6, abs=0.5)


def test_a_slice_that_is_missing_from_a_pair_is_no_sum_of_a_rotation():
    numbers = [n for n in range(1, 13) for _ in range(2)]
    assert rotation_phases([1, 2, 3, *numbers[6:]]) is not None
    assert rotation_phases([*numbers[:9], *numbers[10:]]) is None
