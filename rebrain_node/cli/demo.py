"""`demo`: the whole loop on one machine, in a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rebrain_node.cli.options import AsJson


def demo(
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the objects, pictures and report.")
    ],
    study: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Send this study, not the shipped head."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start node and PACS, send a head CT, get the synthetic series back; exit code 1 if not."""
    from rebrain_node.cli.present import progress
    from rebrain_node.demonstration.show import show

    with progress() as display:
        outcome = show(out, study, display)
