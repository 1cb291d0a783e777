"""`outbox`: what is delivered where, and what an operator decides about it."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from rebrain_node.cli.terminal import AsJson, Config, plain, print_json, print_table
from rebrain_node.domain.text import reference, utc

if TYPE_CHECKING:
    from rebrain_node.domain.delivery import Delivery
    from rebrain_node.domain.notification import Notification
    from rebrain_node.settings import Settings
    from rebrain_node.store.deliveries import Deliveries
    from rebrain_node.store.notifications import Notifications

outbox = typer.Typer(help="Show, retry, cancel and pause deliveries.", no_args_is_help=True)

SetId = Annotated[int, typer.Argument(help="Number of the set, from `outbox list`.")]
To = Annotated[
    str | None,
    typer.Option("--to", help="Only this destination or receiver; without it, all destinations."),
]
Reason = Annotated[str, typer.Option(help="Why; written to the audit log.")]
Name = Annotated[
    str, typer.Argument(help="Name of a destination, or of a receiver of notifications.")
]


@outbox.command("list")
def list_(
    config: Config = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what is wholly delivered or cancelled.")
    ] = False,
    unconfirmed: Annotated[
        bool,
        typer.Option(
            "--unconfirmed", help="Also what is accepted and not confirmed by its destination."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List deliveries that wait, are refused or incomplete.

    Also notifications that are due or refused. Exit code 1 if one is refused or held back: it is
    not tried again without `outbox retry`.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    with find_state(settings) as state:
        deliveries = state.deliveries
        found = deliveries.of() if everything else deliveries.open(unconfirmed=unconfirmed)
        paused, stops = state.deliveries.paused(), state.stops.active()
        notifications = state.notifications.open()
    known = set(settings.destination_names)
    if as_json:
        print_json(
            {
                "deliveries": [_json(one, known) for one in found],
                "notifications": [_notification(one) for one in notifications],
                "paused": [asdict(one) | {"since": one.since.isoformat()} for one in paused],
                "stops": [asdict(one) | {"since": one.since.isoformat()} for one in stops],
            }
        )
    else:
        columns = (
            "set", "destination", "id", "source series", "since", "objects", "attempts", "reason",
        )  # fmt: skip
        rows = [
            (one.set_id, one.destination, reference(one.source_series_uid), one.source_series_uid,
             utc(one.since), one.summary, one.attempts, _reason(one, known))
            for one in found
        ]  # fmt: skip
        print_table("Deliveries", columns, rows, piped=("source series",))
        _print_notifications("Notifications", notifications)
        for one in paused:
            typer.echo(f"{one.destination} is paused since {utc(one.since)}: {plain(one.reason)}")
        for stop in stops:
            typer.echo(f"delivery is stopped by {stop.rule} since {utc(stop.since)}: {stop.reason}")
    needing = [*(one.needs_operator for one in found), *(n.needs_operator for n in notifications)]
    if any(needing):
        raise typer.Exit(1)


@outbox.command("show")
def show(set_id: SetId, config: Config = None, as_json: AsJson = False) -> None:
    """Show every object of a set at every destination.

    Also who is notified that the destination holds the set, and whether that was done.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    with find_state(load_settings(config)) as state:
        _deliveries_of(state.deliveries, set_id, None)
        objects = state.deliveries.objects(set_id)
        notifications = state.notifications.of(set_id)
    if as_json:
        print_json(
            {
                "set_id": set_id,
                "objects": [asdict(one) for one in objects],
                "notifications": [_notification(one) for one in notifications],
            }
        )
        return
    columns = ("destination", "kind", "instance", "state", "status", "reason")
    rows = [
        (o.destination, o.kind, o.sop_instance_uid, o.state,
         None if o.status is None else f"0x{o.status:04X}", o.reason)
        for o in objects
    ]  # fmt: skip
    print_table(f"Set {set_id}", columns, rows)
    _print_notifications(f"Notifications about set {set_id}", notifications)


