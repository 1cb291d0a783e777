"""`status` and `queue`: how much work there is and where each series stands."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from rebrain_node.cli.options import AsJson, Config
from rebrain_node.cli.present import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rebrain_node.domain.backlog import Late
    from rebrain_node.domain.delivery import PendingDelivery
    from rebrain_node.domain.ledger import LedgerCounts, SeriesRecord

queue = typer.Typer(help="Where each series stands.", no_args_is_help=True)


def status(
    config: Config = None,
    late_after: Annotated[
        float, typer.Option(min=0.0, help="Minutes after which waiting is late: exit code 1.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Count what was received, refused, published or waits.

    Exit code 1 if something waits for longer than it may: for a monitoring system to ask.
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
    overdue: Sequence[Late],
) -> None:
    rows = [(name, answer[name]) for name in ("listens", "instances", "quarantined", "conserved")]
    rows += [(f"series {name}", count) for name, count in counts.by_state.items()]
    print_table("Node", ("what", "value"), rows)
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
    """List the series of the ledger and where they stand."""
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

    Its findings, why it was or was not chosen, what waits for delivery.
    """
    from rebrain_node.app.compose import open_state
    from rebrain_node.errors import StateRefused
    from rebrain_node.settings import load_settings

    with open_state(load_settings(config)) as state:
        record = state.ledger.series_one(series)
        waiting = [d for d in state.outbox.pending() if d.source_series_uid == series]
    if record is None:
        raise StateRefused(
            f"the ledger knows no series {series}; `rebrain-node queue list` shows those it knows"
        )
    answer = _series(record) | {"deliveries_waiting": [_delivery(d) for d in waiting]}
    if as_json:
        print_json(answer)
        return
    rows = [(name, value) for name, value in answer.items() if not isinstance(value, list)]
    rows += [(f.code, f.sentence) for f in record.findings]
    rows += [("because", line) for line in record.explanation]
    rows += [(f"waits for {d.destination}", d.reason) for d in waiting]
    print_table("Series", ("what", "value"), rows)


def _reason(record: SeriesRecord) -> str:
    return record.findings[0].sentence if record.findings else ""


def _series(record: SeriesRecord) -> dict[str, object]:
    return asdict(record) | {"changed_at": record.changed_at.isoformat()}


def _delivery(delivery: PendingDelivery) -> dict[str, object]:
    return asdict(delivery) | {"since": delivery.since.isoformat()}
