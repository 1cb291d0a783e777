"""`calibrate`: how far what a bundle draws may be from the truth."""

import json
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import AsJson, Data, Maps, bar_of, data_of


def calibrate(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle to calibrate.")],
    maps: Maps,
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")],
    version: Annotated[str, typer.Option(help="Version of the new bundle.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Give a bundle an uncertainty and limits to abstain by.

    Thick-slice series of every head that has maps go through the node's own steps. Training heads
    teach how large residuals are where; the heads held out set the widths. Leaves the new bundle
    in OUT, and the report beside it, OUT-uncertainty.json and OUT-uncertainty.md.
    """
    import torch

    from rebrain_node.model.bundle import load_bundle
    from trainer.calibrate.report import markdown
    from trainer.calibrate.run import Steps, SubjectSplit
    from trainer.calibrate.run import calibrate as run
    from trainer.heads import catalogue

    torch.set_num_threads(1)
    people = SubjectSplit.of(catalogue(data_of(data)), maps)
    with bar_of("starting", 1) as (bar, task):

        def started(what: str, count: int) -> None:
            bar.reset(task, description=what, total=count)

        steps = Steps(started, lambda: bar.advance(task))
        report = run(load_bundle(bundle), people, out, version, steps)
    text = json.dumps(report, indent=1) + "\n"
    out.with_name(f"{out.name}-uncertainty.json").write_text(text)
    page = markdown(report)
    out.with_name(f"{out.name}-uncertainty.md").write_text(page)
    typer.echo(json.dumps(report) if as_json else page)
