"""Tables and paragraphs as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.evaluate.tables import Cell, Row, Table


def markdown_table(table: Table, level: int = 3) -> str:
    """Write a table with its heading and notes; a folded one as `details`."""
    headings = [escaped(_column(table, index)) for index in range(len(table.columns))]
    lines = [
        _line([table.first, *headings]),
        _line(["---", *["---:"] * len(headings)]),
        *(_line([_name(row), *(_cell(cell) for cell in row.cells)]) for row in table.rows),
    ]
    body = "\n".join(lines)
    notes = "\n".join(f"\n{escaped(note)}" for note in table.notes)
    if table.folded:
        summary = f"<summary>{escaped(table.title)}</summary>"
        return f"<details>{summary}\n\n{body}\n{notes}\n</details>\n"
    return f"{'#' * level} {escaped(table.title)}\n\n{body}\n{notes}\n"


def bullets(lines: Sequence[str]) -> str:
    """Write a list."""
    return "".join(f"- {escaped(line)}\n" for line in lines)


def escaped(words: str) -> str:
    """Keep words from outside from becoming markup."""
    plain = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return plain.replace("|", "\\|").replace("\n", " ")


def _column(table: Table, index: int) -> str:
    """Markdown has no spanning headings: the group goes before the column's own."""
    end = 0
    for name, width in table.groups:
        end += width
        if index < end:
            return f"{name}, {table.columns[index]}"
    return table.columns[index]


def _name(row: Row) -> str:
    name = escaped(row.name)
    return {"ours": f"**{name}**", "paper": f"*{name}*", "reference": f"*{name}*"}.get(
        row.kind, name
    )


def _cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} ({cell.note})" if cell.note else text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
