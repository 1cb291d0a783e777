"""`serve`, `send`, `peers` and `config`: run the node, try a destination, show the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from rebrain_node.cli.terminal import (
    AsJson,
    Config,
    choose,
    plain,
    print_json,
    print_table,
    progress,
)
from rebrain_node.domain.text import utc

if TYPE_CHECKING:
    from rebrain_node.app.serve import MachineRole

peers = typer.Typer(
    help="Show the peers that may send to the node, and who tried.", no_args_is_help=True
)
#: newest rows of the audit log that `peers unknown` reads
_NEWEST_REJECTIONS = 10_000
config = typer.Typer(help="Check and show the settings.", no_args_is_help=True)


def serve(
    config: Config = None,
    role: Annotated[
        str,
        typer.Option(
            help="What this machine does: all, receiver, worker or delivery. A part of a node "
            "needs PostgreSQL (docs/how-to/several-machines.md)."
        ),
    ] = "all",
) -> None:
    """Run the node until SIGTERM or Ctrl-C.

    Starts one receiver process and as many worker processes as the settings say, and restarts a
    process that ends. With --role only the processes of a part: `receiver` the receiver, `worker`
    the workers, `delivery` what sends results and tells others. Logs JSON lines on standard error,
    `ready` once everything listens. Reads peers, limits and certificates again at SIGHUP.
    """
    from rebrain_node.app.serve import ROLES
    from rebrain_node.app.serve import serve as run
    from rebrain_node.settings import load_settings

    choose(role, ROLES, "role of a machine")
    raise typer.Exit(run(load_settings(config), config, cast("MachineRole", role)))


SilentS = Annotated[
    float | None,
    typer.Option("--silent-s", help="Silence of the process that this one replaces, seconds."),
]
Run = Annotated[str, typer.Option("--run", help="Drawn by the supervisor at its start.")]


def receiver(run: Run, config: Config = None, silent_s: SilentS = None) -> None:
    """Receive instances; `serve` starts this process and ends it through its standard input."""
    from rebrain_node.app.serve import ChildOptions, run_receiver
    from rebrain_node.settings import load_settings

    options = ChildOptions(config=config, silent_s=silent_s, run=run)
    run_receiver(load_settings(config), options)


def worker(
    slot: Annotated[int, typer.Option(min=1, help="Number of this worker, from 1.")],
    run: Run,
    config: Config = None,
    silent_s: SilentS = None,
    delivers: Annotated[bool, typer.Option("--delivers", help="Deliver results too.")] = False,
) -> None:
    """Process series; `serve` starts this process and ends it through its standard input."""
    from rebrain_node.app.serve import ChildOptions, run_worker
    from rebrain_node.settings import load_settings

    options = ChildOptions(config=config, silent_s=silent_s, run=run)
    run_worker(load_settings(config), slot, options, delivers=delivers)


def delivery(run: Run, config: Config = None, silent_s: SilentS = None) -> None:
    """Deliver results; `serve` starts this process and ends it through its standard input."""
    from rebrain_node.app.serve import ChildOptions, run_delivery
    from rebrain_node.settings import load_settings

    options = ChildOptions(config=config, silent_s=silent_s, run=run)
    run_delivery(load_settings(config), options)


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
    """Send the DICOM instances of a folder to a destination.

    Exit code 1 if an instance was not accepted.
    """
    from rebrain_node.app.tasks import send_files
    from rebrain_node.settings import load_settings

    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with progress() as display:
        task = display.add_task("send", total=len(paths))
        sent = send_files(
            load_settings(config), destination, paths, lambda _: display.advance(task)
        )
    failed = [one for one in sent if not one.taken]
    if as_json:
        print_json(
            {
                "destination": destination,
                "taken": len(sent) - len(failed),
                "not_taken": [{"path": str(one.path), "sentence": one.sentence} for one in failed],
            }
        )
    else:
        typer.echo(f"{len(sent) - len(failed)} of {len(sent)} instances accepted by {destination}")
        if failed:
            rows = [(one.path, one.sentence) for one in failed]
            print_table("Not accepted", ("file", "reason"), rows)
    if failed or not sent:
        raise typer.Exit(1)


@peers.command("unknown")
def unknown(config: Config = None, as_json: AsJson = False) -> None:
    """List the rejected senders and the settings that admit each.

    From the audit log: senders whose AE title, address or certificate is not in [[receiver.peers]].
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.domain.audit import Event
    from rebrain_node.settings import load_settings

    with find_state(load_settings(config)) as state:
        rows = state.audit.events(_NEWEST_REJECTIONS, event=Event.ASSOCIATION_REFUSED)
    senders: dict[str, dict[str, object]] = {}
    for row in rows:
        if "would_admit" not in row.details:
            continue
        settings = str(row.details["would_admit"])
        seen = int(str(senders.get(settings, {}).get("rejections", 0)))
        senders[settings] = {
            "ae_title": row.subject,
            "address": row.details["address"],
            "reason": row.details["reason"],
            "rejections": seen + 1 + int(row.details["not_told"]),
            "last": utc(row.recorded_at),
            "settings": settings,
        }
    if as_json:
        print_json({"unknown": list(senders.values())})
        return
    if not senders:
        typer.echo("no sender was rejected for its AE title, address or certificate")
        return
    columns = ("ae_title", "address", "reason", "rejections", "last")
    print_table("Rejected senders", columns, [[s[c] for c in columns] for s in senders.values()])
    typer.echo(
        "To admit one, add its lines to the settings and let the node read them (`systemctl reload "
        "rebrain-node`, or SIGHUP to `rebrain-node serve`):\n"
    )
    for sender in senders.values():
        typer.echo(f"{sender['settings']}\n")


