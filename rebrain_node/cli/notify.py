"""`notify`: send a test notice to each webhook and mail server."""

from __future__ import annotations

from typing import Annotated

import typer

from rebrain_node.cli.terminal import AsJson, Config, print_json, print_table

notify = typer.Typer(
    help="Send a test notice to each webhook and mail server.",
    no_args_is_help=True,
)


@notify.command("test")
def try_channels(
    channel: Annotated[
        str | None,
        typer.Argument(help="Name of one webhook or mail server of [notices]; default: all."),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Send a test notice to every webhook and mail server, or to one.

    The audit log keeps each attempt. Exit code 1 if one was not taken, or not for every recipient.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.app.messages import send_test_notices
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    with find_state(settings) as state:
        answers = send_test_notices(settings, state, channel)
    if as_json:
        print_json({"channels": [{"name": name} | a._asdict() for name, a in answers.items()]})
    else:
        rows = [
            (name, "taken" if one.taken else "NOT TAKEN", one.reason)
            for name, one in answers.items()
        ]
        print_table("Test", ("channel", "result", "reason"), rows)
    if any(one.reason is not None for one in answers.values()):
        raise typer.Exit(1)
