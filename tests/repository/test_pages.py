"""The pages of the documents say what the code does, and nothing else."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import get_args

import pytest

from rebrain_node import pipeline
from rebrain_node.domain.audit import Event
from rebrain_node.domain.codes import CODES
from rebrain_node.domain.findings import Finding
from rebrain_node.domain.ledger import SeriesState
from rebrain_node.domain.limits import POLICY_CODES
from rebrain_node.limits_file import shipped_limits
from rebrain_node.store.series import TRANSITIONS
from tests.support import hazard_table as table
from tests.support import reference

ROOT = Path(__file__).resolve().parents[2]
STEPS = ROOT / "rebrain_node/steps"
AUDIT_PAGE = (ROOT / "docs/audit-events.md").read_text(encoding="utf-8")
PATH_PAGE = (ROOT / "docs/path-of-a-series.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \d+ \| ([a-z, ]+) \| (.+?) \|", PATH_PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("page", reference.pages(), ids=lambda page: page.name)
def test_the_tables_of_a_page_are_up_to_date(page):
    text = page.read_text(encoding="utf-8")
    assert reference.rendered(text) == text, (
        f"{page.name} is out of date: run python -m tests.support.reference"
    )


def test_the_conformance_statement_is_up_to_date():
    assert reference.STATEMENT.read_text(encoding="utf-8") == reference.statement(), (
        "docs/conformance.md is out of date: run python -m tests.support.reference"
    )


def test_every_table_stands_on_a_page():
    texts = "".join(page.read_text(encoding="utf-8") for page in reference.pages())
    assert [name for name in reference.TABLES if f"<!-- generated: {name} -->" not in texts] == []


def test_the_page_of_hazards_is_up_to_date():
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), (
        "docs/hazards.md is out of date: run python -m tests.support.hazard_table"
    )
    assert table.risk_page() == table.RISK_PAGE.read_text(encoding="utf-8"), (
        "docs/risk.md is out of date: run python -m tests.support.hazard_table"
    )


def test_every_hazard_has_a_test_or_states_what_is_open():
    tests = table.covering()
    uncovered = [h.number for h in table.HAZARDS if not tests[h.number] and not h.open]
    assert uncovered == []


def test_every_mark_names_a_hazard():
    numbers = {hazard.number for hazard in table.HAZARDS}
    assert sorted({number for number, _, _ in table.marked()} - numbers) == []


def test_the_hazards_are_numbered_without_gaps():
    assert [h.number for h in table.HAZARDS] == [f"H{n}" for n in range(1, len(table.HAZARDS) + 1)]


def _steps_of(function) -> list[str]:
    """Return the names of the steps that a function of the pipeline runs, in order."""
    return re.findall(r"\bstep\((?:ports\.inbox\.)?(\w+),", inspect.getsource(function))


def _steps_of_the_pipeline() -> list[str]:
    """Return every step of `process`, the sub-paths `guide` and `quantify` at their places."""
    steps = []
    calls = r"\b(step)\(\s*(?:ports\.inbox\.)?(\w+),|\b(guide|quantify)\(step,"
    for _, step, part in re.findall(calls, inspect.getsource(pipeline.process)):
        steps += _steps_of(getattr(pipeline, part)) if part else [step]
    return steps


def test_the_page_has_the_steps_of_the_pipeline_in_its_order():
    documented = [step for names, _ in ROWS for step in names.split(", ")]
    first, last = documented.index("read"), documented.index("sign")
    assert documented[first : last + 1] == _steps_of_the_pipeline()
    assert documented[first - 1] == "select"
    assert "return select(" in inspect.getsource(pipeline.judge_study)


@pytest.mark.parametrize("room", re.findall(r"`([a-z_/]+)`", "".join(rooms for _, rooms in ROWS)))
def test_every_room_of_the_page_exists(room):
    path = ROOT / "rebrain_node" / room
    assert path.is_dir() or path.with_suffix(".py").is_file()


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


def test_every_audit_event_is_recorded_somewhere_in_the_node() -> None:
    nodes = (
        node
        for path in (ROOT / "rebrain_node").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    )
    named = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"Event", "AuditEvent"}
    }
    assert [event.name for event in Event if event.name not in named] == []


def test_the_states_of_a_series_are_documented_with_their_ways() -> None:
    rows = re.findall(r"^\| `([a-z]+)` \| [^|]+ \|([^|]*)\|$", AUDIT_PAGE, re.MULTILINE)
    documented = {
        state: {word for word in get_args(SeriesState) if re.search(rf"\b{word}\b", ways)}
        for state, ways in rows
        if state in get_args(SeriesState)
    }
    assert documented == {state: set(ways) for state, ways in TRANSITIONS.items()}
