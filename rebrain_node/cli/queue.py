"""`status` and `queue`: counts by state, and the state of each series."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from rebrain_node.cli.terminal import AsJson, Config, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rebrain_node.domain.backlog import OverdueItem
    from rebrain_node.domain.delivery import PendingDelivery
    from rebrain_node.domain.ledger import LedgerCounts, SeriesRecord

queue = typer.Typer(help="Show the state of each series.", no_args_is_help=True)


def status(
    config: Config = None,
    late_after: Annotated[
        float,
        typer.Option(min=0.0, help="Minutes after which a waiting series or delivery is late."),
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Show counts of series by state.

    Also received and quarantined instances, and waiting deliveries with the reason. Exit code 1 if
    a series or a delivery waits longer than --late-after minutes, for a monitoring system.
    """
    from datetime import UTC, datetime

    from rebrain_node.app.compose import open_state
    from rebrain_node.domain.backlog import late
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    listening = settings.receiver
    with open_state(settings) as state:
        counts, waiting = state.ledger.counts(), state.outbox.pending()
        overdue = late(state.ledger.series(), waiting, datetime.now(UTC), late_after)
    answer = {
        "listens": f"{listening.ae_title}@{listening.address}:{listening.port}",
        "instances": counts.instances,
        "quarantined": counts.quarantined,
        "series": {
            "received": counts.received,
            "pending": counts.pending,
            **{str(state): count for state, count in counts.by_state.items()},
        },
        "conserved": counts.conserved,
        "deliveries_waiting": [_delivery(delivery) for delivery in waiting],
        "late": [asdict(one) | {"since": one.since.isoformat()} for one in overdue],
    }
    if as_json:
        print_json(answer)
    else:
        _print_status(answer, counts, waiting, overdue)
    if overdue:
        raise typer.Exit(1)


def _print_status(
    answer: dict[str, object],
    counts: LedgerCounts,
    waiting: Sequence[PendingDelivery],
    overdue: Sequence[OverdueItem],
) -> None:
    rows = [(name, answer[name]) for name in ("listens", "instances", "quarantined", "conserved")]
    rows += [(f"series {name}", count) for name, count in counts.by_state.items()]
    print_table("Node", ("field", "value"), rows)
    if waiting:
        columns = ("destination", "source series", "outstanding", "attempts", "reason")
        print_table(
            "Waiting for delivery",
            columns,
            [(d.destination, d.source_series_uid, d.outstanding, d.attempts, d.reason)
             for d in waiting],
        )  # fmt: skip
    if overdue:
        print_table(
            "Late",
            ("source series", "waits for", "since"),
            [(one.series_instance_uid, one.waits_for, one.since.isoformat()) for one in overdue],
        )


@queue.command("list")
def list_(
    config: Config = None,
    state: Annotated[str | None, typer.Option(help="Only series in this state.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the series and the state of each."""
    from rebrain_node.app.compose import open_state
    from rebrain_node.settings import load_settings

    with open_state(load_settings(config)) as node:
        records = [r for r in node.ledger.series() if state is None or r.state == state]
    if as_json:
        print_json({"series": [_series(record) for record in records]})
        return
    columns = ("series", "state", "instances", "revision", "reason")
    rows = [
        (r.series_instance_uid, r.state, r.instance_count, r.revision, _reason(r)) for r in records
    ]
    print_table("Series", columns, rows)


@queue.command("show")
def show(
    series: Annotated[str, typer.Argument(help="Series Instance UID.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show one series.

    State, findings, why it was accepted or refused, and waiting deliveries.
    """
    from rebrain_node.app.compose import open_state
    from rebrain_node.errors import StateError
    from rebrain_node.settings import load_settings

    with open_state(load_settings(config)) as state:
        record = state.ledger.series_one(series)
        waiting = [d for d in state.outbox.pending() if d.source_series_uid == series]
    if record is None:
        raise StateError(
            f"the ledger has no series {series}; `rebrain-node queue list` lists the series"
        )
    answer = _series(record) | {"deliveries_waiting": [_delivery(d) for d in waiting]}
    if as_json:
        print_json(answer)
        return
    rows = [(name, value) for name, value in answer.items() if not isinstance(value, list)]
    rows += [(f.code, f.sentence) for f in record.findings]
    rows += [("explanation", line) for line in record.explanation]
    rows += [(f"waits for {d.destination}", d.reason) for d in waiting]
    print_table("Series", ("field", "value"), rows)


def _reason(record: SeriesRecord) -> str:
    return record.findings[0].sentence if record.findings else ""


def _series(record: SeriesRecord) -> dict[str, object]:
    return asdict(record) | {"changed_at": record.changed_at.isoformat()}


def _delivery(delivery: PendingDelivery) -> dict[str, object]:
    return asdict(delivery) | {"since": delivery.since.isoformat()}
