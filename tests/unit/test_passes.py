"""Which slices are used of a series with more than one pass, in selection and assembly alike."""

from __future__ import annotations

import numpy as np
import pytest

from rebrain_node.domain.passes import slices_to_use
from rebrain_node.errors import SeriesRejectedError
from rebrain_node.instance.header import frames
from rebrain_node.steps.assemble import assemble
from rebrain_node.steps.select import select
from tests.support.geometry_cases import GEOMETRY, LIMITS
from tests.support.phantoms import enhanced_ct, head_ct

COUNT = 24
PLACES = tuple(-60.0 + 6.0 * k for k in range(COUNT))
BETWEEN = tuple(place + 3.0 for place in PLACES)
SMALL = {"rows": 4, "columns": 4, "manufacturer": "SIEMENS"}


def two_passes(second=BETWEEN, first=PLACES, **changes):
    """Slices of two acquisitions, the second one's first."""
    instances = head_ct(**{**SMALL, **changes}, slice_distances_mm=(*first, *second))
    for instance in instances[len(first) :]:
        instance.AcquisitionNumber = 2
    return instances[::-1]


def used(instances):
    found = slices_to_use(frames(instances), GEOMETRY)
    return found, {(f.code, f.severity) for f in found.findings}


def places_of(found):
    return sorted(round(frame.image_position_patient[2]) for frame in found.frames)


@pytest.mark.hazard("H5")
@pytest.mark.parametrize("tilt_deg", [0.0, 18.0, -18.0])
def test_of_two_interleaved_passes_the_first_is_used_whatever_the_order_and_tilt(tilt_deg):
    instances = two_passes(gantry_tilt_deg=tilt_deg)
    np.random.default_rng(3).shuffle(instances)
    found, codes = used(instances)
    assert codes == {("GEOM-PASS-CHOSEN", "flag")}
    assert {frame.acquisition_number for frame in found.frames} == {1}
    assert len(found.frames) == COUNT


@pytest.mark.hazard("H5")
def test_where_the_first_pass_is_not_whole_the_second_is_used():
    found, codes = used(two_passes(first=PLACES[:9]))
    assert codes == {("GEOM-PASS-CHOSEN", "flag")}
    assert {frame.acquisition_number for frame in found.frames} == {2}


@pytest.mark.hazard("H5")
def test_a_pass_with_a_missing_slice_is_not_used():
    found, _ = used(two_passes(first=PLACES[:9] + PLACES[10:]))
    assert {frame.acquisition_number for frame in found.frames} == {2}
    neither, codes = used(two_passes(first=PLACES[:9] + PLACES[10:], second=BETWEEN[:12]))
    assert codes == {("GEOM-TWO-PASSES", "refuse")}
    assert len(neither.frames) == 35


@pytest.mark.hazard("H5")
def test_the_selection_and_the_assembly_use_the_same_slices():
    instances = two_passes(rows=128, columns=128)
    (candidate,) = select(instances, LIMITS).candidates
    assert candidate.decision == "accepted"
    assert "slices: 24, instances: 48" in candidate.explanation
    volume = assemble(instances, GEOMETRY)
    kept = {str(i.SOPInstanceUID) for i in instances if i.AcquisitionNumber == 1}
    assert set(volume.sop_instance_uids) == kept


@pytest.mark.hazard("H5")
def test_passes_that_cannot_be_used_are_refused_by_both_without_a_word_of_gaps():
    instances = two_passes(first=PLACES[:9], second=PLACES[5:14])
    (candidate,) = select(instances, LIMITS).candidates
    assert not {"GEOM-GAP", "GEOM-DUPLICATE", "GEOM-SPACING"} & set(candidate.codes)
    assert "GEOM-TWO-PASSES" in candidate.codes
    with pytest.raises(SeriesRejectedError) as error:
        assemble(instances, GEOMETRY)
    assert [finding.code for finding in error.value.findings] == ["GEOM-TWO-PASSES"]


def test_frames_of_an_enhanced_ct_are_told_apart_by_their_acquisition():
    instance = enhanced_ct(**SMALL, slice_distances_mm=PLACES + BETWEEN)
    for place, group in enumerate(instance.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence[0].FrameAcquisitionNumber = 1 + place // COUNT
    found, codes = used([instance])
    assert codes == {("GEOM-PASS-CHOSEN", "flag")}
    assert [frame.frame_number for frame in found.frames] == list(range(1, COUNT + 1))


SOUND = {
    "one acquisition": lambda: head_ct(**SMALL),
    "two ranges": lambda: two_passes(first=PLACES[:9], second=PLACES[9:]),
    "the upper range first": lambda: two_passes(first=PLACES[9:], second=PLACES[:9]),
    "rotations of four slices": lambda: [
        _numbered(instance, place // 4) for place, instance in enumerate(head_ct(**SMALL))
    ],
    "no acquisition numbers, shuffled instance numbers": lambda: [
        _shuffled(instance, place) for place, instance in enumerate(head_ct(**SMALL))
    ],
}


def _numbered(instance, number):
    instance.AcquisitionNumber = number + 1
    instance.AcquisitionTime = f"1015{number:02d}"
    return instance


def _shuffled(instance, place):
    del instance.AcquisitionNumber
    instance.InstanceNumber = (7 * place) % COUNT + 1
    return instance


@pytest.mark.hazard("H5")
@pytest.mark.parametrize("series", SOUND)
def test_what_lies_side_by_side_is_one_pass(series):
    instances = SOUND[series]()
    found, codes = used(instances)
    assert codes == set()
    assert len(found.frames) == len(instances)


def test_one_repeated_slice_is_no_second_pass():
    found, codes = used(two_passes(second=PLACES[4:6]))
    assert codes == set()
    assert len(found.frames) == COUNT + 2
