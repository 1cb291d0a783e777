"""Frames are read leniently: what is absent or unfit is None, never an error and never a guess."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from rebrain_node.instance.header import axial_instances, frames
from tests.support.phantoms import enhanced_ct, head_ct, localizer

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
    [
        ("050Y", 50.0),
        ("018M", 1.5),
        ("003D", 3 / 365.25),
        ("50Y", 50.0),
        ("0000", None),
        ("8Y", 8.0),
        ("008y", 8.0),
        ("8 Y", 8.0),
        ("08Y ", 8.0),
        ("8", 8.0),
        ("8 years", 8.0),
        ("96M", 8.0),
        ("416W", 416 * 7 / 365.25),
        ("2920D", 2920 / 365.25),
        ("000Y", None),
        ("999Y", None),
        ("adult", None),
        ("-5Y", None),
    ],
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


@pytest.mark.parametrize(
    ("born", "examined", "years"),
    [
        ({"PatientBirthDate": "20180101"}, {"StudyDate": "20260101"}, 8.0),
        ({"PatientBirthDate": "2018.01.01"}, {"StudyDate": "20260101"}, 8.0),
        ({"PatientBirthDate": "20180101"}, {"AcquisitionDate": "20260101"}, 8.0),
        ({"PatientBirthDate": "20180101"}, {"SeriesDate": "20260101"}, 8.0),
        ({"PatientBirthDate": "20180101"}, {"ContentDate": "20260101"}, 8.0),
        ({"PatientBirthDate": "1960"}, {"StudyDate": "20200701"}, 60.0),
        ({"PatientBirthDate": "20180101"}, {"StudyDate": "20180101"}, None),
        ({"PatientBirthDate": "18000101"}, {"StudyDate": "20260101"}, None),
        ({"PatientBirthDate": "20270101"}, {"StudyDate": "20260101"}, None),
        ({}, {"StudyDate": "20260101"}, None),
        ({"PatientBirthDate": "20180101"}, {}, None),
    ],
)
@pytest.mark.parametrize("age", [None, "000Y", "unknown"])
def test_an_absent_or_unreadable_age_is_that_of_the_birth_date(age, born, examined, years):
    instance = Dataset()
    for keyword, value in {"PatientAge": age, **born, **examined}.items():
        instance.add_new(keyword, "LO", value)
    assert frames([instance])[0].patient_age_years == (
        None if years is None else pytest.approx(years, abs=0.02)
    )


def test_contrast_is_seen_in_whichever_element_names_it():
    assert frames(head_ct(**FEW))[0].contrast.evidence == "silent"
    given = frames(head_ct(**FEW, contrast_agent="IOHEXOL"))[0].contrast
    assert (given.evidence, given.words) == (
        "given", "Contrast/Bolus Agent (0018,0010) names IOHEXOL",
    )  # fmt: skip
    usage = enhanced_ct(**FEW)
    usage.SharedFunctionalGroupsSequence[0].ContrastBolusUsageSequence = [Dataset()]
    assert frames([usage])[0].contrast.evidence == "given"
    usage.SharedFunctionalGroupsSequence[0].ContrastBolusUsageSequence[
        0
    ].ContrastBolusAgentAdministered = "NO"
    assert frames([usage])[0].contrast.evidence == "none"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (("4.998", "5.002", "5.0"), {5.0}),
        (("4.998", "5.002", "4.998"), {5.0}),
        (("4.92", "4.92", "4.92"), {4.92}),
        (("2.5", "5.0", "5.0"), {2.5, 5.0}),
    ],
)
def test_thicknesses_that_differ_by_the_noise_of_writing_are_one(written, read):
    instances = head_ct(**FEW)
    for instance, thickness in zip(instances, written, strict=True):
        instance.SliceThickness = thickness
    assert {f.slice_thickness_mm for f in frames(instances)} == read


def test_scouts_among_slices_are_left_out_and_scouts_alone_stay():
    slices, scouts = head_ct(**FEW), localizer(rows=16, columns=12)
    assert axial_instances([*scouts, *slices]) == tuple(slices)
    assert axial_instances(scouts) == tuple(scouts)
