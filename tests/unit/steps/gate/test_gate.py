"""The gate lets a good set pass and refuses every damage by the name of its rule."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from rebrain_node.domain.job import Predecessor
from rebrain_node.errors import GateRefused
from rebrain_node.steps.gate import gate
from rebrain_node.steps.gate.evidence import read
from rebrain_node.steps.gate.judge import COMPANIONS, judge
from rebrain_node.steps.gate.table import RULES
from rebrain_node.steps.write import ObjectOptions, write
from tests.support.phantoms import enhanced_ct, head_ct
from tests.support.synthetic_volumes import provenance
from tests.unit.steps.gate import damages_companions, damages_enhanced, damages_mr
from tests.unit.steps.gate.forge import SOURCE, Set, source_and_provenance, t1_like

DAMAGES = {**damages_mr.DAMAGES, **damages_companions.DAMAGES}
PAGE = Path(__file__).resolve().parents[4] / "docs/gate.md"


@pytest.fixture(scope="module")
def result():
    source, made_by = source_and_provenance()
    volume = t1_like(source, SOURCE)
    return write(volume, source, made_by, (), ObjectOptions()), source


@pytest.fixture
def good(result):
    return Set.of(*result, COMPANIONS).copy()


def codes(good, rules=RULES):
    evidence = read(good.derived(), good.source, good.companions, good.mr_form)
    return [finding.code for finding in judge(evidence, rules)]


def test_an_untouched_set_passes(result):
    derived, source = result
    gate(derived, source)


ENHANCED = ObjectOptions(mr="enhanced")


@pytest.fixture(scope="module")
def enhanced_result():
    source, made_by = source_and_provenance()
    return write(t1_like(source, SOURCE), source, made_by, (), ENHANCED), source


@pytest.fixture
def enhanced(enhanced_result):
    return Set.of(*enhanced_result, COMPANIONS, "enhanced").copy()


def test_an_untouched_enhanced_mr_passes(enhanced_result):
    derived, source = enhanced_result
    gate(derived, source, mr_form="enhanced")


@pytest.mark.hazard("H6")
@pytest.mark.parametrize("name", damages_enhanced.DAMAGES)
def test_a_damage_to_an_enhanced_mr_is_refused_by_its_rule_and_by_no_other(name, enhanced):
    code, damage = damages_enhanced.DAMAGES[name]
    damage(enhanced)
    assert codes(enhanced) == [code]


def test_a_form_of_the_mr_that_the_site_did_not_ask_for_is_refused(good, enhanced):
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
    good = Set.of(derived, source, COMPANIONS)
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
    assert judged(replace(SOURCE, character_set=character_set, patient_name=patient_name)) == []


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
    assert judged(replace(SOURCE, **changes)) == []


def test_a_good_set_from_an_enhanced_ct_passes():
    assert judged(SOURCE, [enhanced_ct(SOURCE)]) == []


def judged(spec, source=None):
    source = source or head_ct(spec)
    made_by = provenance(source_series_uid=str(source[0].SeriesInstanceUID))
    derived = write(t1_like(source, spec), source, made_by, (), ObjectOptions())
    return [finding.code for finding in judge(read(derived, source, COMPANIONS), RULES)]


def test_a_set_laid_open_and_encoded_again_passes(good):
    # Negative control of the forge: without a damage nothing is found.
    assert codes(good) == []


@pytest.mark.hazard("H6")
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_refused_by_its_rule_and_by_no_other(name, good):
    code, damage = DAMAGES[name]
    damage(good)
    assert codes(good) == [code]


def test_every_rule_alone_finds_some_damage():
    # With the test above: take any rule out of the table and a damage passes unseen.
    assert {code for code, _ in DAMAGES.values()} == {rule.code for rule in RULES}
    assert len(DAMAGES) >= 40


def test_the_refusal_names_the_rules_and_where_they_are_broken(good):
    good.mr[2].SyntheticData = good.mr[5].SyntheticData = "NO"
    good.mr[1].PatientID = "OTHER-SECRET"
    with pytest.raises(GateRefused) as refused:
        gate(good.derived(), good.source)
    found = {finding.code: finding for finding in refused.value.findings}
    assert list(found) == ["GATE-PATIENT", "GATE-SYNTHETIC-DATA"]
    assert "MR 3: SyntheticData is NO, not YES, and 1 more" in found["GATE-SYNTHETIC-DATA"].sentence
    assert "MR 2: PatientID is not the source's" in found["GATE-PATIENT"].sentence


def test_no_refusal_names_the_patient(good):
    for dataset in good.all:
        dataset.PatientName, dataset.PatientID = "SECRET^NAME", "SECRET-1"
        dataset.StudyInstanceUID = damages_mr.FOREIGN_UID
    with pytest.raises(GateRefused) as refused:
        gate(good.derived(), good.source)
    words = str(refused.value)
    for secret in ("SECRET", str(good.source[0].PatientName), str(good.source[0].PatientID)):
        assert secret not in words


def test_a_rule_that_stumbles_counts_as_broken(good):
    for dataset in good.mr:
        dataset.SpacingBetweenSlices = None
    assert "GATE-SPACING" in codes(good)


def test_a_set_without_slices_is_refused(good):
    good.objects = [pair for pair in good.objects if pair[0] != "MR"]
    assert "GATE-COMPLETE" in codes(good)


@pytest.mark.parametrize("companions", [(), ("PM",), ("SR", "KOS")])
def test_a_site_may_ask_for_fewer_companions(result, companions):
    source, made_by = result[1], source_and_provenance()[1]
    options = ObjectOptions(companions=companions)
    gate(write(t1_like(source, SOURCE), source, made_by, (), options), source, companions)


def test_a_map_of_whole_numbers_passes_too(result):
    source, made_by = result[1], source_and_provenance()[1]
    options = ObjectOptions(companions=("PM",), map_precision="uint16")
    gate(write(t1_like(source, SOURCE), source, made_by, (), options), source, ("PM",))


def test_the_page_lists_every_rule_with_its_demand_and_no_other():
    page = PAGE.read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(GATE-[A-Z-]+)` \| ([^|]+) \|", page, re.MULTILINE))
    assert {code: demand.strip() for code, demand in listed.items()} == {
        rule.code: rule.demand for rule in RULES
    }
