"""The generated tables of the documents are what the code says."""

from __future__ import annotations

import pytest

from tests.support import reference


@pytest.mark.parametrize("page", reference.pages(), ids=lambda page: page.name)
def test_the_tables_of_a_page_are_up_to_date(page):
    text = page.read_text(encoding="utf-8")
    assert reference.rendered(text) == text, (
        f"{page.name} is out of date: run python -m tests.support.reference"
    )


def test_every_table_stands_on_a_page():
    texts = "".join(page.read_text(encoding="utf-8") for page in reference.pages())
    assert [name for name in reference.TABLES if f"<!-- generated: {name} -->" not in texts] == []
