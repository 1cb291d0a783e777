"""`audit`: list, show, verify and report the audit log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rebrain_node.cli.terminal import AsJson, Config, print_json, print_table

if TYPE_CHECKING:
    from rebrain_node.domain.audit import AuditEvent


audit = typer.Typer(help="List, show, verify and report the audit log.", no_args_is_help=True)


@audit.command("list")
def list_(
    config: Config = None,
    limit: Annotated[int, typer.Option(min=1, help="Number of events, the newest ones.")] = 50,
    subject: Annotated[str | None, typer.Option(help="Only events about this UID or name.")] = None,
    event: Annotated[str | None, typer.Option(help="Only this event, e.g. series.refused.")] = None,
    before: Annotated[
        int | None, typer.Option(min=1, help="Only events before this sequence number.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the newest audit events, oldest first."""
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    with find_state(load_settings(config)) as state:
        events = state.audit.events(limit, subject=subject, event=event, before=before)
    if as_json:
        print_json({"events": [_as_dict(event) for event in events]})
        return
    rows = [(e.sequence, e.recorded_at.isoformat(), e.event, e.subject) for e in events]
    print_table("Audit log", ("sequence", "recorded at", "event", "subject"), rows)


@audit.command("show")
def show(
    sequence: Annotated[int, typer.Argument(min=1, help="Sequence number of the event.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show one audit event with its details and hash."""
    from rebrain_node.app.compose import find_state
    from rebrain_node.errors import StateError
    from rebrain_node.settings import load_settings

    with find_state(load_settings(config)) as state:
        event = state.audit.event(sequence)
    if event is None:
        raise StateError(f"the audit log has no event {sequence}; see `rebrain-node audit list`")
    if as_json:
        print_json(_as_dict(event))
        return
    print_table(f"Event {sequence}", ("field", "value"), list(_as_dict(event).items()))


@audit.command("report")
def report(
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write an HTML report of every series and its decision."""
    from rebrain_node.app.tasks import write_audit_report
    from rebrain_node.settings import load_settings

    write_audit_report(load_settings(config), out)
    if as_json:
        print_json({"report": str(out)})
        return
    typer.echo(str(out))


def _as_dict(event: AuditEvent) -> dict[str, object]:
    return {
        "sequence": event.sequence,
        "recorded_at": event.recorded_at.isoformat(),
        "event": str(event.event),
        "subject": event.subject,
        "details": dict(event.details),
        "hash": event.hash,
    }
