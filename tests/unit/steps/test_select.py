"""The selection: the right series or a refusal a radiographer understands."""

from __future__ import annotations

import copy
import os
import time
from itertools import compress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from rebrain_node.domain import marks
from rebrain_node.domain.codes import CODES
from rebrain_node.instance.identity import IDENTITY_FIELDS
from rebrain_node.limits_file import load_limits, shipped_limits
from rebrain_node.steps.select import select
from rebrain_node.steps.select.series import kernel_kind
from tests.support.phantoms import derived_mpr, enhanced_ct, head_ct, localizer

LIMITS = shipped_limits()
MIXED_CASES = 500 if os.environ.get("REBRAIN_FULL") == "1" else 100
SLICES = tuple(-60.0 + 5.0 * k for k in range(28))


def series(**changes):
    """A series whose headers are those of a head CT; its pixels are not looked at."""
    defaults = {
        "rows": 4,
        "columns": 4,
        "pixel_spacing_mm": (57.0, 57.0),
        "slice_distances_mm": SLICES,
        "manufacturer": "SIEMENS",
    }
    instances = head_ct(**{**defaults, **changes})
    for instance in instances:
        instance.Rows = instance.Columns = 512
        instance.PixelSpacing = [0.45, 0.45]
    return instances


def only(instances, limits=LIMITS):
    (candidate,) = select(instances, limits).candidates
    return candidate


def test_a_sound_series_is_accepted_without_a_finding():
    candidate = only(series())
    assert (candidate.decision, candidate.findings) == ("accepted", ())
    assert candidate.instances == len(SLICES)
    assert "kernel: soft" in candidate.explanation


@pytest.mark.hazard("H7")
def test_the_toshiba_study_gives_brain_head_5_and_refuses_the_rest_by_code(shared_data):
    paths = sorted((shared_data / "ct_toshiba_head_study").glob("*.dcm"))
    study = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    begun = time.process_time()
    selection = select(study, LIMITS)
    assert time.process_time() - begun < 2.0
    told = {c.series_description: (c.decision, c.codes[:1]) for c in selection.candidates}
    assert told == {
        "2.0": ("refused", ("LOCALIZER",)),
        "Brain Head 5.0": ("accepted", ()),
        "Brain Bone 5.0": ("refused", ("KERNEL",)),
        "Coronal Brain/Coronal Head 3.0": ("refused", ("DERIVED",)),
        "Sagittal Brain/Sagittal Head 3.0": ("refused", ("DERIVED",)),
    }
    assert all(c.sentence for c in selection.candidates)


@pytest.mark.hazard("H7")
def test_scout_and_dose_pages_of_the_phantom_study_are_refused_by_code(shared_data):
    paths = [p for p in sorted((shared_data / "ct_philips_phantom").rglob("I*")) if p.is_file()]
    study = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    told = {c.series_description: c.codes[:1] for c in select(study, LIMITS).candidates}
    assert told == {
        "": ("LOCALIZER",),
        "STD BRAIN 5MM": ("AGE-UNKNOWN",),
        "Exam Summary": ("MODALITY",),
    }


@pytest.mark.hazard("H5")
@pytest.mark.parametrize(
    ("folder", "code"),
    [
        ("gantrytilting/001", "TOO-FEW"),
        ("notavolume/001", "GEOM-DUPLICATE"),
        ("slicecount/001", "TOO-FEW"),
        ("sliceincrement/001", "GEOM-GAP"),
        ("sliceincrement/002", "GEOM-GAP"),
        ("sliceorientation/001", "GEOM-ORIENTATION"),
    ],
)
def test_each_real_failure_of_geometry_has_its_named_code(shared_data, folder, code):
    paths = sorted((shared_data / "dicom_oddities/bad_geometry" / folder).glob("*"))
    candidate = only([pydicom.dcmread(path, stop_before_pixels=True) for path in paths])
    assert candidate.decision == "refused"
    assert code in candidate.codes


@pytest.mark.hazard("H5")
def test_four_tilted_slices_are_too_few_and_as_a_whole_head_they_are_taken(shared_data):
    """The real series refused for its tilt by others: 14 degrees are undone exactly here."""
    folder = shared_data / "dicom_oddities/bad_geometry/gantrytilting/001"
    four = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.glob("*"))]
    candidate = only(four)
    assert [c for c in candidate.codes if c.startswith("GEOM")] == []
    assert "gantry tilt 14.0 degrees, corrected exactly" in candidate.explanation
    whole = []
    for k in range(28):
        instance = copy.deepcopy(four[0])
        instance.SOPInstanceUID, instance.InstanceNumber = f"1.2.{k}", k + 1
        x, y, z = four[0].ImagePositionPatient
        instance.ImagePositionPatient = [x, y, z + 5.0 * k]
        whole.append(instance)
    assert (only(whole).decision, only(whole).codes) == (
        "accepted",
        ("KERNEL-UNKNOWN", "AGE-UNKNOWN"),
    )


