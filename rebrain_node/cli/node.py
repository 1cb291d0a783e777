"""`serve` and the two processes it starts."""

from __future__ import annotations

from typing import Annotated

import typer

from rebrain_node.cli.options import Config


def serve(config: Config = None) -> None:
    """Run the node until SIGTERM or Ctrl-C.

    Starts one receiver process and as many worker processes as the settings say, and restarts a
    process that ends. Logs JSON lines on standard error, `ready` once everything listens.
    """
    from rebrain_node.app.serve import serve as run
    from rebrain_node.settings import load_settings

    raise typer.Exit(run(load_settings(config), config))


def receiver(config: Config = None) -> None:
    """Receive instances; `serve` starts this process and ends it through its standard input."""
    from rebrain_node.app.serve import run_receiver
    from rebrain_node.settings import load_settings

    run_receiver(load_settings(config))


def worker(
    slot: Annotated[int, typer.Option(min=1, help="Number of this worker, from 1.")],
    config: Config = None,
) -> None:
    """Process and deliver series; `serve` starts this process and ends it through its stdin."""
    from rebrain_node.app.serve import run_worker
    from rebrain_node.settings import load_settings

    run_worker(load_settings(config), slot)
