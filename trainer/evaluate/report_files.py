"""The report of an evaluation: JSON for programs, Markdown and one HTML file for readers.

    out/
      evaluation.json   the document, as `rebrain-train evaluate --json` prints it
      evaluation.md     tables and figures by reference
      evaluation.html   the same in one file that needs nothing else
      figures/*.png

Everything is made in memory first: a report that cannot be rendered leaves nothing behind, and the
command moves the finished folder to `--out` as a whole.
"""

from __future__ import annotations

import base64
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from rebrain_node.report.markup import STYLE, Html, join, tag
from trainer.evaluate.plots import Plot
from trainer.evaluate.report import WARNING, Report, Supplement, evaluation_report
from trainer.evaluate.results import Document, Evaluation
from trainer.evaluate.tables import Cell, Row, Table

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
#: columns that fit side by side with their intervals on one line
_ROOMY: Final = 9
_STYLE: Final = """
:root { color-scheme: light dark; --card: #fff; --page: #f3f5f7; --mark: #d3efe3;
  --mark-ink: #0d5a43; --ours: #fdf1e7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e9edf3; --faint: #9aa5b5; --line: #2f3846;
  --card: #171c25; --page: #0d1016; --mark: #12402f; --mark-ink: #9be3c6; --ours: #2b2118; } }
body { background: var(--page); } header { margin-bottom: 20px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 20px; margin: 14px 0; overflow-x: auto; }
.card h3 { font-weight: 600; margin-bottom: 2px; }
table.scores { font-size: 13.5px; }
.scores th, .scores td { padding: 6px 10px; }
.scores th:first-child, .scores td:first-child { padding-left: 0; }
.scores th.number { white-space: normal; min-width: 74px; vertical-align: bottom; }
.scores th.group { text-align: center; }
.scores td small { display: block; color: var(--faint); font-size: 11.5px; }
.scores .best b { background: var(--mark); color: var(--mark-ink); border-radius: 5px;
  padding: 1px 5px; margin-right: -5px; }
.scores tr.ours > td { background: var(--ours); }
.scores tr.ours > td:first-child { font-weight: 600; }
.scores tr.paper, .scores tr.reference { font-style: italic; color: var(--faint); }
.card p { color: var(--faint); font-size: 13px; max-width: 100ch; }
.limits { border-left: 4px solid #ffb340; } .limits li { margin: 3px 0; }
figure { background: #fff; color: #1b222c; border: 1px solid var(--line); border-radius: 10px;
  margin: 14px 0; padding: 14px 20px; break-inside: avoid; }
figure img { display: block; width: 100%; height: auto; }
figcaption { color: #66717f; font-size: 13px; max-width: 110ch; }
figure h3 { font-weight: 600; } details > summary { cursor: pointer; padding: 4px 0; }
table.dense td small { white-space: normal; width: 58px; margin-left: auto; }
.dense th, .dense td { padding: 6px 5px; } .dense th.number { min-width: 0; }
details table.scores { font-size: 12.5px; }
"""


def page(report: Report) -> str:
    """Write the whole document."""
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", report.title),
        tag("style", Html(STYLE + _STYLE)),
    )
    body = tag(
        "main",
        _header(report),
        tag("section", _listed("Read this first", report.limits, "card limits")),
        _tables("Scores", report.tables),
        tag("section", tag("h2", "Pictures"), *(_plot(plot) for plot in report.plots)),
        tag("section", tag("h2", "What was evaluated"), _facts(report)),
        _listed("Methods left out", report.skipped, "card"),
        _listed("Notes", report.notes, "card"),
        _tables("Every subject", report.folded),
    )
    written = tag("html", tag("head", head), tag("body", body), lang="en")
    return f"<!DOCTYPE html>\n{written.text}\n"


def _header(report: Report) -> Html:
    title = tag("div", tag("h1", report.title), tag("p", report.subtitle))
    return tag("header", title, tag("p", WARNING, class_="warning"))


def _listed(title: str, lines: Sequence[str], class_: str) -> Html:
    if not lines:
        return Html("")
    items = tag("ul", *(tag("li", line) for line in lines))
    return tag("div", tag("h3", title), items, class_=class_)


def _tables(title: str, tables: Sequence[Table]) -> Html:
    return tag("section", tag("h2", title), *(_table(table) for table in tables))


def _table(table: Table) -> Html:
    head = tag(
        "tr", tag("th", table.first), *(tag("th", c, class_="number") for c in table.columns)
    )
    groups = [tag("th", name, colspan=width, class_="group") for name, width in table.groups]
    heads = join(tag("tr", tag("th"), *groups), head) if groups else head
    content = tag(
        "table",
        tag("thead", heads),
        tag("tbody", *(_row(row) for row in table.rows)),
        class_="scores dense" if len(table.columns) > _ROOMY else "scores",
    )
    notes = [tag("p", note) for note in table.notes]
    if table.folded:
        return tag("details", tag("summary", table.title), content, *notes, class_="card")
    return tag("div", tag("h3", table.title), content, *notes, class_="card")


