"""The detection rates of the node's input checks on simulated series."""

import json
from typing import Annotated

import typer

from trainer.cli.options import AsJson, Data, Maps, bar_of, data_of


def gates(
    maps: Maps,
    data: Data = None,
    draws: Annotated[int, typer.Option(min=1, help="Series of each class and head.")] = 1,
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure the node's input checks on simulated series.

    Every head is simulated without a condition and with each condition that must be refused.
    """
    from rebrain_node.limits_file import shipped_limits
    from trainer.evaluate import input_checks as measured
    from trainer.heads import catalogue

    found = []
    total = len(catalogue(data_of(data))) * (len(measured.CLASSES) + 1) * draws
    with bar_of("series", total) as (bar, task):
        for trial in measured.measure(data_of(data), maps, draws, seed, shipped_limits()):
            found.append(trial)
            bar.advance(task)
    scores = measured.detection_rates(found)
    if as_json:
        rows = [{"class": s.code, "n": s.n, "hits": s.hits, "interval": s.interval} for s in scores]
        typer.echo(json.dumps(rows))
    else:
        typer.echo(measured.table(scores))
