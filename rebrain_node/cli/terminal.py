"""Options that several commands share, and their output: one JSON object, or tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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


def print_json(answer: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output."""
    json.dump(answer, sys.stdout, ensure_ascii=True, default=str)
    sys.stdout.write("\n")


def console(*, stderr: bool = False) -> Console:
    """Return the terminal; markup inside values is never interpreted."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, soft_wrap=not sys.stdout.isatty())


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, stderr: bool = False
) -> None:
    """Print a table; control characters in values are escaped."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(plain(value) for value in row))
    console(stderr=stderr).print(table)


def plain(value: object) -> str:
    """Return the text of a value with its control characters (ANSI, CR, bidi) escaped."""
    text = "-" if value is None else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
