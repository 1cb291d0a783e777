"""Writes the generated tables of the documents: ``python -m tests.support.reference``.

A page names the tables that it holds by a pair of comments::

    <!-- generated: NAME -->
    ...
    <!-- end -->

What stands between them comes from the code by the function that `TABLES` holds under that name;
``tests/unit/test_reference.py`` fails while a page is out of date. Prose outside the comments is
written by hand and says why; the tables say what.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

from rebrain_node.steps import gate
from rebrain_node.steps.gate.rules import rules_of

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"(<!-- generated: ([a-z0-9-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown of one table: a row of headings, then the rows."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def gate_rules(topic: ModuleType) -> str:
    """Table of the rules of the gate that one module defines."""
    rows = [[f"`{r.code}`", r.requirement, r.holds_for, r.why] for r in rules_of(topic)]
    return table(["rule", "what must hold", "for", "why"], rows)


#: what each table of the documents holds, by the name in its comment
TABLES: Mapping[str, Callable[[], str]] = {
    f"gate-{topic.__name__.rpartition('.')[2]}": partial(gate_rules, topic) for topic in gate.TOPICS
}


def rendered(text: str) -> str:
    """Return the text of a page with each of its tables as the code has it now."""
    return _BLOCK.sub(lambda found: found[1] + TABLES[found[2]]() + found[4], text)


def pages() -> tuple[Path, ...]:
    """Return the pages that hold a generated table."""
    return tuple(
        page
        for page in sorted(ROOT.glob("docs/**/*.md"))
        if _BLOCK.search(page.read_text(encoding="utf-8"))
    )


if __name__ == "__main__":
    for each in pages():
        each.write_text(rendered(each.read_text(encoding="utf-8")), encoding="utf-8")
