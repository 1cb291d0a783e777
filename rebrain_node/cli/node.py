"""`serve` and the two processes it starts."""

from __future__ import annotations

from typing import Annotated

import typer

from rebrain_node.cli.options import Config


def serve(config: Config = None) -> None:
    """Run the node: receive, judge, synthesise, deliver. Stops on SIGTERM or Ctrl-C."""
    from rebrain_node.app.serve import serve as run
    from rebrain_node.settings import load_settings

    raise typer.Exit(run(load_settings(config), config))


def receiver(config: Config = None) -> None:
    """Receive instances; started by `serve`, which holds its standard input."""
    from rebrain_node.app.serve import run_receiver
    from rebrain_node.settings import load_settings

    run_receiver(load_settings(config))


def worker(
    slot: Annotated[int, typer.Option(min=1, help="Number of this worker, from 1.")],
    config: Config = None,
) -> None:
    """Judge, synthesise and deliver; started by `serve`, which holds its standard input."""
    from rebrain_node.app.serve import run_worker
    from rebrain_node.settings import load_settings

    run_worker(load_settings(config), slot)