def replaced(keyword, value):
    def change(instances):
        for instance in instances:
            setattr(instance, keyword, value)

    return change


def without_age(instances):
    for instance in instances:
        instance.PatientAge = instance.PatientBirthDate = ""


def with_scout():
    """A scout as the first image of an axial series, as GE and Siemens consoles may send it."""
    slices = series()
    (scout,) = localizer()
    scout.SeriesInstanceUID = slices[0].SeriesInstanceUID
    scout.StudyInstanceUID = slices[0].StudyInstanceUID
    return [scout, *slices]


def perfusion(times=5):
    """The same 8 cm of the head at several times, as the dynamic series of a perfusion scan."""
    instances = []
    for moment in range(times):
        for place, instance in enumerate(series(slice_distances_mm=SLICES[:16])):
            instance.SOPInstanceUID = f"1.2.3.{moment}.{place}"
            instance.AcquisitionNumber = moment + 1
            instance.AcquisitionTime = f"1011{moment * 2:02}"
            instances.append(instance)
    return instances


CASES = {
    "MODALITY": lambda: changed(replaced("Modality", "MR")),
    "LOCALIZER": localizer,
    "DERIVED": lambda: series(image_type=("DERIVED", "SECONDARY", "MPR")),
    "IMAGE-TYPE": lambda: series(image_type=("ORIGINAL", "PRIMARY", "AXIAL", "VNC")),
    "SPECTRAL": lambda: series(image_type=("ORIGINAL", "PRIMARY", "AXIAL", "MONO_70KEV")),
    "TEMPORAL": lambda: perfusion(),
    "LOCALIZER-SET-ASIDE": lambda: with_scout(),
    "BODY-PART": lambda: changed(replaced("BodyPartExamined", "KOPF")),
    "AGE-UNKNOWN": lambda: changed(without_age),
    "GEOM-ORIENTATION": lambda: series(orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0)),
    "GEOM-GAP": lambda: [i for k, i in enumerate(series()) if k != 7],
    "GEOM-DUPLICATE": lambda: [*series(), *series()[3:4]],
    "GEOM-TILT": lambda: series(gantry_tilt_deg=33.0),
    "GEOM-SPACING": lambda: changed(lambda found: setattr(found[3], "Rows", 500)),
    "KERNEL": lambda: series(kernel="H60s"),
    "KERNEL-UNKNOWN": lambda: series(kernel="X"),
    "THICKNESS": lambda: series(slice_thickness_mm=0.75),
    "TOO-FEW": lambda: series(slice_distances_mm=SLICES[:6]),
    "INCOMPLETE": lambda: series(slice_distances_mm=SLICES[:14]),
    "CONTRAST": lambda: series(contrast_agent="IODINE 300"),
    "AGE": lambda: series(patient_age="007Y"),
    "NOT-HEAD": lambda: changed(replaced("BodyPartExamined", "CHEST")),
    "SIZE": lambda: changed(replaced("Rows", 60000)),
    "HU": lambda: changed(lambda found: setattr(found[3], "BitsStored", 8)),
    "HU-UNIT": lambda: changed(replaced("RescaleType", "ED")),
    "CHARSET": lambda: series(character_set="ISO_IR 999"),
}


def changed(change):
    instances = series()
    change(instances)
    return instances


@pytest.mark.parametrize("code", CASES)
def test_each_code_is_found_with_value_limit_and_a_sentence(code):
    (candidate,) = select(CASES[code](), LIMITS).candidates
    assert code in candidate.codes
    finding = next(f for f in candidate.findings if f.code == code)
    assert len(finding.sentence) > 20
    assert finding.limit is not None or code.startswith("GEOM")
    expected = "flag" if CODES[code].policy == "flag" else LIMITS.severity(code)
    assert finding.severity == expected
    if expected == "refuse":
        assert candidate.decision == "refused"


@pytest.mark.hazard("H12")
@pytest.mark.parametrize("unit", ["US", "ED", "HU_MOD", "MGML", "Z_EFF"])
def test_values_in_another_unit_than_hounsfield_are_refused_by_name(unit):
    candidate = only(changed(replaced("RescaleType", unit)))
    assert (candidate.decision, candidate.codes[0]) == ("refused", "HU-UNIT")
    assert unit in candidate.sentence


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("unit", ["HU", "hu", "Hounsfield", None])
def test_a_rescale_type_of_hounsfield_or_none_is_hounsfield(unit):
    assert only(changed(replaced("RescaleType", unit))).decision == "accepted"


