"""A numbered document of sections and tables, written as Markdown or as a page of HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rebrain_node.report.markup import Html, document, join, table, tag

#: a UID, or a tag with a > for each sequence around it
_UNBROKEN: Final = re.compile(r"[0-9]+(?:\.[0-9]+){3,}|>*\(\w{4},\w{4}\)")


@dataclass(frozen=True, kw_only=True)
class TableBlock:
    """One table with its caption."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class SectionBlock:
    """One section: its number (``5.2.5``, ``A.1``), its title, and paragraphs and tables."""

    number: str
    title: str
    content: tuple[str | TableBlock, ...] = ()

    @property
    def heading(self) -> str:
        """Number and title."""
        return f"{self.number} {self.title}"

    @property
    def depth(self) -> int:
        """0 for a chapter, 1 for a section of it, and so on."""
        return self.number.count(".")

    @property
    def anchor(self) -> str:
        """Name by which the table of contents links to it."""
        return f"s-{self.number.replace('.', '-')}"


@dataclass(frozen=True, kw_only=True)
class StatementDocument:
    """A title, paragraphs of the cover, and the sections in their order."""

    title: str
    cover: tuple[str, ...]
    sections: tuple[SectionBlock, ...]


def as_markdown(statement: StatementDocument) -> str:
    """Write a document as Markdown."""
    lines = [f"# {statement.title}", "", *_paragraphs(statement.cover)]
    for section in statement.sections:
        lines += [f"{'#' * min(6, 2 + section.depth)} {section.heading}", ""]
        for block in section.content:
            lines += _table_lines(block) if isinstance(block, TableBlock) else _paragraphs([block])
    return "\n".join(lines).rstrip() + "\n"


def _paragraphs(texts: Sequence[str]) -> list[str]:
    return [line for text in texts for line in (_plain(text), "")]


def _table_lines(block: TableBlock) -> list[str]:
    rows = [block.head, tuple("---" for _ in block.head), *block.rows]
    return [f"*{_plain(block.caption)}*", ""] + [
        f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows
    ] + [""]  # fmt: skip


def _plain(text: str) -> str:
    """Let nothing of a text be markup."""
    for sign, written in (("|", "\\|"), ("<", "&lt;"), ("*", "\\*")):
        text = text.replace(sign, written)
    return " ".join(text.split())


def as_html(statement: StatementDocument) -> str:
    """Write a document as one page that loads nothing."""
    body = [tag("h1", statement.title), *map(_paragraph, statement.cover)]
    for section in statement.sections:
        level = f"h{min(6, 2 + section.depth)}"
        body.append(tag(level, section.heading, id=section.anchor, class_="section"))
        if section.title == "Table of contents":
            body.append(_contents(statement))
        body += [
            _table(block) if isinstance(block, TableBlock) else _paragraph(block)
            for block in section.content
        ]
    return document(statement.title, join(*body))


def _paragraph(text: str) -> Html:
    """Make a paragraph; what stands between two grave accents is code."""
    pieces = text.split("`")
    return tag("p", *(tag("code", one) if k % 2 else one for k, one in enumerate(pieces)))


def _contents(statement: StatementDocument) -> Html:
    return tag(
        "ul",
        *(
            tag("li", tag("a", each.heading, href=f"#{each.anchor}"))
            for each in statement.sections
            if each.depth < 2
        ),
    )


def _table(block: TableBlock) -> Html:
    rows = [[_cell(text) for text in row] for row in block.rows]
    return join(tag("p", block.caption, class_="faint"), table(block.head, rows))


def _cell(text: str) -> Html | str:
    """Keep a UID or a tag on one line."""
    return tag("span", text, class_="uid") if _UNBROKEN.fullmatch(text) else text
