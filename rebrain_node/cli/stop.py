"""`stop`: whether delivery is stopped, by which rule, and the person who ends it."""

from __future__ import annotations

import getpass
from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, cast

import typer

from rebrain_node.cli.terminal import AsJson, Config, choose, print_json, print_table
from rebrain_node.domain.stop_rules import STOP_RULES, RuleReading, StopRule
from rebrain_node.domain.text import utc

stop = typer.Typer(help="Show, set and release stops of delivery.", no_args_is_help=True)
Reason = Annotated[
    str, typer.Option(help="Why; written to the audit log: do not name the patient.")
]


@stop.command("list")
def list_(config: Config = None, as_json: AsJson = False) -> None:
    """Show where every stop rule stands, and the stops in force.

    A rule counts the newest series since it was released last. Exit code 1 while delivery is
    stopped.
    """
    from rebrain_node.app.compose import find_state, stop_limits
    from rebrain_node.settings import load_settings

    limits = stop_limits(load_settings(config))
    with find_state(load_settings(config)) as state:
        active, readings = state.stops.active(), state.stops.readings(limits)
    if as_json:
        print_json(
            {
                "stops": [asdict(one) | {"since": one.since.isoformat()} for one in active],
                "rules": [asdict(one) | {"applied": one.rule in limits.rules} for one in readings],
            }
        )
    else:
        since = {one.rule: one.since for one in active}
        columns = ("rule", "stands", "since", "value and limit", "setting")
        rows: list[tuple[object, ...]] = [
            (one.rule, _stands(one, since.keys(), limits.rules), _time(since.get(one.rule)),
             one.words, one.setting)
            for one in readings
        ]  # fmt: skip
        by_hand = [one for one in active if one.rule == "operator"]
        rows += [("operator", "STOPPED", utc(one.since), one.reason, "") for one in by_hand]
        print_table("Stop rules", columns, rows)
    if active:
        raise typer.Exit(1)


@stop.command("delivery")
def delivery(reason: Reason, config: Config = None, as_json: AsJson = False) -> None:
    """Stop every delivery by hand until `stop release operator`.

    Results are made and kept; rejection notes still leave. The stop is kept over a restart.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    with find_state(load_settings(config)) as state:
        state.stops.stop(reason, getpass.getuser())
    if as_json:
        print_json({"rule": "operator", "state": "stopped"})
    else:
        typer.echo("delivery is stopped; `rebrain-node stop release operator` ends that")


@stop.command("release")
def release(
    rule: Annotated[str, typer.Argument(help=f"One of {', '.join(STOP_RULES)}.")],
    reason: Reason,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """End a stop, so that what is kept is sent.

    Nothing is sent while another stop is in force. Stop single results before with `outbox
    cancel`. The rule counts anew: it stops delivery again only by series that end later, and on
    `stop.least_results` of them.
    """
    from rebrain_node.app.compose import find_state
    from rebrain_node.settings import load_settings

    choose(rule, STOP_RULES, "stop rule")
    with find_state(load_settings(config)) as state:
        state.stops.release(cast("StopRule", rule), reason, getpass.getuser())
        others = state.stops.active()
        waiting = len({one.set_id for one in state.deliveries.pending()})
    if as_json:
        still = [one.rule for one in others]
        print_json({"rule": rule, "state": "released", "results": waiting, "stopped_by": still})
        return
    then = f"{waiting} results are due again, as far as nothing else keeps them"
    if others:
        names = " and ".join(one.rule for one in others)
        then = f"{waiting} results are still kept, because {names} stops delivery too"
    typer.echo(f"the rule {rule} is released; {then}")


def _stands(reading: RuleReading, stopped: Collection[str], applied: Collection[str]) -> str:
    if reading.rule in stopped:
        return "STOPPED"
    return "within limit" if reading.rule in applied else "not applied"


def _time(moment: datetime | None) -> str:
    return "" if moment is None else utc(moment)
