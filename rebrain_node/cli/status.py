"""`status`: whether the node runs, counts by state, and what is late or not delivered."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from rebrain_node.cli.queue import delivery_values
from rebrain_node.cli.storage import use_rows
from rebrain_node.cli.terminal import AsJson, Config, print_json, print_table
from rebrain_node.domain.text import reference, utc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rebrain_node.app.health import HealthReport
    from rebrain_node.settings import Settings

#: so many deliveries, and series that are late, stand in the tables
_LISTED: Final = 20


def status(
    config: Config = None,
    late_after: Annotated[
        float,
        typer.Option(min=0.0, help="Minutes after which a waiting series or delivery is late."),
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Show whether the node runs and what needs attention.

    The processes with their signs of life (with PostgreSQL those of all machines), bundle and
    signer, engine, disk with forecast, last result, series by state, and deliveries with the
    reason. Exit code 1 and one line why, for a monitoring system, if the node does not run, a
    process of any machine has ended or does not answer, the disk
    is below the soft mark, the database takes no write, bundle or engine failed the last check, a
    series failed in the last 24 hours, a series or a delivery waits longer than --late-after
    minutes, a delivery is refused or held back, delivery is stopped by a rule, a notification or
    workitem is refused, a receiver of audit messages or notices could not be told so long, or
    certificate files of the receiver cannot be used or have ended.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.app.health import health_of
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    with find_state(settings) as state:
        report = health_of(settings, state, late_after, listed=True)
    if as_json:
        print_json(_status(settings, report))
    else:
        _print_status(settings, report)
    if report.why is not None:
        typer.echo(f"rebrain-node: {report.why}", err=True)
        raise typer.Exit(1)


def _status(settings: Settings, report: HealthReport) -> dict[str, object]:
    counts = report.counts
    return {
        "node": report.node,
        "processes": [
            {
                "machine": one.machine,
                "process": one.process,
                "state": one.state,
                "pid": one.pid,
                "silent_s": round(one.silent_s, 1),
                "duties": one.duties,
            }
            for one in report.executors
        ],
        "well": report.why is None,
        "why": report.why,
        "checks": {each.name: each.sentence or None for each in report.checks},
        "bundle": report.bundle,
        "last_result": report.last_result and report.last_result.isoformat(),
        "failed_last_day": report.failed_lately,
        "listens": _address(settings),
        "ports": settings.receiver.listening_words,
        "instances": counts.instances,
        "quarantined": counts.quarantined,
        "disputed": counts.disputed,
        "series": {
            "received": counts.received,
            "pending": counts.pending,
            **{str(state): count for state, count in counts.by_state.items()},
        },
        "published_confirmed": counts.confirmed,
        "published_unconfirmed": counts.unconfirmed,
        "conserved": counts.conserved,
        "deliveries_waiting": [delivery_values(delivery) for delivery in report.waiting],
        "deliveries_refused": [delivery_values(delivery) for delivery in report.refused],
        "notifications_refused": report.backlog.notifications_refused,
        "workitems_refused": report.backlog.workitems_refused,
        "paused_destinations": report.paused,
        "audit_queue": [
            asdict(one) | {"since": one.since and one.since.isoformat()}
            for one in report.audit_queue
        ],
        "stops": [asdict(one) | {"since": one.since.isoformat()} for one in report.stops],
        "shadow": report.shadow,
        "results_kept": report.backlog.kept,
        "storage": report.storage,
        "late": [asdict(one) | {"since": one.since.isoformat()} for one in report.overdue],
    }


def _address(settings: Settings) -> str:
    receiver = settings.receiver
    port = receiver.port if receiver.tls is None else receiver.tls.port
    return f"{receiver.ae_title}@{receiver.address}:{port}"


def _engine(bundle: Mapping[str, Any]) -> str:
    fallback = bundle["fallback"]
    if fallback is None:
        return str(bundle["engine"])
    return f"{bundle['engine']}, in place of {fallback['set']}: {fallback['reason']}"


def _process_rows(report: HealthReport) -> list[tuple[str, object]]:
    """Rows of the supervisor and processes of this machine, then of the processes of all."""
    node = report.node
    rows: list[tuple[str, object]] = [
        ("runs", f"process {node['pid']}" if node["running"] else "NO")
    ]
    if node.get("supervisor_silent_s") is not None:
        rows.append(("supervisor, seconds since its last report", node["supervisor_silent_s"]))
    for each in node["processes"]:
        life = f"last sign of life {each['silent_s']} s ago"
        line = f"{each['state']}, process {each['pid']}, {life}, {each['restarts']} restarts"
        rows.append((each["role"], line))
    for one in report.executors:
        life = f"{one.state}, process {one.pid}, last sign of life {one.silent_s:.1f} s ago"
        rows.append((one.name, ", ".join((life, *one.duties))))
    return rows


def _print_status(settings: Settings, report: HealthReport) -> None:
    node, counts, bundle = report.node, report.counts, report.bundle
    listens = "listens" if node["running"] else "would listen"
    rows = _process_rows(report)
    if bundle is not None:
        signer = bundle["signed_by"] or "nobody"
        rows.append(("bundle", f"{bundle['name']} {bundle['version']}, signed by {signer}"))
        rows.append(("engine", _engine(bundle)))
    rows.append(("last result", report.last_result and utc(report.last_result)))
    rows.append(("series failed in the last 24 hours", report.failed_lately))
    rows += [
        (listens, "; ".join((_address(settings), *settings.receiver.listening_words))),
        ("instances", counts.instances),
        ("quarantined", counts.quarantined),
        ("disputed", counts.disputed),
        ("every series accounted for", "yes" if counts.conserved else "NO"),
    ]
    rows += [(f"DELIVERY STOPPED by {one.rule}", one.reason) for one in report.stops]
    if report.shadow["active"]:
        test = report.shadow["destination"]
        where = "results stay in the node" if test is None else f"results go to {test} alone"
        rows.append(("SHADOW MODE", where))
    if report.backlog.kept:
        rows.append(("results kept in shadow mode", report.backlog.kept))
    if report.paused:
        rows.append(("paused destinations", ", ".join(report.paused)))
    rows += [(f"series {name}", count) for name, count in counts.by_state.items()]
    rows.append(("series published, confirmed", counts.confirmed))
    rows.append(("series published, not confirmed", counts.unconfirmed))
    rows.append(("notifications refused", report.backlog.notifications_refused))
    rows.append(("workitems refused", report.backlog.workitems_refused))
    rows += [(f"storage: {name}", value) for name, value in use_rows(report.storage)]
    for reader in report.audit_queue:
        why = f", {reader.failures} failed attempts: {reader.reason}" if reader.failures else ""
        rows.append((reader.reader, f"{reader.rows} events to be told{why}"))
    print_table("Node", ("field", "value"), rows)
    if deliveries := (*report.waiting, *report.refused):
        print_table(
            "Not delivered",
            ("set", "destination", "id", "source series", "objects", "reason"),
            [
                (
                    d.set_id,
                    d.destination,
                    reference(d.source_series_uid),
                    d.source_series_uid,
                    d.summary,
                    d.reason,
                )
                for d in deliveries[:_LISTED]
            ],
            piped=("source series",),
        )
        _print_more(len(deliveries), "`rebrain-node outbox list`")
    if report.overdue:
        print_table(
            "Late",
            ("id", "source series", "waits for", "since"),
            [
                (
                    reference(one.series_instance_uid),
                    one.series_instance_uid,
                    one.waits_for,
                    utc(one.since),
                )
                for one in report.overdue[:_LISTED]
            ],
            piped=("source series",),
        )
        _print_more(len(report.overdue), "`rebrain-node status --json`")


def _print_more(count: int, command: str) -> None:
    if count > _LISTED:
        typer.echo(f"and {count - _LISTED} more: {command} lists all")
