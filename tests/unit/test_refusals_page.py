"""Codes of findings: each is listed once with what it means; docs/refusals.md names true limits.

The tables of the page are made from the list (tests/unit/test_reference.py).
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rebrain_node.domain.codes import CODES
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.limits import POLICY_CODES
from rebrain_node.limits_file import shipped_limits

ROOT = Path(__file__).resolve().parents[2]
STEPS = ROOT / "rebrain_node/steps"


def codes_of_steps():
    """Yield (step, code) for every code that a step gives to `Finding` or to a helper."""
    for path in STEPS.rglob("*.py"):
        step = path.relative_to(STEPS).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {
                "Finding", "_outside",
            }:  # fmt: skip
                given = [k.value for k in node.keywords if k.arg == "code"] + node.args[:1]
                found = {getattr(c, "value", None) for each in given for c in ast.walk(each)}
                yield from ((step, code) for code in CODES if code in found)


def test_a_finding_with_a_code_that_is_not_listed_cannot_be_made():
    with pytest.raises(ValueError, match=r"GEOM-GAPS.*codes\.py"):
        Finding(code="GEOM-GAPS", sentence="a slice is missing")


def test_a_ledger_may_hold_a_code_of_another_version():
    assert Finding(code="FORMER", sentence="of another version", recorded=True).code == "FORMER"


def test_every_step_that_makes_a_finding_is_named_with_its_code():
    pairs = set(codes_of_steps())
    assert len(pairs) > 25
    assert sorted(p for p in pairs if p[0] not in CODES[p[1]].found_by) == []


def test_every_code_says_what_it_means_its_limit_what_helps_and_who_finds_it():
    for code, each in CODES.items():
        assert re.fullmatch("[A-Z]+(-[A-Z]+)*", code)
        assert all((each.meaning, each.limit, each.remedy, each.found_by)), code


def test_the_limits_hold_a_policy_for_each_code_that_leaves_it_to_the_site():
    assert set(shipped_limits().policy) == set(POLICY_CODES)


def test_every_limit_named_on_the_page_exists():
    limits = shipped_limits()
    page = (ROOT / "docs/refusals.md").read_text(encoding="utf-8")
    named = re.findall(r"`(series|geometry|hounsfield|head|artefacts|domain)\.(\w+)`", page)
    assert len(named) > 20
    for part, key in named:
        assert hasattr(getattr(limits, part), key), f"{part}.{key}"
