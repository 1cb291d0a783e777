"""The stages from heads to a bundle: head, simulate, bridge, score, release."""

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from trainer.cli.options import AsJson, Config, Data, Maps, Processes, Run, Samples, bar_of, data_of
from trainer.cli.signing import KeyFile, finish, private_key

if TYPE_CHECKING:
    from rebrain_node.model.card import Score


def head(maps: Maps, data: Data = None, processes: Processes = 2) -> None:
    """Turn every head into 1 mm maps of anatomy.

    Heads that have maps already are passed over. The exit code is 1 where a head was refused.
    """
    from trainer.heads import catalogue
    from trainer.stages import map_head

    heads = [h for h in catalogue(data_of(data)) if not (maps / f"{h.name}.npz").exists()]
    maps.mkdir(parents=True, exist_ok=True)
    refused = 0
    with ProcessPoolExecutor(processes) as workers, bar_of("heads", len(heads)) as (bar, task):
        jobs = [workers.submit(map_head, h, data_of(data), maps) for h in heads]
        for job in as_completed(jobs):
            name, reason = job.result()
            refused += reason is not None
            bar.advance(task)
            bar.console.print(f"{name}: {reason or 'done'}")
    if refused:
        raise SystemExit(1)


def simulate(
    config: Config,
    maps: Maps,
    pool: Samples,
    data: Data = None,
    processes: Processes = 2,
    gaps: Annotated[
        bool, typer.Option("--gaps", help="Draw by [gaps]: missing positions, for `control`.")
    ] = False,
) -> None:
    """Draw the pool of simulated CT samples with their T1.

    Finished heads are passed over.
    """
    from trainer.config import TrainConfig
    from trainer.heads import catalogue
    from trainer.simulate.pool import PoolIndex, write_index
    from trainer.stages import simulate_head

    settings = TrainConfig.load(config)
    simulation = settings.gaps if gaps else settings.simulate
    if simulation is None:
        raise typer.BadParameter(f"{config} has no [{'gaps' if gaps else 'simulate'}]")
    heads = [h for h in catalogue(data_of(data)) if h.role != "demonstration"]
    records = []
    with ProcessPoolExecutor(processes) as workers, bar_of("heads", len(heads)) as (bar, task):
        jobs = [workers.submit(simulate_head, h, maps, pool, simulation) for h in heads]
        for job in as_completed(jobs):
            records.append(job.result())
            bar.advance(task)
    records.sort(key=lambda record: record.name)
    write_index(pool, PoolIndex(seed=simulation.seed, subjects=tuple(records)))


def bridge(
    config: Config,
    run: Run,
    pool: Annotated[Path | None, typer.Option(help="Learn from this pool.")] = None,
    data: Annotated[Path | None, typer.Option(help="Learn from this prepared data set.")] = None,
) -> None:
    """Train the network.

    A run that was interrupted goes on where its last checkpoint was. Under torchrun every process
    draws its part of each batch; all see the same RUN.
    """
    from trainer.config import TrainConfig
    from trainer.stages import source_of
    from trainer.train.bridge import fresh_state, train
    from trainer.train.workers import joined

    if (pool is None) == (data is None):
        raise typer.BadParameter("give --pool or --data, one of them")
    settings = TrainConfig.load(config)
    run.mkdir(parents=True, exist_ok=True)
    with joined() as workers, bar_of("steps", settings.train.steps) as (bar, task):

        def report(step: int, loss: float) -> None:
            bar.update(task, completed=step, description=f"steps (loss {loss:.4f})")

        bar.update(task, visible=workers.writes)
        state = fresh_state(settings, workers.device)
        if (run / "checkpoint.pt").exists():
            state.resume(run / "checkpoint.pt")
        bar.update(task, completed=state.step)
        source = source_of(settings.recipe, pool, data)
        train(settings, source, state, run, report, workers)


def score(
    config: Config,
    pool: Samples,
    run: Run,
    data: Data = None,
    every: Annotated[int, typer.Option(min=1, help="Score every n-th held-out sample.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Score a checkpoint on held-out heads and real pairs.

    Writes RUN/scores.json.
    """
    from trainer import stages
    from trainer.config import TrainConfig
    from trainer.evaluate.run import Progress

    with bar_of("predictions", 1) as (bar, task):
        progress = Progress(lambda total: bar.update(task, total=total), lambda: bar.advance(task))
        folders = stages.Folders(pool, run, data_of(data))
        scores = stages.score_run(TrainConfig.load(config), folders, every, progress)
    document = [entry.model_dump() for entry in scores]
    (run / "scores.json").write_text(json.dumps(document, indent=1) + "\n")
    if as_json:
        typer.echo(json.dumps(document))
    else:
        for test in dict.fromkeys(entry.test for entry in scores):
            Console().print(_table(test, [entry for entry in scores if entry.test == test]))


def _table(test: str, scores: "list[Score]") -> Table:
    names = list(dict.fromkeys(name for entry in scores for name in entry.figures))
    table = Table("method", *names, title=test)
    for entry in scores:
        table.add_row(
            entry.method, *(f"{entry.figures.get(name, float('nan')):.3f}" for name in names)
        )
    return table


def release(  # noqa: PLR0913 - one option each
    config: Config,
    pool: Samples,
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")],
    version: Annotated[str, typer.Option(help="Version of the model.")],
    data: Data = None,
    key: KeyFile = None,
) -> None:
    """Turn a finished and scored run into a bundle.

    It is signed where a key is given.
    """
    from trainer import stages
    from trainer.config import TrainConfig

    signing = private_key(key)
    folders = stages.Folders(pool, run, data_of(data))
    bundle = stages.release_run(TrainConfig.load(config), folders, out, version)
    finish(bundle, signing)