@pytest.mark.hazard("H8")
def test_an_item_of_contrast_agent_counts_unless_it_is_empty():
    coded = Dataset()
    coded.CodeValue, coded.CodingSchemeDesignator = "C-B0322", "SRT"
    assert only(changed(replaced("ContrastBolusAgentSequence", [coded]))).codes == ("CONTRAST",)
    assert only(changed(replaced("ContrastBolusAgentSequence", [Dataset()]))).codes == ()
    blank = Dataset()
    blank.CodeValue = ""
    assert only(changed(replaced("ContrastBolusAgentSequence", [blank]))).codes == ()


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_an_image_type_in_small_letters_is_read_as_in_capitals():
    assert only(changed(replaced("ImageType", ["original", "primary", "axial"]))).codes == ()
    assert "DERIVED" in only(changed(replaced("ImageType", ["original", "primary", "mip"]))).codes


@pytest.mark.hazard("H5")
def test_a_tilt_tag_that_the_positions_contradict_is_flagged():
    candidate = only(changed(replaced("GantryDetectorTilt", -20.0)))
    assert (candidate.decision, candidate.codes) == ("accepted", ("GEOM-TILT-TAG",))
    assert "20.0 degrees" in candidate.sentence
    assert only(series(gantry_tilt_deg=10.5)).codes == ()
    opposite = series(gantry_tilt_deg=10.5)
    for instance in opposite:
        instance.GantryDetectorTilt = -10.5  # the sign of the tag differs between vendors
    assert only(opposite).codes == ()


@pytest.mark.hazard("H10")
def test_the_age_stands_in_the_policy():
    text = _shipped_text().replace('AGE = "refuse"', 'AGE = "flag"')
    candidate = only(series(patient_age="007Y"), load_limits(text))
    assert (candidate.decision, set(candidate.codes)) == ("accepted", {"AGE", "AGE-UNKNOWN"})


def _shipped_text():
    return (Path(__file__).parents[3] / "conf/limits.toml").read_text(encoding="utf-8")


@pytest.mark.hazard("H10")
@pytest.mark.parametrize(
    ("age", "found"),
    [
        ("017Y", True),
        ("018Y", False),
        ("011M", True),
        ("012D", True),
        ("8Y", True),
        ("008y", True),
        ("8 Y", True),
        ("96M", True),
        ("416W", True),
        ("2920D", True),
        ("8", True),
        ("000Y", False),
    ],
)
def test_an_age_below_the_limit_is_found_and_one_that_was_taken_out_is_not(age, found):
    instances = series()
    for instance in instances:
        tag = tag_for_keyword("PatientAge")
        instance[tag] = DataElement(tag, "LO", age)
    assert ("AGE" in only(instances).codes) is found


@pytest.mark.hazard("H8")
@pytest.mark.parametrize("word", ["", "NONE", "No", "0", "ohne KM", "0 ml", "N/A"])
def test_words_for_no_contrast_are_no_contrast(word):
    assert "CONTRAST" not in only(series(contrast_agent=word)).codes


@pytest.mark.hazard("H8")
@pytest.mark.parametrize(
    ("elements", "severity", "said"),
    [
        ({"ContrastBolusVolume": "80"}, "refuse", "Volume (0018,1041) is 80 ml"),
        ({"ContrastBolusTotalDose": "24"}, "refuse", "Total Dose (0018,1044) is 24 ml"),
        ({"ContrastBolusRoute": "IV"}, "refuse", "Route (0018,1040)"),
        ({"ContrastBolusIngredientConcentration": "300"}, "refuse", "300 mg/ml"),
        ({"ContrastBolusStartTime": "101400"}, "refuse", "10:14:00"),
        ({"SeriesDescription": "Head C+"}, "refuse", "described as one with contrast"),
        ({"ProtocolName": "CTA Head"}, "flag", "Protocol Name (0018,1030)"),
        ({"ContrastBolusAgent": "IODINE", "ContrastBolusVolume": "0"}, "flag", "but"),
        ({"ContrastBolusAgent": "none", "SeriesDescription": "CTA"}, "flag", "but"),
    ],
)
def test_whatever_says_contrast_is_found_and_the_sentence_says_what_was_read(
    elements, severity, said
):
    candidate = only(changed(lambda found: [replaced(k, v)(found) for k, v in elements.items()]))
    finding = next(f for f in candidate.findings if f.code == "CONTRAST")
    assert finding.severity == severity
    assert said in finding.sentence
    assert any(line.startswith("contrast ") for line in candidate.explanation)


