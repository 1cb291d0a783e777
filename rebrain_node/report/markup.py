"""HTML in which nothing that comes from outside can become markup, and the look of the pages."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: nothing is loaded; pictures are part of the page
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Html:
    """A piece of finished markup; every plain string is text and is escaped."""

    text: str


Content = Html | str | int


def tag(name: str, /, *content: Content, **attributes: str | int) -> Html:
    """Make an element; ``class_`` stands for class, an underscore for a hyphen."""
    inside = join(*content)
    if name in ("meta", "rect", "line", "img"):
        return Html(f"<{name}{_attributes(attributes)}/>")
    return Html(f"<{name}{_attributes(attributes)}>{inside.text}</{name}>")


def join(*content: Content) -> Html:
    """Put pieces one after the other."""
    return Html("".join(_escaped(piece) for piece in content))


def _escaped(piece: Content) -> str:
    return piece.text if isinstance(piece, Html) else html.escape(str(piece), quote=True)


def _attributes(attributes: dict[str, str | int]) -> str:
    return "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for name, value in attributes.items()
    )


def document(title: str, body: Html) -> str:
    """Return a complete page that loads nothing and runs nothing."""
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    page = tag("html", tag("head", head), tag("body", tag("main", body)), lang="en")
    return f"<!DOCTYPE html>\n{page.text}\n"


def table(names: Sequence[str], rows: Sequence[Sequence[Content]], *, class_: str = "") -> Html:
    """Make a table; on a narrow screen each cell stands below its name."""
    head = tag("thead", tag("tr", *(tag("th", name) for name in names)))
    body = (
        tag("tr", *(tag("td", cell, data_name=n) for n, cell in zip(names, row, strict=True)))
        for row in rows
    )
    return tag("table", head, tag("tbody", *body), class_=f"rows {class_}".rstrip())


def value_text(value: object) -> str:
    """A value of the log as text; canonical JSON where it has parts."""
    if value is None:
        return ""
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    """What JSON does not know: read-only mappings and the like."""
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


#: on screen and on paper
STYLE: Final = """
:root { color-scheme: light; --ink: #1b222c; --faint: #66717f; --line: #dde2e8; }
* { box-sizing: border-box; }
body { margin: 0; background: #f3f5f7; color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 24px 64px; }
header { display: flex; justify-content: space-between; align-items: flex-start; gap: 24px; }
h1 { font-size: 30px; font-weight: 600; margin: 0; }
h2 { font-size: 19px; font-weight: 600; margin: 40px 0 12px; overflow-wrap: anywhere; }
h3 { font-size: 15px; font-weight: 500; margin: 0; overflow-wrap: anywhere; }
h4 { font-size: 13px; font-weight: 600; color: var(--faint); margin: 18px 0 6px; }
h3.section, h4.section, h5.section { font-size: 15px; font-weight: 600; color: var(--ink);
  margin: 26px 0 6px; }
p { margin: 4px 0; } header p, .faint { color: var(--faint); }
header .warning { background: #ffb340; color: #241803; padding: 9px 16px; border-radius: 8px;
  font-weight: 600; margin: 4px 0 0; }
code { font: 12.5px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(8, 1fr); gap: 12px; margin-top: 28px; }
.tiles div { background: #fff; border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px; }
.tiles b { display: block; font-size: 22px; font-weight: 600; line-height: 1.3; }
.tiles span { color: var(--faint); font-size: 13px; }
.tiles .good b { color: #13795b; } .tiles .bad b, p.bad { color: #b3261e; }
article { background: #fff; border: 1px solid var(--line); border-radius: 10px;
  padding: 16px 20px; margin: 12px 0; break-inside: avoid; }
.state { display: inline-block; min-width: 84px; text-align: center; padding: 1px 10px;
  border-radius: 99px; font-size: 13px; font-weight: 600; background: #e6eaef; margin-right: 6px; }
.state.published { background: #d3efe3; color: #0d5a43; }
.state.refused { background: #f1e6d4; color: #6a4508; }
.state.held, .state.failed { background: #f9dbd8; color: #8c1d18; }
.state.accepted, .state.synthesised { background: #d9e9fa; color: #12487a; }
ul { margin: 8px 0; padding-left: 20px; }
table { border-collapse: collapse; width: 100%; margin-top: 8px; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: 5px 14px 5px 0;
  border-bottom: 1px solid var(--line); }
.rows td { overflow-wrap: anywhere; } .uid { white-space: nowrap; }
th { font-weight: 600; font-size: 13px; color: var(--faint); }
tr:last-child > td, tr:last-child > th { border-bottom: 0; }
td:last-child, th:last-child { padding-right: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.steps td:first-child { width: 130px; } .steps td.number, .steps th:nth-child(2) { width: 90px;
  text-align: right; } .steps .wide { width: auto; }
.findings { table-layout: fixed; } .findings th:nth-child(1) { width: 170px; }
.findings th:nth-child(2) { width: 70px; } .findings th:nth-child(n+4) { width: 140px; }
.facts td:first-child { width: 130px; color: var(--faint); }
.bar { display: block; width: 100%; height: 10px; margin-top: 6px; } .bar rect { fill: #1f7fd1; }
.log table { table-layout: fixed; font-size: 13px; background: #fff; }
.log th, .log td { padding: 5px 12px; }
.log th:nth-child(1) { width: 64px; } .log th:nth-child(2) { width: 112px; }
.log th:nth-child(3) { width: 150px; } .log th:nth-child(5) { width: 266px; }
.log code { font-size: 11.5px; } .details { display: block; color: var(--faint); }
.result td:first-child { width: 220px; }
.figures { display: grid; grid-template-columns: repeat(3, 1fr); gap: 12px;
  align-items: end; }
figure { margin: 0; background: #000; border-radius: 8px; overflow: hidden; }
figure img { display: block; width: 100%; } figcaption { color: #cbd3dc; font-size: 12px;
  padding: 4px 10px; background: #0d1016; }
.strip { display: block; width: 100%; height: 72px; background: #fff;
  border-bottom: 1px solid var(--line); }
.legend span { margin-right: 22px; font-size: 13px; } .legend b { display: inline-block;
  width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; }
summary { cursor: pointer; margin-top: 10px; color: var(--faint); }
.histogram { display: block; width: 100%; height: 120px; background: #fff; }
.histogram rect { fill: #1f7fd1; }
@media (min-width: 901px) {
  .short td, .short code { overflow-wrap: normal; white-space: nowrap; }
  .short td.long, .short td:last-child { white-space: normal; overflow-wrap: anywhere; }
  .short td.long code { white-space: normal; overflow-wrap: anywhere; }
}
@media (max-width: 900px) {
  .tiles { grid-template-columns: repeat(4, 1fr); }
  .rows thead { display: none; } .rows tr { display: block; padding: 8px 0;
    border-bottom: 1px solid var(--line); }
  .rows td { display: flex; gap: 12px; padding: 1px 0; border: 0; }
  .rows td::before { content: attr(data-name); flex: 0 0 104px; color: var(--faint); }
  .rows td:empty { display: none; }
  .log td { padding: 1px 12px; flex-wrap: wrap; gap: 0 12px; } .log td > code { flex: 1; }
  .log td > .details { flex: 0 0 100%; padding-left: 116px; }
}
@page { size: A4 landscape; margin: 12mm; }
@media print { body { background: #fff; font-size: 12px; } table { font-size: 11px; }
  main { max-width: none; padding: 0; } tr { break-inside: avoid; } }
"""
