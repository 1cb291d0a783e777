"""docs/hazards.md lists the marked tests, and each hazard is covered or stated to be open."""

from __future__ import annotations

from tests.support import hazard_table as table


def test_the_page_is_up_to_date():
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), (
        "docs/hazards.md is out of date: run python -m tests.support.hazard_table"
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