@outbox.command("manifest")
def manifest(set_id: SetId, config: Config = None) -> None:
    """Print the signed manifest of a set, which `verify` reads.

    Give it to `verify --manifest` on another machine.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    with find_state(load_settings(config)) as state:
        typer.echo(state.results.manifest_of(set_id), nl=False)


@outbox.command("retry")
def retry(
    set_id: SetId,
    reason: Reason,
    to: To = None,
    resend: Annotated[
        bool, typer.Option(help="Also send again what the destination has taken.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Send again what was refused, left out or cancelled.

    Also what shadow mode has kept, once it has ended.

    A notification is sent again with `--to` and the name of its receiver.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    operator = getpass.getuser()
    settings = load_settings(config)
    with find_state(settings) as state:
        if _is_receiver(state.notifications, set_id, to):
            count = state.notifications.retry(set_id, str(to), reason, operator, resend=resend)
            _print_counts("pending again", {str(to): count}, as_json=as_json)
            return
        names = _destinations(state.deliveries, set_id, to)
        _refuse_shadow(settings, set_id, names)
        counts = {
            name: state.deliveries.retry(set_id, name, reason, operator, resend=resend)
            for name in names
        }
    _print_counts("pending again", counts, as_json=as_json)


@outbox.command("cancel")
def cancel(
    set_id: SetId, reason: Reason, to: To = None, config: Config = None, as_json: AsJson = False
) -> None:
    """Stop the delivery of what is still pending of a set.

    A notification is stopped with `--to` and the name of its receiver.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    operator = getpass.getuser()
    with find_state(load_settings(config)) as state:
        if _is_receiver(state.notifications, set_id, to):
            count = state.notifications.cancel(set_id, str(to), reason, operator)
            _print_counts("cancelled", {str(to): count}, as_json=as_json)
            return
        counts = {
            name: state.deliveries.cancel(set_id, name, reason, operator)
            for name in _destinations(state.deliveries, set_id, to)
        }
    _print_counts("cancelled", counts, as_json=as_json)


@outbox.command("pause")
def pause(
    destination: Name, reason: Reason, config: Config = None, as_json: AsJson = False
) -> None:
    """Stop deliveries to a destination until `outbox resume`.

    The pause is kept over a restart of the node.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    others = (*settings.notifications, *settings.workflow_managers)
    known = (*settings.destination_names, *(each.name for each in others))
    if destination not in known:
        raise typer.BadParameter(
            f"there is no destination {destination!r}; the settings name "
            f"{', '.join(known) or 'none'}"
        )
    with find_state(settings) as state:
        state.deliveries.pause(destination, reason, getpass.getuser())
    _print_switch(destination, "paused", as_json=as_json)


@outbox.command("resume")
def resume(
    destination: Name, reason: Reason, config: Config = None, as_json: AsJson = False
) -> None:
    """Deliver to a paused destination again."""
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    with find_state(load_settings(config)) as state:
        state.deliveries.resume(destination, reason, getpass.getuser())
    _print_switch(destination, "resumed", as_json=as_json)


def _refuse_shadow(settings: Settings, set_id: int, names: Sequence[str]) -> None:
    """Refuse to make due what shadow mode keeps, so that leaving it sends nothing by itself."""
    from rebrain_node.errors import StateError

    kept = sorted(set(names) & set(settings.kept_names))
    if settings.shadow.active and kept:
        test = settings.shadow.destination
        hint = f", or give --to {test}" if test is not None and test in names else ""
        raise StateError(
            f"shadow mode is active (shadow.active): nothing of set {set_id} is sent to "
            f"{', '.join(kept)}; set it to false and start the node again before{hint}"
        )


def _is_receiver(notifications: Notifications, set_id: int, to: str | None) -> bool:
    return any(one.receiver == to for one in notifications.of(set_id))


def _destinations(deliveries: Deliveries, set_id: int, to: str | None) -> list[str]:
    return [one.destination for one in _deliveries_of(deliveries, set_id, to)]


def _deliveries_of(deliveries: Deliveries, set_id: int, to: str | None) -> tuple[Delivery, ...]:
    from rebrain_node.errors import StateError

    found = deliveries.of(to, set_id)
    if not found:
        where = "" if to is None else f" for destination {to!r}"
        raise StateError(
            f"the outbox holds no set {set_id}{where}; `rebrain-node outbox list --all` lists them"
        )
    return found


def _reason(delivery: Delivery, known: set[str]) -> str | None:
    if delivery.outstanding and delivery.destination not in known:
        return (
            "not a destination of the settings any more: add it again under [[destinations]], or "
            f"run `rebrain-node outbox cancel {delivery.set_id} --to {delivery.destination}`"
        )
    return delivery.reason


def _json(delivery: Delivery, known: set[str]) -> dict[str, object]:
    return asdict(delivery) | {
        "outstanding": delivery.outstanding,
        "unconfirmed": delivery.unconfirmed,
        "needs_operator": delivery.needs_operator,
        "reason": _reason(delivery, known),
        "since": delivery.since.isoformat(),
    }


def _notification(one: Notification) -> dict[str, object]:
    return asdict(one) | {"since": one.since.isoformat()}


def _print_notifications(title: str, notifications: Sequence[Notification]) -> None:
    columns = ("set", "destination", "receiver", "state", "since", "status", "attempts", "reason")
    rows = [
        (n.set_id, n.destination, n.receiver, n.state, utc(n.since),
         None if n.status is None else f"0x{n.status:04X}", n.attempts, n.text)
        for n in notifications
    ]  # fmt: skip
    if rows:
        print_table(title, columns, rows)


def _print_counts(what: str, counts: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        print_json({"objects": counts})
        return
    for name, count in counts.items():
        typer.echo(f"{count} objects for {name} are {what}")


def _print_switch(destination: str, state: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"destination": destination, "state": state})
    else:
        typer.echo(f"deliveries to {destination} are {state}")
