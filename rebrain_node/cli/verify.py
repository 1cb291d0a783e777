"""`verify`: whether files are synthetic images of this software, and of which set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rebrain_node.cli.terminal import AsJson, Config, print_json, print_table, progress

if TYPE_CHECKING:
    from rebrain_node.app.origin import FileOrigin

_NOT_FOUND = 3


def verify(
    paths: Annotated[
        list[Path],
        typer.Argument(exists=True, help="Files (DICOM, NIfTI, PNG, JPEG), or folders of them."),
    ],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say whether images are synthetic, by header or watermark.

    The pixels are searched for the watermark where the header says nothing.

    Exit code 0 if every file carries a mark, 3 if in at least one no mark was found, 1 if a file
    cannot be read. "No mark found" does not mean that the image was acquired.
    """
    from rebrain_node.app.compose import limit_decoding
    from rebrain_node.app.origin import files_below, origin_of
    from rebrain_node.settings import load_settings

    limit_decoding(load_settings(config))
    files = files_below(paths)
    if not files:
        raise typer.BadParameter("these folders hold no file", param_hint="PATHS")
    origins: list[FileOrigin] = []
    with progress() as bar:
        origins.extend(origin_of(path) for path in bar.track(files, description="verify"))
    if as_json:
        print_json({"files": [each.to_json() for each in origins]})
    else:
        _print(origins)
    verdicts = {each.verdict for each in origins}
    if "unreadable" in verdicts:
        raise typer.Exit(1)
    if "no mark found" in verdicts:
        raise typer.Exit(_NOT_FOUND)


def _print(origins: list[FileOrigin]) -> None:
    rows = [
        (
            each.path.name,
            each.verdict,
            " ".join(filter(None, (each.bundle, each.software and f"by node {each.software}"))),
            "" if each.set_digest is None else f"{each.set_digest}, revision {each.revision}",
            each.sentence,
        )
        for each in origins
    ]
    print_table("Files", ("file", "verdict", "bundle", "set", "because"), rows)