@pytest.mark.hazard("H8")
def test_a_bolus_that_starts_after_the_slices_is_not_in_them():
    late = {"ContrastBolusStartTime": "103000", "AcquisitionTime": "101112"}
    candidate = only(changed(lambda found: [replaced(k, v)(found) for k, v in late.items()]))
    assert candidate.codes == ()
    assert "no contrast declared" in " ".join(candidate.explanation)


@pytest.mark.hazard("H7")
@pytest.mark.parametrize(
    ("whole", "part"),
    [
        ({"contrast_agent": "ohne KM"}, {}),
        ({"series_description": "CTA Head"}, {}),
        ({"kernel": "X"}, {"slice_distances_mm": SLICES[:16]}),
        ({"image_type": ("DERIVED", "SECONDARY", "MPR")}, {"slice_distances_mm": SLICES[:16]}),
    ],
)
def test_a_whole_series_is_not_ranked_behind_a_part_of_it_because_of_a_word(whole, part):
    limits = load_limits(_shipped_text().replace('CONTRAST = "refuse"', 'CONTRAST = "flag"'))
    rest = {"slice_distances_mm": SLICES[:22], "series_number": 7, **part}
    study = [*series(**{"series_description": "whole", **whole}), *series(**rest, seed=1)]
    for instance in study:
        instance.StudyInstanceUID = "1.2.3"
    (accepted,) = select(study, limits).accepted
    assert accepted.instances == len(SLICES)


REFORMATS = {
    "Philips": (("DERIVED", "SECONDARY", "MPR"), "Philips", "UC"),
    "Siemens": (("DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MPR"), "SIEMENS", "H31s"),
    "GE": (("DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"), "GE MEDICAL SYSTEMS", "STANDARD"),
    "Canon": (("DERIVED", "PRIMARY", "MPR"), "CANON_MEC", "FC68"),
    "GE, lossy": (("DERIVED", "PRIMARY", "AXIAL"), "GE MEDICAL SYSTEMS", "STD+"),
}


@pytest.mark.hazard("H7")
@pytest.mark.parametrize("vendor", REFORMATS)
def test_an_axial_reformat_is_taken_with_a_flag_unless_the_policy_refuses_it(vendor):
    image_type, manufacturer, kernel = REFORMATS[vendor]
    reformat = series(image_type=image_type, manufacturer=manufacturer, kernel=kernel)
    candidate = only(reformat)
    assert (candidate.decision, candidate.codes) == ("accepted", ("DERIVED",))
    assert "policy.DERIVED" in candidate.sentence
    refusing = load_limits(_shipped_text().replace('DERIVED = "flag"', 'DERIVED = "refuse"'))
    assert (only(reformat, refusing).decision, only(reformat, refusing).codes) == (
        "refused", ("DERIVED",),
    )  # fmt: skip


@pytest.mark.hazard("H7")
def test_an_original_series_that_would_do_is_preferred_to_its_reformat():
    original = series(series_description="a", series_number=9)
    reformat = series(
        series_description="b", series_number=2, image_type=("DERIVED", "SECONDARY", "MPR")
    )
    selection = select([*reformat, *original], LIMITS)
    assert [c.series_description for c in selection.accepted] == ["a"]
    other = next(c for c in selection.candidates if c.decision == "refused")
    assert other.codes == ("NOT-PREFERRED", "DERIVED")
    assert "original images" in other.sentence


@pytest.mark.hazard("H7")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_type": ("DERIVED", "SECONDARY", "MIP")}, "projections"),
        ({"image_type": ("DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP")}, "projections"),
        ({"image_type": ("DERIVED", "SECONDARY", "MIN IP")}, "projections"),
        ({"image_type": ("DERIVED", "PRIMARY", "AXIAL", "SUBTRACTION")}, "differences"),
        ({"image_type": ("DERIVED", "PRIMARY", "AXIAL", "SUB")}, "differences"),
        ({"image_type": ("DERIVED", "SECONDARY", "AXIAL", "AVERAGE")}, "averages"),
        ({"image_type": ("DERIVED", "SECONDARY", "AXIAL", "CT_SOM8 DEOC")}, "blends"),
        ({"image_type": ("DERIVED", "SECONDARY", "SCREEN SAVE")}, "captures"),
        ({"image_type": ("DERIVED", "SECONDARY", "MPR"), "kernel": "X"}, "kernel"),
        (
            {"image_type": ("DERIVED", "SECONDARY", "OTHER"), "series_description": "Ax MIP"},
            "description says MIP",
        ),
        (
            {
                "image_type": ("DERIVED", "SECONDARY", "MPR"),
                "orientation": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
            },
            "not axial",
        ),
        ({"image_type": ()}, "absent"),
    ],
)
def test_what_is_no_axial_reformat_stays_refused_and_is_named(change, said):
    candidate = only(series(**change))
    assert (candidate.decision, candidate.codes[0]) == ("refused", "DERIVED")
    assert said in candidate.sentence


