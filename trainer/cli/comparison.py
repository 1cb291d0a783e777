"""The comparison with the methods of the paper's Table 1."""

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli import options


def table1(  # noqa: PLR0913 - one option each
    config: options.Config,
    data: Annotated[Path, typer.Option(help="Prepared data set of volumes (`prepare`).")],
    out: Annotated[Path, typer.Option(help="Folder of the runs and of the tables.")],
    budget: Annotated[
        float | None,
        typer.Option(min=0.001, help="Minutes of processor time to train each method with."),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Iterations of each method, in place of --budget.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each method: 1 to N.")] = 3,
    method: Annotated[
        list[str] | None, typer.Option(help="One of the methods; repeatable. Default: all.")
    ] = None,
    sampling_steps: Annotated[
        int, typer.Option(min=1, help="Time steps that the methods sampling by diffusion take.")
    ] = 100,
    predictions: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=DIR: volumes of another method, DIR/PROTOCOL/SUBJECT.nii.gz with "
            "PROTOCOL = decimate-2, thick-2 and so on; repeatable."
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Runs made at the same time.")] = 1,
    as_json: options.AsJson = False,
) -> None:
    """Compare the methods of the paper's Table 1.

    Trains small versions of the paper's methods and ours, each with the same processor time or
    number of iterations, and scores the subjects of the role test with every 2nd, 3rd and 4th
    slice given, left out or averaged. A run that has ended is not repeated. Writes OUT/table1.md,
    table1.json and figures.
    """
    from trainer.cli.evaluation import named
    from trainer.evaluate.peer_runs import PeerRequest, run_all
    from trainer.evaluate.table1 import compare, write_comparison
    from trainer.peers.catalogue import METHODS
    from trainer.peers.fitting import Budget

    if (budget is None) == (iterations is None):
        raise typer.BadParameter("give either --budget or --iterations")
    methods = method or list(METHODS)
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise typer.BadParameter(f"--method {unknown[0]}: expected one of {', '.join(METHODS)}")
    others = {name: Path(folder) for name, folder in named(predictions, "DIR").items()}
    request = PeerRequest(
        config=config,
        data=data,
        out=out,
        budget=Budget(None if budget is None else budget * 60, iterations),
        sampling_steps=sampling_steps,
    )
    with options.bar_of("runs", seeds * len(methods)) as (bar, task):

        def done(name: str, seed: int) -> None:
            bar.advance(task)
            bar.console.print(f"{name}, seed {seed}: done")

        runs = run_all(request, methods, seeds, processes, done)
    comparison = compare(request, runs, others)
    write_comparison(comparison, out)
    text = out / ("table1.json" if as_json else "table1.md")
    typer.echo(text.read_text(encoding="utf-8"), nl=False)