@peers.command("list")
def list_(config: Config = None, as_json: AsJson = False) -> None:
    """List the peers that may associate; all others are rejected."""
    from rebrain_node.settings import load_settings

    known = load_settings(config).receiver.peers
    if as_json:
        print_json({"peers": [peer.model_dump(mode="json") for peer in known]})
        return
    if not known:
        typer.echo("no peer may associate: add [[receiver.peers]] to the settings")
        return
    rows = [
        (
            peer.ae_title,
            ", ".join(peer.addresses),
            ", ".join(peer.certificates or ()) or "any or none",
        )
        for peer in known
    ]
    print_table("Peers", ("calling AE title", "addresses", "certificates"), rows)


@config.command("check")
def check(config: Config = None, as_json: AsJson = False) -> None:
    """Check settings, limits, trusted keys, bundle and database.

    Also what single values do not show: destinations that are the same system or this node itself,
    limits in the wrong order, another program's database, a missing file. Nothing is changed or
    sent. Exit code 2 and a line for each fault if there is one.
    """
    from rebrain_node.app.compose import read_limits
    from rebrain_node.app.settings_check import settings_faults
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    faults = settings_faults(settings)
    if as_json:
        digest = None if faults else read_limits(settings).digest
        print_json({"fit": not faults, "faults": faults, "limits_digest": digest})
    elif not faults:
        digest = read_limits(settings).digest
        typer.echo(
            f"settings, limits, trusted keys, bundle and database are fit; limits digest {digest}"
        )
    for fault in faults:
        typer.echo(f"rebrain-node: {plain(fault)}", err=True)
    if faults:
        raise typer.Exit(2)


@config.command("show")
def show(config: Config = None, as_json: AsJson = False) -> None:
    """Show the settings in use.

    File, environment and defaults merged; a password in the database URL is not shown.
    """
    from rebrain_node.settings import load_settings

    values = load_settings(config).model_dump(mode="json")
    values["storage"]["database_url"] = _without_password(values["storage"]["database_url"])
    if as_json:
        print_json(values)
        return
    print_table("Settings", ("setting", "value"), list(_flat(values)))


def _flat(values: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value))
    return rows


def _without_password(url: str | None) -> str | None:
    if url is None:
        return None
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)
