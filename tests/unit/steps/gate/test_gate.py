"""The gate lets a good set pass and refuses every damage by the name of its rule."""

from __future__ import annotations

import pytest

from rebrain_node.errors import GateRefused
from rebrain_node.steps.gate import gate
from rebrain_node.steps.write import ObjectOptions, write
from tests.unit.steps.gate.damages_mr import DAMAGES
from tests.unit.steps.gate.forge import SOURCE, Set, source_and_provenance, t1_like

COMPANIONS = ()


@pytest.fixture(scope="module")
def result():
    source, made_by = source_and_provenance()
    volume = t1_like(source, SOURCE)
    return write(volume, source, made_by, (), ObjectOptions(companions=COMPANIONS)), source


@pytest.fixture
def good(result):
    return Set.of(*result, COMPANIONS).copy()


def codes(good):
    try:
        gate(good.derived(), good.source, good.companions)
    except GateRefused as refused:
        return [finding.code for finding in refused.findings]
    return []


def test_an_untouched_set_passes(result):
    derived, source = result
    gate(derived, source, COMPANIONS)


def test_a_set_laid_open_and_encoded_again_passes(good):
    # Negative control of the forge: without a damage nothing is found.
    assert codes(good) == []


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_refused_by_its_rule_and_by_no_other(name, good):
    code, damage = DAMAGES[name]
    damage(good)
    assert codes(good) == [code]
