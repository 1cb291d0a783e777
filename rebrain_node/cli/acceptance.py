"""`audit acceptance`: whether shadow mode has shown enough to go on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rebrain_node.cli.audit import audit, days_of
from rebrain_node.cli.terminal import AsJson, Config, print_json, print_table

if TYPE_CHECKING:
    from rebrain_node.domain.acceptance import AcceptanceFacts


@audit.command("acceptance")
def acceptance(
    period: Annotated[
        str,
        typer.Option(help="Two days in UTC, both included, e.g. 2026-11-01/2026-11-30."),
    ],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("acceptance.html"),
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write an acceptance report about the results of shadow mode.

    Studies, refusals and failures by code, latency, uncertainty, OOD score, drift, verdicts of
    readers (`queue verdict`) with their 95 % interval, and each criterion of `[acceptance]`, met or
    not. The page holds everything in one file, loads nothing and names no patient. Exit code 1 if
    a criterion is not met.
    """
    from rebrain_node.app.acceptance import acceptance_of, write_acceptance_report
    from rebrain_node.settings import load_settings

    facts = acceptance_of(load_settings(config), *days_of(period))
    write_acceptance_report(facts, out)
    if as_json:
        print_json(_as_dict(facts) | {"report": str(out)})
    else:
        rows = [
            (one.name, one.found, one.required, "met" if one.met else "NOT MET", one.setting)
            for one in facts.rules
        ]
        columns = ("criterion", "found", "required", "met", "setting")
        print_table("Acceptance", columns, rows, piped=("setting",))
        typer.echo(str(out))
    if not facts.met:
        raise typer.Exit(1)


def _as_dict(facts: AcceptanceFacts) -> dict[str, Any]:
    return {
        "begin": facts.begin.isoformat(),
        "end": facts.end.isoformat(),
        "shadow_active": [[a.isoformat(), b.isoformat()] for a, b in facts.active],
        "met": facts.met,
        "criteria": [asdict(one) for one in facts.rules],
        "studies": facts.studies,
        "results_outside": facts.outside,
        "refused": dict(facts.refused),
        "failed": dict(facts.failed),
        "gate": dict(facts.gate),
        "failures": facts.failures,
        "stops": list(facts.stops),
        "drift": [asdict(one) for one in facts.drift],
        "latencies_s": facts.latencies_s,
        "results": [
            {
                "series_instance_uid": one.series_instance_uid,
                "set": one.set_id,
                "made_at": one.made_at.isoformat(),
                "latency_s": one.latency_s,
                "accepted": one.accepted,
                "verdicts": [each.to_json() for each in one.verdicts],
                **one.measures.to_json(),
            }
            for one in facts.results
        ],
    }