def _row(row: Row) -> Html:
    return tag("tr", tag("td", row.name), *(_cell(cell) for cell in row.cells), class_=row.kind)


def _cell(cell: Cell) -> Html:
    figure = tag("b", cell.text) if cell.best else cell.text
    note = tag("small", cell.note) if cell.note else ""
    return tag("td", figure, note, class_="number best" if cell.best else "number")


def _plot(plot: Plot) -> Html:
    data = base64.b64encode(plot.png).decode("ascii")
    picture = tag("img", src=f"data:image/png;base64,{data}", alt=plot.title)
    return tag("figure", tag("h3", plot.title), picture, tag("figcaption", plot.caption))


def _facts(report: Report) -> Html:
    rows = [
        tag("tr", tag("td", name), tag("td", tag("code", value))) for name, value in report.facts
    ]
    return tag("div", tag("table", *rows, class_="facts"), class_="card")


def markdown_table(table: Table, level: int = 3) -> str:
    """Write a table with its heading and notes; a folded one as `details`."""
    headings = [escaped(_markdown_column(table, index)) for index in range(len(table.columns))]
    lines = [
        _markdown_line([table.first, *headings]),
        _markdown_line(["---", *["---:"] * len(headings)]),
        *(
            _markdown_line([_markdown_name(row), *(_markdown_cell(cell) for cell in row.cells)])
            for row in table.rows
        ),
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
    """Escape text from outside, so that it is not read as markup."""
    plain = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return plain.replace("|", "\\|").replace("\n", " ")


def _markdown_column(table: Table, index: int) -> str:
    """Markdown has no spanning headings: the group goes before the column's own."""
    end = 0
    for name, width in table.groups:
        end += width
        if index < end:
            return f"{name}, {table.columns[index]}"
    return table.columns[index]


def _markdown_name(row: Row) -> str:
    name = escaped(row.name)
    return {"ours": f"**{name}**", "paper": f"*{name}*", "reference": f"*{name}*"}.get(
        row.kind, name
    )


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} ({cell.note})" if cell.note else text


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_report(evaluation: Evaluation, out: Path, beside: Supplement | None = None) -> None:
    """Write the report of an evaluation into `out`, which is empty or absent.

    Raises
    ------
    ValueError
        A document beside is of other subjects, another bundle or the same protocol.
    """
    beside = beside or Supplement()
    for other in beside.documents:
        _same_but_protocol(evaluation.document, other)
    write_report_files(
        evaluation_report(evaluation, beside), evaluation.document, out, "evaluation"
    )


def write_report_files(
    report: Report, document: Mapping[str, object], out: Path, name: str
) -> None:
    """Write a report as `out/NAME.json`, `.md`, `.html` and `figures/*.png`."""
    files = {
        f"{name}.json": json_text(document).encode(),
        f"{name}.md": _markdown(report).encode(),
        f"{name}.html": page(report).encode(),
    } | {f"figures/{plot.name}.png": plot.png for plot in report.plots}
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (out / file).write_bytes(content)


def replaced(out: Path, write_into: Callable[[Path], None]) -> None:
    """Write a report beside its final place and move it there, so that it is always complete."""
    part, old = out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.old")
    for left in (part, old):
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        write_into(part)
    except BaseException:
        shutil.rmtree(part)
        raise
    if out.exists():
        out.rename(old)
    part.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def json_text(document: Mapping[str, object]) -> str:
    """Write a document as JSON; what is not a number is null there."""
    return json.dumps(_finite(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _same_but_protocol(document: Document, other: Document) -> None:
    for name, here, there in (
        ("subjects", document["dataset"]["subjects"], other["dataset"]["subjects"]),
        ("bundle", document["bundle"]["digest"], other["bundle"]["digest"]),
        ("definitions", document["mode"], other["mode"]),
    ):
        if here != there:
            raise ValueError(
                f"an evaluation beside has other {name} ({there}, here {here}): only the protocol "
                "may differ"
            )
    if document["protocol"] == other["protocol"]:
        raise ValueError(f"an evaluation beside has the same protocol, {other['protocol']}")


def _markdown(report: Report) -> str:
    parts = [
        f"# {escaped(report.title)}\n\n{escaped(report.subtitle)}\n\n**{WARNING}.**\n",
        f"## Read this first\n\n{bullets(report.limits)}",
        "## Scores\n",
        *(markdown_table(table) for table in report.tables),
        *(["## Pictures\n"] if report.plots else []),
        *(
            f"![{escaped(plot.title)}](figures/{plot.name}.png)\n\n{escaped(plot.caption)}\n"
            for plot in report.plots
        ),
        "## What was evaluated\n\n" + bullets([f"{name}: {value}" for name, value in report.facts]),
    ]
    if report.skipped:
        parts.append(f"## Methods left out\n\n{bullets(report.skipped)}")
    if report.notes:
        parts.append(f"## Notes\n\n{bullets(report.notes)}")
    if report.folded:
        parts += ["## Every subject\n", *(markdown_table(table) for table in report.folded)]
    return "\n".join(parts)
