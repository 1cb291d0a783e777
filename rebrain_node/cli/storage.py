"""`storage`: what is stored, how long the disk lasts, and what may be deleted."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from rebrain_node.cli.terminal import AsJson, Config, print_json, print_table
from rebrain_node.domain.text import reference, utc

if TYPE_CHECKING:
    from collections.abc import Mapping


#: rows of the table, by key of `use_of`
_ROWS: Final = {
    "received_bytes": "received", "derived_bytes": "derived", "daily_bytes": "more each day",
    "unconfirmed_sets": "sets not confirmed by every destination",
    "deleted_unconfirmed": "objects deleted before confirmation (must be 0)",
    "purgeable_bytes": "may be deleted", "free_bytes": "free on the disk",
    "days_left": "days until no new study is judged",
}  # fmt: skip
#: more days than this are no forecast
_LONGEST_FORECAST_DAYS: Final = 3650

storage = typer.Typer(
    help="Show what is stored, and delete what may be deleted.", no_args_is_help=True
)


@storage.command("show")
def show(config: Config = None, as_json: AsJson = False) -> None:
    """Show what is stored and how many days the disk lasts."""
    from rebrain_node.app.compose import find_state
    from rebrain_node.app.health import storage_use
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    with find_state(settings) as state:
        answer = storage_use(settings, state)
    if as_json:
        print_json(answer)
    else:
        print_table("Storage", ("field", "value"), use_rows(answer))


@storage.command("purge")
def purge(
    config: Config = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be deleted and delete nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the bytes that the rules of retention release.

    The running node does so every hour. Rows of the ledger and the audit log are never deleted.
    """
    from rebrain_node.app.compose import find_state, retention_rules
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    rules, now = retention_rules(settings), datetime.now(UTC)
    with find_state(settings) as state:
        purged = (state.retention.purgeable if dry_run else state.retention.purge)(rules, now)
    if as_json:
        print_json(
            {
                "deleted": not dry_run,
                "series": [asdict(one) | {"since": one.since.isoformat()} for one in purged],
            }
        )
        return
    columns = ("id", "series", "state", "since", "received bytes", "derived bytes")
    rows = [
        (reference(one.series_instance_uid), one.series_instance_uid, one.state, utc(one.since),
         one.received_bytes, one.derived_bytes)
        for one in purged
    ]  # fmt: skip
    print_table("Would be deleted" if dry_run else "Deleted", columns, rows, piped=("series",))


@storage.command("fsck")
def fsck(
    config: Config = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Move unknown, altered and unfinished files into the folder lost-found, mark rows "
            "whose bytes are gone, and correct numbers of instances. The node must be stopped.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare inbox, outbox and database, and list what does not agree.

    Reads every stored byte. Exit code 1 if something does not agree and --repair was not given or
    cannot help. Nothing is deleted: files in lost-found are DICOM files, which `rebrain-node send`
    can send to the node again.
    """
    from contextlib import ExitStack

    from rebrain_node.app.compose import open_storage_check
    from rebrain_node.app.presence import one_node, running_node
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    folder = settings.storage.own_folder
    with ExitStack() as stack:
        storage_check = stack.enter_context(open_storage_check(settings))
        if repair:
            stack.enter_context(one_node(folder))
        found, contradicting = storage_check.differences(), storage_check.row_differences()
        if repair:
            storage_check.repair(found, contradicting)
    running = running_node(folder)
    if as_json:
        listed = [asdict(one) | {"path": str(one.path)} for one in found]
        answer = {"repaired": repair, "node": running, "differences": listed}
        print_json(answer | {"rows": [asdict(one) for one in contradicting]})
    else:
        columns = ("what", "file", "row in", "instance", "series")
        rows = [
            (one.kind, one.path, one.table, one.sop_instance_uid, one.series_instance_uid)
            for one in found
        ]
        print_table("Repaired" if repair else "Does not agree", columns, rows)
        if contradicting:
            print_table(
                "Rows that contradict each other",
                ("what", "table", "of", "sentence"),
                [(one.kind, one.table, one.subject, one.sentence) for one in contradicting],
            )
        if running is not None and found:
            typer.echo("the node runs: what it is just receiving may be listed as unknown")
    undecided = [one for one in contradicting if one.kind != "count"]
    if undecided or ((found or contradicting) and not repair):
        raise typer.Exit(1)


def use_rows(use: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return the rows of a table of what `storage_use` measured, with units."""
    return [(_ROWS[key], _with_unit(key, value)) for key, value in use.items()]


def _with_unit(key: str, value: object) -> str:
    if not isinstance(value, int | float):
        return "not known: nothing was received lately" if key == "days_left" else "-"
    if key == "days_left" and value > _LONGEST_FORECAST_DAYS:
        return f"more than {_LONGEST_FORECAST_DAYS}"
    return _bytes(value) if key.endswith("_bytes") else str(value)


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
