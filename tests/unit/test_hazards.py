"""The table of hazards is what the tests say, and each id is held or openly not."""

from __future__ import annotations

from tests.support import hazard_table as table


def test_the_page_is_the_one_the_tests_give():
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), (
        "docs/hazards.md is stale: run python -m tests.support.hazard_table"
    )


def test_every_hazard_has_a_test_or_says_what_is_open():
    bare = [h for h, tests in table.holding().items() if not tests and not table.OPEN.get(h)]
    assert bare == []


def test_no_test_bears_an_id_that_does_not_exist():
    assert sorted({hazard for hazard, _, _ in table.marked()} - table.HAZARDS.keys()) == []
    assert len(table.HAZARDS) == 24


def test_tests_named_without_a_mark_exist():
    missing = [
        f"{file}::{name}"
        for files in table.ALSO.values()
        for file, names in files.items()
        for name in names
        if name not in table.names_in(file)
    ]
    assert missing == []