@pytest.mark.hazard("H7")
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("DERIVED", "SECONDARY", "AXIAL", "CT_SOM7 VPCT", "BF"), "says BF"),
        (("ORIGINAL", "PRIMARY", "AXIAL", "GSI MD"), "GSI MD"),
        (("ORIGINAL", "PRIMARY", "AXIAL", "VNC"), "VNC"),
        (("DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"), "MAT_SPECIFIC"),
        (("DERIVED", "PRIMARY", "AXIAL", "CBF"), "CBF"),
        (("ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 MON"), "bolus"),
    ],
)
def test_what_is_no_hounsfield_slice_is_refused_by_its_image_type(values, said):
    candidate = only(series(image_type=values))
    assert (candidate.decision, candidate.codes) == ("refused", ("IMAGE-TYPE",))
    assert said in candidate.sentence


def test_slices_reconstructed_after_the_examination_are_original():
    assert only(series(image_type=("ORIGINAL", "SECONDARY", "AXIAL"))).codes == ()


@pytest.mark.parametrize("energy", ["VMI", "MONO_70KEV", "MONOENERGETIC", "ME60KEV", "GSI MONO 70"])
def test_a_monoenergetic_series_is_left_to_the_policy(energy):
    mono = series(image_type=("ORIGINAL", "PRIMARY", "AXIAL", energy))
    assert only(mono).codes == ("SPECTRAL",)
    assert only(mono).decision == "refused"
    flagging = load_limits(_shipped_text().replace('SPECTRAL = "refuse"', 'SPECTRAL = "flag"'))
    assert only(mono, flagging).decision == "accepted"


@pytest.mark.parametrize(
    "values",
    [
        ("MIXED",), ("NORM",), ("HELIX",), ("VOLUME",), ("ADD",), ("NORMAL",), ("CT_SOM5 SEQ",),
        ("CT_SOM7 SPI DUAL", "STD", "SNRG", "DET_AB"), ("CT_SOM10 DET3D", "T1", "COUNT_2SRC"),
    ],
)  # fmt: skip
def test_the_words_of_plain_images_say_nothing(values):
    assert only(series(image_type=("ORIGINAL", "PRIMARY", "AXIAL", *values))).codes == ()


@pytest.mark.parametrize("times", [3, 5])
def test_a_series_in_time_is_refused_by_name(times):
    candidate = only(perfusion(times))
    assert (candidate.decision, candidate.codes[0]) == ("refused", "TEMPORAL")
    assert f"{times} times" in candidate.sentence


def test_slices_that_all_have_one_position_are_said_to_have_one():
    candidate = only(changed(replaced("ImagePositionPatient", [0.0, 0.0, 0.0])))
    assert (candidate.decision, candidate.codes[0]) == ("refused", "TEMPORAL")
    assert "28 slices have one position" in candidate.sentence


@pytest.mark.hazard("H5")
def test_a_scout_within_a_series_is_set_aside_and_nothing_of_it_is_judged():
    instances = with_scout()
    instances[0].FrameOfReferenceUID = "1.2.3.4.5"
    candidate = only(instances)
    assert (candidate.decision, candidate.codes) == ("accepted", ("LOCALIZER-SET-ASIDE",))
    assert "1 of 29 images" in candidate.sentence
    assert candidate.instances == 29
    assert "slices: 28, instances: 29" in candidate.explanation


@pytest.mark.parametrize(
    ("word", "codes"),
    [
        ("KOPF", ("BODY-PART",)), ("CABEZA", ("BODY-PART",)), ("ГОЛОВА", ("BODY-PART",)),
        ("CRÁNEO", ("BODY-PART",)), ("HEADNECK", ()), ("UNKNOWN", ()), ("", ()),
        ("CHEST", ("NOT-HEAD",)), ("CSPINE", ("NOT-HEAD",)), ("NECK", ("NOT-HEAD",)),
        ("Thorax", ("NOT-HEAD",)), ("BAUCH", ("NOT-HEAD",)), ("COL CERVICALE", ("BODY-PART",)),
    ],
)  # fmt: skip
def test_an_unknown_body_part_is_left_to_the_pixels_and_another_is_refused(word, codes):
    instances = changed(replaced("SpecificCharacterSet", "ISO_IR 192"))
    for instance in instances:
        tag = tag_for_keyword("BodyPartExamined")
        instance[tag] = DataElement(tag, "LO", word)
    candidate = only(instances)
    assert candidate.codes == codes
    assert not codes or "series.body_parts" in candidate.sentence


