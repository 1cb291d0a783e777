"""`conformance`: write the DICOM Conformance Statement of a configuration."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rebrain_node.cli.terminal import Config


class StatementFormat(StrEnum):
    """Format of the statement."""

    MARKDOWN = "markdown"
    HTML = "html"


def conformance(
    config: Config = None,
    format_: Annotated[
        StatementFormat, typer.Option("--format", help="markdown, or html for one page.")
    ] = StatementFormat.MARKDOWN,
    out: Annotated[
        Path | None, typer.Option(help="File to write; without it, standard output.")
    ] = None,
) -> None:
    """Write the DICOM Conformance Statement of these settings.

    After the template of PS3.2 annex N: services, contexts, status codes, and every attribute of
    the objects that the node creates, read from objects that are made for it. It names AE titles,
    hosts and URLs of the settings, and no patient.
    """
    from rebrain_node.app.conformance import conformance_statement
    from rebrain_node.errors import StateError
    from rebrain_node.report.statement import as_html, as_markdown
    from rebrain_node.settings import load_settings

    statement = conformance_statement(load_settings(config))
    write = as_html if format_ is StatementFormat.HTML else as_markdown
    if out is None:
        sys.stdout.write(write(statement))
        return
    try:
        with out.open("x", encoding="utf-8") as stream:
            stream.write(write(statement))
    except FileExistsError as error:
        raise StateError(f"{out} exists and is not overwritten; name another file") from error
    typer.echo(str(out))
