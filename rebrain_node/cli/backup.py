"""`backup` and `restore`: the state of a node in a folder, and a node from it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rebrain_node.cli.terminal import AsJson, Config, plain, print_json


def backup(
    parent: Annotated[Path, typer.Argument(help="Folder of the backups; made if it is absent.")],
    config: Config = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Remove all but the newest KEEP backups in PARENT.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy state and settings into a new folder in PARENT.

    The node may run meanwhile. The copy holds patient data and the key of the audit log: keep it as
    closed as the node. Exit code 1 if a stored file was missing or altered; the rest is copied.
    """
    from rebrain_node.app.backup import back_up, remove_older
    from rebrain_node.settings import load_settings

    target, manifest = back_up(load_settings(config), config, parent)
    removed = [] if keep is None else [str(path) for path in remove_older(parent, keep)]
    if as_json:
        print_json({"backup": str(target), **asdict(manifest), "removed": removed})
    else:
        typer.echo(
            f"{target}: {manifest.blobs} files of inbox and outbox, {manifest.size_bytes} bytes, "
            f"audit log up to row {manifest.sequence}"
        )
        for path in removed:
            typer.echo(f"removed {path}")
    for path in manifest.lost:
        typer.echo(f"missing or altered: {plain(path)}", err=True)
    if manifest.lost:
        raise typer.Exit(1)


def restore(
    folder: Annotated[Path, typer.Argument(help="Folder that `rebrain-node backup` made.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make the state of a node from a backup, and verify it.

    Refused where storage.folder is not empty or the database has tables. Exit code 1 if files and
    rows do not agree, or the audit log is not as it was written.
    """
    from rebrain_node.app.backup import restore as run
    from rebrain_node.settings import load_settings

    restored = run(load_settings(config), folder)
    if as_json:
        print_json(asdict(restored))
    else:
        made = restored.manifest
        typer.echo(
            f"restored the backup that version {made.version} made at {made.made_at}: {made.blobs} "
            f"files of inbox and outbox, audit log of {restored.rows} rows"
        )
        typer.echo(
            "what the node did since then is not in it: see with `rebrain-node audit verify "
            "--against-sr NAME` which results the archive has, and erase again who was erased"
        )
    for sentence in (*restored.storage, *restored.audit):
        typer.echo(plain(sentence), err=True)
    if restored.storage or restored.audit:
        raise typer.Exit(1)