def test_a_site_adds_its_own_word_for_a_head():
    text = _shipped_text().replace('"NEURO"]', '"NEURO", "KOPF"]')
    assert only(changed(replaced("BodyPartExamined", "KOPF")), load_limits(text)).codes == ()


@pytest.mark.hazard("H10")
@pytest.mark.parametrize(("policy", "decision"), [("flag", "accepted"), ("refuse", "refused")])
def test_an_age_that_nothing_tells_is_left_to_the_policy(policy, decision):
    limits = load_limits(_shipped_text().replace('UNKNOWN = "flag"', f'UNKNOWN = "{policy}"'))
    candidate = only(changed(without_age), limits)
    assert (candidate.decision, candidate.codes) == (decision, ("AGE-UNKNOWN",))
    assert "Birth Date" in candidate.sentence


@pytest.mark.hazard("H10")
@pytest.mark.parametrize(
    ("age", "born", "codes"),
    [
        ("060Y", "19660101", ()),
        ("060Y", "1965", ()),
        ("040Y", "19660101", ("AGE-UNKNOWN",)),
        ("060Y", "19100101", ("AGE-UNKNOWN",)),  # what de-identification writes
        ("060Y", "20180101", ("AGE-UNKNOWN", "AGE")),
        ("008Y", "19660101", ("AGE-UNKNOWN", "AGE")),
    ],
)
def test_an_age_that_contradicts_the_birth_date_is_told_and_a_child_is_refused(age, born, codes):
    def written(instances):
        for instance in instances:
            instance.PatientAge, instance.StudyDate = age, "20260102"
            instance.add_new("PatientBirthDate", "LO", born)

    candidate = only(changed(written))
    assert set(candidate.codes) == set(codes)
    assert candidate.decision == ("refused" if "AGE" in codes else "accepted")


def test_noise_in_thickness_and_position_is_one_thickness_everywhere():
    instances = series()
    for place, instance in enumerate(instances):
        instance.SliceThickness = ("4.998", "5.002")[place % 2]
    candidate = only(instances)
    assert candidate.codes == ()
    assert "slice thickness 5 mm" in candidate.explanation


def test_slices_that_overlap_evenly_are_accepted():
    distances = tuple(-66.0 + 3.0 * k for k in range(46))
    candidate = only(series(slice_distances_mm=distances, slice_thickness_mm=4.0))
    assert (candidate.decision, candidate.codes) == ("accepted", ())


def test_a_limits_file_that_is_older_than_a_code_means_what_it_meant():
    text = _shipped_text()
    for line in ('AGE-UNKNOWN = "flag"', 'SPECTRAL = "refuse"', 'DERIVED = "flag"'):
        assert line in text
        text = "\n".join(row for row in text.splitlines() if not row.startswith(line))
    limits = load_limits(text)
    assert limits.severity("DERIVED") == "refuse"
    assert limits.severity("SPECTRAL") == "refuse"
    assert limits.severity("AGE-UNKNOWN") == "flag"


@pytest.mark.parametrize(
    ("position", "orientation"),
    [("HFS", None), ("FFS", None), ("HFP", None), ("FFP", None), ("HFDR", None)],
)
def test_axial_is_read_from_the_cosines_in_every_patient_position(position, orientation):
    candidate = only(series(patient_position=position, orientation=orientation, shuffled=True))
    assert candidate.decision == "accepted"


def test_a_series_without_instance_numbers_is_accepted():
    assert only(series(instance_numbers=False)).decision == "accepted"


def test_an_enhanced_ct_is_judged_frame_by_frame():
    instance = enhanced_ct(
        rows=4, columns=4, pixel_spacing_mm=(57.0, 57.0), slice_distances_mm=SLICES
    )
    candidate = only([instance])
    assert candidate.instances == 1
    assert "slices: 28, instances: 1" in candidate.explanation
    assert set(candidate.codes) <= {"SIZE", "KERNEL-UNKNOWN", "NOT-HEAD"}


