"""The gate passes a valid set and refuses every damage by the code of its rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from rebrain_node.domain.job import Predecessor
from rebrain_node.domain.volume import StoredRange
from rebrain_node.errors import GateError
from rebrain_node.steps.gate import COMPANIONS, RULES, gate
from rebrain_node.steps.gate.context import read
from rebrain_node.steps.gate.rules import evaluate
from rebrain_node.steps.write import ObjectOptions, write
from tests.support.phantoms import enhanced_ct, head_ct
from tests.support.synthetic_volumes import provenance
from tests.unit.steps.gate import damaged_companions, damaged_enhanced_mr, damaged_mr
from tests.unit.steps.gate.editable_set import SOURCE, EditableSet, source_and_provenance, t1_like

DAMAGES = {**damaged_mr.DAMAGES, **damaged_companions.DAMAGES}


@pytest.fixture(scope="module")
def result():
    source, made_by = source_and_provenance()
    volume = t1_like(source, SOURCE)
    return write(volume, source, made_by, (), ObjectOptions(map_precision="float32")), source


@pytest.fixture
def good(result):
    return EditableSet.of(*result, COMPANIONS)


ENHANCED = ObjectOptions(mr="enhanced", map_precision="float32")


def violated(derived, source, companions=COMPANIONS, mr_form="classic"):
    """Codes of the violated rules."""
    context = read(derived, source, companions, mr_form)
    return [finding.code for finding in evaluate(context, RULES)]


def codes(good):
    return violated(good.derived(), good.source, good.companions, good.mr_form)


def test_an_untouched_set_passes(result):
    derived, source = result
    gate(derived, source)


@pytest.fixture(scope="module")
def enhanced_result():
    source, made_by = source_and_provenance()
    return write(t1_like(source, SOURCE), source, made_by, (), ENHANCED), source


@pytest.fixture
def enhanced(enhanced_result):
    return EditableSet.of(*enhanced_result, COMPANIONS, "enhanced")


def test_an_untouched_enhanced_mr_passes(enhanced_result):
    derived, source = enhanced_result
    gate(derived, source, mr_form="enhanced")


@pytest.mark.parametrize("mr", ["classic", "enhanced"])
@pytest.mark.parametrize("black", [0, 96])
def test_a_set_with_a_white_frame_passes(mr, black):
    source, made_by = source_and_provenance()
    stored_range = StoredRange(black=black, white=3095)
    volume = replace(t1_like(source, SOURCE), stored_range=stored_range)
    derived = write(volume, source, made_by, (), ObjectOptions(mr=mr, ink="border"))
    context = read(derived, source, COMPANIONS, mr, stored_range=stored_range)
    assert any((pixels.stored[0] == 3095).all() for pixels in context.mr_pixels)
    assert [finding.code for finding in evaluate(context, RULES)] == []


NARROW = StoredRange(black=1000, white=2000)


def with_range(stored_range, mr="classic", **changes):
    """A written set of the range given, and its source."""
    source, made_by = source_and_provenance()
    volume = replace(t1_like(source, SOURCE), stored_range=stored_range, **changes)
    return write(volume, source, made_by, (), ObjectOptions(mr=mr)), source


def codes_in_range(stored_range, derived, source):
    context = read(derived, source, COMPANIONS, stored_range=stored_range)
    return [finding.code for finding in evaluate(context, RULES)]


@pytest.mark.parametrize("mr", ["classic", "enhanced"])
@pytest.mark.parametrize("stored_range", [NARROW, StoredRange(black=96, white=3095)])
def test_a_set_with_another_range_of_stored_values_passes(mr, stored_range):
    derived, source = with_range(stored_range, mr)
    gate(derived, source, mr_form=mr, stored_range=stored_range)


def test_two_slices_of_air_are_no_repetition_where_black_is_not_zero(result):
    intensity = t1_like(result[1], SOURCE).intensity
    intensity[-2:] = 0.0
    derived, source = with_range(NARROW, intensity=intensity)
    assert "GATE-PIXEL-REPEATED" not in codes_in_range(NARROW, derived, source)


def test_values_outside_the_recipe_s_range_are_refused():
    derived, source = with_range(StoredRange(black=1000, white=2120))
    assert codes_in_range(NARROW, derived, source) == ["GATE-PIXEL-RANGE"]
    derived, source = with_range(StoredRange(black=999, white=2000))
    assert codes_in_range(NARROW, derived, source) == ["GATE-PIXEL-RANGE"]


def test_an_image_that_is_clipped_at_the_recipe_s_white_is_refused(result):
    intensity = t1_like(result[1], SOURCE).intensity
    intensity[1::2] = np.where(intensity[1::2] > 0.4, 1.0, intensity[1::2])
    derived, source = with_range(NARROW, intensity=intensity)
    assert codes_in_range(NARROW, derived, source) == ["GATE-PIXEL-SATURATED"]


@pytest.mark.hazard("H6")
@pytest.mark.parametrize("name", damaged_enhanced_mr.DAMAGES)
def test_a_damage_to_an_enhanced_mr_is_refused_by_its_rule_and_by_no_other(name, enhanced):
    code, damage = damaged_enhanced_mr.DAMAGES[name]
    damage(enhanced)
    assert codes(enhanced) == [code]


def test_a_form_of_the_mr_that_the_site_does_not_request_is_refused(good, enhanced):
    good.mr_form, enhanced.mr_form = "enhanced", "classic"
    assert "GATE-SOP-CLASS" in codes(good)
    assert "GATE-SOP-CLASS" in codes(enhanced)


def test_a_later_revision_names_the_one_before(result):
    source = result[1]
    before = Predecessor(
        revision=1, mr_series_uid="2.25.1", report_series_uid="2.25.2", report_uid="2.25.3"
    )
    made_by = replace(source_and_provenance()[1], revision=2, predecessor=before)
    derived = write(t1_like(source, SOURCE), source, made_by, (), ObjectOptions())
    good = EditableSet.of(derived, source, COMPANIONS)
    assert codes(good) == []
    del good.of_kind("SR")[0].PredecessorDocumentsSequence
    assert codes(good) == ["GATE-PREDECESSOR"]


NAMES = {
    "Japanese": (r"\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Korean": (r"\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동"),
    "Greek": ("ISO_IR 126", "Διονυσιος"),
    "none": (None, "PLAIN^NAME"),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_source_may_write_names_in_any_script(name):
    character_set, patient_name = NAMES[name]
    assert (
        violated_by_set_of(replace(SOURCE, character_set=character_set, patient_name=patient_name))
        == []
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"slice_distances_mm": (-30.0, -26.0, -19.0, 2.0, 9.0, 30.0)},
        {"gantry_tilt_deg": -27.0},
        {"orientation": (0.9961947, 0.0871557, 0.0, -0.0871557, 0.9961947, 0.0)},
        {"padding": -2048, "declare_padding": False},
        {"extra": {"SeriesNumber": None, "LossyImageCompression": "01"}},
        {"extra": {"AcquisitionDate": "", "ContentDate": "", "SeriesDate": "", "StudyDate": ""}},
    ],
    ids=["irregular", "tilted", "oblique", "padded", "lossy", "undated"],
)
def test_a_good_set_from_an_everyday_source_passes(changes):
    assert violated_by_set_of(replace(SOURCE, **changes)) == []


def test_a_good_set_from_an_enhanced_ct_passes():
    assert violated_by_set_of(SOURCE, [enhanced_ct(SOURCE)]) == []


def violated_by_set_of(spec, source=None):
    source = source or head_ct(spec)
    made_by = provenance(source_series_uid=str(source[0].SeriesInstanceUID))
    return violated(write(t1_like(source, spec), source, made_by, (), ObjectOptions()), source)


def test_a_set_that_is_parsed_and_encoded_again_passes(good):
    # Negative control of the editable set: without a damage nothing is found.
    assert codes(good) == []


@pytest.mark.hazard("H6")
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_refused_by_its_rule_and_by_no_other(name, good):
    code, damage = DAMAGES[name]
    damage(good)
    assert codes(good) == [code]


def test_every_rule_is_the_only_one_to_find_some_damage():
    # With the test above: without any one of the rules a damage would pass undetected.
    assert {code for code, _ in DAMAGES.values()} == {rule.code for rule in RULES}


def test_every_rule_has_a_code_of_its_own_a_requirement_and_a_reason():
    assert len({rule.code for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.code.startswith("GATE-")
        assert rule.requirement.endswith("."), rule.code
        assert rule.why.endswith("."), rule.code


def test_the_refusal_names_the_rules_and_where_they_are_violated(good):
    good.mr[2].SyntheticData = good.mr[5].SyntheticData = "NO"
    good.mr[1].PatientID = "OTHER-SECRET"
    with pytest.raises(GateError) as refused:
        gate(good.derived(), good.source)
    found = {finding.code: finding for finding in refused.value.findings}
    assert list(found) == ["GATE-PATIENT", "GATE-SYNTHETIC-DATA"]
    assert "MR 3: SyntheticData is NO, not YES, and 1 more" in found["GATE-SYNTHETIC-DATA"].sentence
    assert "MR 2: PatientID is not the source's" in found["GATE-PATIENT"].sentence


def test_a_value_that_cannot_be_decoded_is_refused_in_every_object_that_has_it(good):
    for image in good.mr[1:3]:
        tag = Tag("SimpleFrameList")  # numbers of four bytes
        item = image.ContributingEquipmentSequence[0]
        item[tag] = RawDataElement(tag, "UL", 6, b"123456", 0, False, True)
    with pytest.raises(GateError) as refused:
        gate(good.derived(), good.source)
    found = {finding.code: finding for finding in refused.value.findings}
    assert "MR 2: BytesLengthException" in found["GATE-READABLE"].sentence
    assert "and 1 more" in found["GATE-READABLE"].sentence


def test_no_refusal_names_the_patient(good):
    for dataset in good.all:
        dataset.PatientName, dataset.PatientID = "SECRET^NAME", "SECRET-1"
        dataset.StudyInstanceUID = damaged_mr.FOREIGN_UID
    with pytest.raises(GateError) as refused:
        gate(good.derived(), good.source)
    message = str(refused.value)
    for secret in ("SECRET", str(good.source[0].PatientName), str(good.source[0].PatientID)):
        assert secret not in message


def test_a_rule_that_cannot_be_evaluated_counts_as_violated(good):
    for dataset in good.mr:
        dataset.SpacingBetweenSlices = None
    assert "GATE-SPACING" in codes(good)


def test_a_set_without_slices_is_refused(good):
    good.objects = [pair for pair in good.objects if pair[0] != "MR"]
    assert "GATE-COMPLETE" in codes(good)


@pytest.mark.parametrize("companions", [(), ("PM",), ("SR", "KOS")])
def test_a_site_may_request_fewer_companions(result, companions):
    source, made_by = result[1], source_and_provenance()[1]
    options = ObjectOptions(companions=companions)
    gate(write(t1_like(source, SOURCE), source, made_by, (), options), source, companions)


def test_a_map_of_whole_numbers_passes_too(result):
    source, made_by = result[1], source_and_provenance()[1]
    options = ObjectOptions(companions=("PM",), map_precision="uint16")
    gate(write(t1_like(source, SOURCE), source, made_by, (), options), source, ("PM",))
