"""`send` and `peers`: files to a destination by hand, and who may call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rebrain_node.cli.options import AsJson, Config
from rebrain_node.cli.present import print_json, print_table, progress

peers = typer.Typer(help="Who may send to the node.", no_args_is_help=True)


def send(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Folder with DICOM instances.")
    ],
    destination: Annotated[
        str, typer.Option("--to", help="Name of a destination in the settings.")
    ],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Send a folder of instances to a destination by hand.

    The exit code is 1 if one was not taken.
    """
    from rebrain_node.app.tasks import send_files
    from rebrain_node.settings import load_settings

    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with progress() as display:
        task = display.add_task("send", total=len(paths))
        sent = send_files(
            load_settings(config), destination, paths, lambda _: display.advance(task)
        )
    left = [one for one in sent if not one.taken]
    if as_json:
        print_json(
            {
                "destination": destination,
                "taken": len(sent) - len(left),
                "not_taken": [{"path": str(one.path), "sentence": one.sentence} for one in left],
            }
        )
    else:
        typer.echo(f"{len(sent) - len(left)} of {len(sent)} taken by {destination}")
        if left:
            rows = [(one.path, one.sentence) for one in left]
            print_table("Not taken", ("file", "because"), rows)
    if left or not sent:
        raise typer.Exit(1)


@peers.command("list")
def list_(config: Config = None, as_json: AsJson = False) -> None:
    """List the senders that may associate; nobody else can."""
    from rebrain_node.settings import load_settings

    known = load_settings(config).receiver.peers
    if as_json:
        print_json({"peers": [peer.model_dump(mode="json") for peer in known]})
        return
    if not known:
        typer.echo("nobody may associate: add [[receiver.peers]] to the settings")
        return
    rows = [(peer.ae_title, ", ".join(peer.addresses)) for peer in known]
    print_table("Peers", ("calling AE title", "from"), rows)
