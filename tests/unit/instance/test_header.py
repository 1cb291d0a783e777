"""Frames are read leniently: what is absent or unfit is None, never an error and never a guess."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from rebrain_node.instance.header import frames
from tests.support.phantoms import enhanced_ct, head_ct

FEW = {"rows": 16, "columns": 12, "slice_distances_mm": (0.0, 5.0, 10.0)}


def test_an_empty_data_set_is_one_frame_of_which_nothing_is_known():
    (frame,) = frames([Dataset()])
    assert frame.sop_instance_uid is None
    assert frame.image_orientation_patient is None
    assert frame.normal is None
    assert frame.distance_mm is None
    assert frame.image_type == ()


def test_classic_and_enhanced_frames_say_the_same():
    classic, enhanced = frames(head_ct(**FEW)), frames([enhanced_ct(**FEW)])
    assert [f.frame_number for f in enhanced] == [1, 2, 3]
    for one, other in zip(classic, enhanced, strict=True):
        for name in (
            "image_position_patient", "image_orientation_patient", "pixel_spacing_mm",
            "slice_thickness_mm", "convolution_kernel", "body_part", "rescale_type",
            "rows", "columns", "bits_stored", "modality", "gantry_tilt_deg",
        ):  # fmt: skip
            assert getattr(one, name) == getattr(other, name), name
        assert one.distance_mm == pytest.approx(other.distance_mm)


@pytest.mark.parametrize(
    ("text", "years"),
    [("050Y", 50.0), ("018M", 1.5), ("003D", 3 / 365.25), ("50Y", None), ("0000", None)],
)
def test_an_age_string_becomes_years_or_nothing(text, years):
    instance = Dataset()
    instance.add_new("PatientAge", "LO", text)
    assert frames([instance])[0].patient_age_years == (
        None if years is None else pytest.approx(years)
    )


@pytest.mark.parametrize("numbers", [[1, 0, 0], [1, 0, 0, 0, 1], "axial"])
def test_an_orientation_that_is_not_six_numbers_is_not_taken(numbers):
    instance = Dataset()
    instance.add_new("ImageOrientationPatient", "LO" if numbers == "axial" else "DS", numbers)
    assert frames([instance])[0].image_orientation_patient is None


def test_contrast_is_seen_in_whichever_attribute_names_it():
    assert frames(head_ct(**FEW))[0].contrast_agent is None
    assert frames(head_ct(**FEW, contrast_agent="IOHEXOL"))[0].contrast_agent == "IOHEXOL"
    usage = enhanced_ct(**FEW)
    usage.SharedFunctionalGroupsSequence[0].ContrastBolusUsageSequence = [Dataset()]
    assert frames([usage])[0].contrast_agent == "ContrastBolusUsageSequence"