@pytest.mark.hazard("H1")
@pytest.mark.parametrize("keyword", IDENTITY_FIELDS)
def test_one_differing_identity_field_refuses_the_series(keyword):
    instances = series()
    other = {"PatientBirthDate": "19760102", "StudyDate": "20260103", "StudyTime": "111111",
             "PatientSex": "F", "Modality": "PT"}.get(keyword, "1.2.3.4")  # fmt: skip
    setattr(instances[5], keyword, other)
    found = [c for c in select(instances, LIMITS).candidates if c.instances > 1]
    if keyword in {"SeriesInstanceUID", "StudyInstanceUID"}:  # the slice is then another series
        assert found[0].instances == len(instances) - 1
        assert "GEOM-GAP" in found[0].codes
    else:
        assert "ID-MIXED" in found[0].codes
        sentence = next(f.sentence for f in found[0].findings if f.code == "ID-MIXED")
        assert keyword in sentence
        assert ("two patients" in sentence) == (IDENTITY_FIELDS.index(keyword) < 5)
        assert ("two examinations" in sentence) == (5 <= IDENTITY_FIELDS.index(keyword) < 10)


@pytest.mark.hazard("H1")
def test_slices_of_two_patients_in_any_mixture_are_refused():
    accepted = []
    base = series()
    for seed in range(MIXED_CASES):
        rng = np.random.default_rng(seed)
        field = str(rng.choice(["PatientID", "PatientName", "PatientBirthDate", "AccessionNumber"]))
        second = rng.random(len(base)) < rng.uniform(0.02, 0.98)
        second[rng.permutation(len(base))[:2]] = True, False
        own = base[0][field].value
        for instance in compress(base, second):
            setattr(instance, field, "19500101" if field == "PatientBirthDate" else f"OTHER{seed}")
        candidate = only([base[k] for k in rng.permutation(len(base))])
        if candidate.decision == "accepted" or "ID-MIXED" not in candidate.codes:
            accepted.append((seed, field, candidate.codes))
        for instance in base:
            setattr(instance, field, own)
    assert accepted == []
    assert only(base).decision == "accepted"  # each case was mixed by itself alone


@pytest.mark.hazard("H2")
def test_two_patients_in_one_study_refuse_every_series_of_it():
    study_uid = "1.2.3"
    first = series(study_uid=study_uid)
    second = series(study_uid=study_uid, patient_id="PHANTOM-2", series_number=4)
    selection = select([*first, *second], LIMITS)
    assert selection.accepted == ()
    assert {c.codes[0] for c in selection.candidates} == {"ID-MIXED"}


def mark_by_equipment(instance):
    purpose, equipment = Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = (
        marks.SYNTHESIZING_EQUIPMENT
    )
    equipment.Manufacturer = "ANYBODY"
    equipment.PurposeOfReferenceCodeSequence = Items([purpose])
    instance.ContributingEquipmentSequence = Items([equipment])


MARKS = {
    "synthetic data": lambda i: setattr(i, "SyntheticData", "YES"),
    "image type": lambda i: setattr(i, "ImageType", ["ORIGINAL", "PRIMARY", "OTHER", "SYNTHETIC"]),
    "manufacturer": lambda i: setattr(i, "Manufacturer", marks.MANUFACTURER),
    "model name": lambda i: setattr(i, "ManufacturerModelName", marks.MODEL_NAME),
    "description": lambda i: setattr(i, "SeriesDescription", "SYNTH MR T1 x"),
    "equipment": mark_by_equipment,
    "private block": lambda i: i.private_block(
        marks.PRIVATE_GROUP, marks.PRIVATE_CREATOR, create=True
    ),
}


@pytest.mark.hazard("H6")
@pytest.mark.hazard("H21")
@pytest.mark.parametrize("mark", MARKS)
def test_one_mark_of_syntheticness_on_one_instance_is_enough(mark):
    instances = series()
    MARKS[mark](instances[9])
    candidate = only(instances)
    assert candidate.decision == "refused"
    assert candidate.codes[0] == "SRC-SYNTHETIC"


@pytest.mark.hazard("H1")
@pytest.mark.parametrize(
    ("declared", "name", "found"),
    [
        ("ISO_IR 100", "Müller^Jürgen", False),
        ("ISO_IR 192", "山田^太郎", False),
        (None, "PHANTOM^HEAD", False),
        (None, "Müller^Jürgen", True),
        ("ISO_IR 999", "PHANTOM^HEAD", True),
    ],
)
def test_a_name_that_cannot_be_read_as_declared_is_refused(declared, name, found):
    instances = series()
    for instance in instances:
        if declared is None:
            del instance.SpecificCharacterSet
        else:
            instance.SpecificCharacterSet = declared
        instance.PatientName = name
    assert ("CHARSET" in only(instances).codes) is found


