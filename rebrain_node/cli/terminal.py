"""Options that several commands share, and their output: one JSON object, or tables."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Settings file (TOML); without it, defaults and environment apply."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]

#: between two columns
_GAP: Final = 2
#: a column of sentences is never narrower than this, characters
_NARROWEST: Final = 16
#: a value of an audit event that says more is cut in a table, characters
_LONGEST_DETAIL: Final = 80
#: a digest or keyed hash, of which only the first digits are shown
_DIGEST: Final = re.compile(r"[0-9a-f]{32,64}")
_DIGITS: Final = 16


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output."""
    json.dump(answer, sys.stdout, ensure_ascii=True, default=str)
    sys.stdout.write("\n")


def console(*, stderr: bool = False) -> Console:
    """Return the terminal; markup inside values is never interpreted."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, soft_wrap=not sys.stdout.isatty())


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    stderr: bool = False,
    piped: Sequence[str] = (),
) -> None:
    """Print a table; control characters in values are escaped.

    On a terminal columns are aligned and sentences wrapped; into a file or a pipe each row is one
    line with a tab between its columns. The columns ``piped`` stand in a file or a pipe only: a UID
    beside its short id.
    """
    stream = sys.stderr if stderr else sys.stdout
    cells = [[plain(value) for value in row] for row in rows]
    if is_terminal(stream):
        shown = [k for k, name in enumerate(columns) if name not in piped]
        columns, cells = [columns[k] for k in shown], [[row[k] for k in shown] for row in cells]
        text = aligned_table(title, columns, cells, shutil.get_terminal_size().columns)
    else:
        text = tabbed_table(title, columns, cells)
    stream.write(text)


def is_terminal(stream: TextIO | None = None) -> bool:
    """Say whether a person reads the output, and not a file or a pipe."""
    return (stream or sys.stdout).isatty()


def tabbed_table(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return a table for files and pipes: ``# title``, the columns, one line for each row."""
    return "".join([f"# {title}\n", *("\t".join(row) + "\n" for row in (columns, *cells))])


def aligned_table(
    title: str, columns: Sequence[str], cells: Sequence[Sequence[str]], width: int
) -> str:
    """Return a table for a terminal of so many columns.

    Empty columns are left out. Only sentences are wrapped, between words: a UID or an id is never
    broken, so that it can be copied; where the widest do not fit, the terminal wraps the line.
    """
    kept = [k for k in range(len(columns)) if any(row[k] not in ("", "-") for row in cells)]
    head = [columns[k] for k in kept]
    body = [[row[k] for k in kept] for row in cells]
    if not body:
        return f"{title}: none\n"
    widths = _widths([*zip(head, *body, strict=True)], width)
    lines = [title, *_lines(head, widths), "  ".join("-" * each for each in widths)]
    for row in body:
        lines += _lines(row, widths)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _widths(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """Share the width: the widest column gives first, none below its longest word."""
    widths = [max(map(len, column)) for column in columns]
    least = [
        min(full, max(_NARROWEST, *(len(word) for cell in column for word in cell.split(" "))))
        for full, column in zip(widths, columns, strict=True)
    ]
    while sum(widths) + _GAP * (len(widths) - 1) > width:
        wide = [k for k in range(len(widths)) if widths[k] > least[k]]
        if not wide:
            break
        widths[max(wide, key=lambda k: widths[k])] -= 1
    return widths


def _lines(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the lines of one row, its cells wrapped to their widths."""
    wrapped = [
        textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) or [""]
        for cell, width in zip(row, widths, strict=True)
    ]
    return [
        "  ".join(
            (lines[k] if k < len(lines) else "").ljust(width)
            for lines, width in zip(wrapped, widths, strict=True)
        )
        for k in range(max(map(len, wrapped)))
    ]


def plain(value: object) -> str:
    """Return the text of a value with its control characters (ANSI, CR, bidi) escaped."""
    text = "-" if value is None else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def detail_words(details: Mapping[str, Any]) -> str:
    """Return the details of an audit event as ``name value, name value``; long values are cut."""
    shown = {name: value for name, value in details.items() if value not in (None, [], {}, "")}
    return ", ".join(f"{name} {_short(value)}" for name, value in shown.items())


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        words = ", ".join(f"{name} {_short(part)}" for name, part in value.items())
        return f"({_cut(words)})"
    if isinstance(value, list):
        words = ", ".join(str(part) for part in value)
        return f"[{words}]" if len(words) <= _LONGEST_DETAIL else f"[{len(value)} values]"
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value[:_DIGITS]
    return _cut(str(value) if isinstance(value, str) else json.dumps(value, default=str))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_DETAIL else f"{text[:_LONGEST_DETAIL]}..."


def choose(value: str, known: Sequence[str], what: str) -> str:
    """Return ``value`` if it is one of ``known``; else say which are, and which is close.

    Raises
    ------
    BadParameter
        It is not: exit code 2.
    """
    if value in known:
        return value
    from rebrain_node.validation import nearest

    names = ", ".join(known) or "none"
    raise typer.BadParameter(
        f"{value!r} is no {what}{nearest(value, known) or '.'} There are: {names}"
    )


def progress() -> Progress:
    """Return a progress display on standard error; standard output holds results only."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), console=console(stderr=True), transient=True,
    )  # fmt: skip