@pytest.mark.hazard("H22")
def test_no_sentence_tells_a_name_or_a_free_text_of_the_source():
    planted = "ZZPLANTED"
    study = [
        *series(series_description=planted, patient_name=f"{planted}^X", kernel=planted[:8]),
        *localizer(series_description=planted, patient_name=f"{planted}^X"),
        *derived_mpr(series_description=planted, contrast_agent=planted),
    ]
    for instance in study:
        instance.BodyPartExamined = planted
    study[3].PatientID = planted
    for candidate in select(study, LIMITS).candidates:
        told = [*candidate.explanation, *(str(f) for f in candidate.findings), repr(candidate)]
        assert "ZZPL" not in " ".join(told)


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        ({"kernel": "H31s"}, {"kernel": "X"}, "a soft-tissue kernel"),
        ({}, {"slice_distances_mm": SLICES[:24]}, "the longer coverage"),
        ({"slice_thickness_mm": 5.0}, {"slice_thickness_mm": 4.5}, "the preferred thickness"),
        ({"series_number": 2}, {"series_number": 3}, "the lower series number"),
    ],
)
def test_of_two_that_would_do_one_is_accepted_and_the_other_told_why(better, worse, why):
    first = series(series_description="a", **better)
    second = series(series_description="b", **{"series_number": 7, **worse})
    for study in ([*first, *second], [*second, *first]):
        selection = select(study, LIMITS)
        (accepted,) = selection.accepted
        assert accepted.series_description == "a"
        (other,) = (c for c in selection.candidates if c.decision == "refused")
        assert other.codes[0] == "NOT-PREFERRED"
        assert why in other.sentence
        assert f"preferred for {why}" in accepted.explanation


def test_two_studies_are_judged_apart():
    selection = select([*series(study_uid="1.2.3"), *series(study_uid="1.2.4", seed=1)], LIMITS)
    assert len(selection.accepted) == 2


def test_an_empty_study_gives_an_empty_selection():
    assert select([], LIMITS).candidates == ()


@pytest.mark.parametrize(
    ("vendor", "kernel", "kind"),
    [
        ("TOSHIBA", "FC63", "soft"),
        ("TOSHIBA", "FC21", "soft"),
        ("TOSHIBA", "FC30", "bone"),
        ("TOSHIBA", "FC81", "bone"),
        ("TOSHIBA", "FL03", "unknown"),
        ("CANON_MEC", "FC68", "soft"),
        ("SIEMENS", "H31s", "soft"),
        ("SIEMENS", "H70h", "bone"),
        ("SIEMENS", "J40s\\3", "soft"),
        ("Siemens Healthineers", "Hr40f\\3", "soft"),
        ("Siemens Healthineers", "Hr68h\\3", "bone"),
        ("Siemens Healthineers", "Hc40", "soft"),
        ("Siemens Healthineers", "Qr32d\\3", "soft"),
        ("Siemens Healthineers", "Br59d\\3", "bone"),
        ("SIEMENS", "B08s", "soft"),
        ("SIEMENS", "U75u", "bone"),
        ("GE MEDICAL SYSTEMS", "STANDARD", "soft"),
        ("GE MEDICAL SYSTEMS", "SOFT", "soft"),
        ("GE MEDICAL SYSTEMS", "BONEPLUS", "bone"),
        ("GE MEDICAL SYSTEMS", "BONE", "bone"),
        ("GE MEDICAL SYSTEMS", "STD+", "soft"),
        ("GE MEDICAL SYSTEMS", "SOFT#", "soft"),
        ("GE MEDICAL SYSTEMS", "STANDARDPLUS2", "soft"),
        ("GE MEDICAL SYSTEMS", "HD SOFT", "soft"),
        ("GE MEDICAL SYSTEMS", "StandardHD", "soft"),
        ("GE MEDICAL SYSTEMS", "BONEPLUS2", "bone"),
        ("GE MEDICAL SYSTEMS", "HD LUNG", "bone"),
        ("GE MEDICAL SYSTEMS", "DETAILPLUS2", "bone"),
        ("GE MEDICAL SYSTEMS", "CHST", "unknown"),
        ("Philips", "UB", "soft"),
        ("Philips", "YD", "bone"),
        ("Philips", "UC", "soft"),
        ("Philips", "SD", "soft"),
        ("Philips", "HA", "soft"),
        ("Philips", "IMR1,Soft Tissue", "soft"),
        ("Philips", "CD", "bone"),
        ("CANON_MEC", "BODY SHARP", "bone"),
        ("TOSHIBA", "FC13-H", "soft"),
        ("TOSHIBA", "FC04", "unknown"),
        ("UIH", "H_VSHARP_C", "bone"),
        ("UIH", "H_SOFT_B", "soft"),
        ("ANYBODY", "BONE SHARP", "bone"),
        ("ANYBODY", None, "unknown"),
        (None, "FC63", "unknown"),
    ],
)
def test_kernels_are_told_apart_by_vendor(vendor, kernel, kind):
    assert kernel_kind(vendor, kernel, LIMITS.kernels) == kind
