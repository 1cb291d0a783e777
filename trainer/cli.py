"""`rebrain-train`: from nothing to a bundle. Heavy imports live inside the commands."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

if TYPE_CHECKING:
    from rebrain_node.model.card import Score

app = typer.Typer(
    no_args_is_help=True,
    help="Make a ReBrain model bundle: head -> simulate -> bridge -> score -> release.",
)
_console = Console(stderr=True)

Data = Annotated[
    Path | None, typer.Option(help="Folder of shared data; default REBRAIN_DATA or ../shared/data.")
]
Config = Annotated[Path, typer.Option(help="Parameters, e.g. conf/train/demo.toml.")]
Maps = Annotated[Path, typer.Option(help="Folder of anatomy maps, one file per head.")]
Samples = Annotated[Path, typer.Option("--pool", help="Folder of the pool of simulated samples.")]
Run = Annotated[Path, typer.Option(help="Folder of the training run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Processes = Annotated[int, typer.Option(min=1, help="Heads worked on at the same time.")]


def _data(folder: Path | None) -> Path:
    from trainer.heads import data_folder

    return folder if folder is not None else data_folder()


@contextmanager
def _bar(label: str, total: int) -> Iterator[tuple[Progress, TaskID]]:
    with Progress(console=_console) as progress:
        yield progress, progress.add_task(label, total=total)


@app.command()
def head(maps: Maps, data: Data = None, processes: Processes = 2) -> None:
    """Turn every head into 1 mm maps of anatomy; heads that have maps already are passed over.

    Raises
    ------
    SystemExit
        A head was refused; the status is 1.
    """
    from trainer.heads import catalogue
    from trainer.stages import map_head

    heads = [h for h in catalogue(_data(data)) if not (maps / f"{h.name}.npz").exists()]
    maps.mkdir(parents=True, exist_ok=True)
    refused = 0
    with ProcessPoolExecutor(processes) as workers, _bar("heads", len(heads)) as (bar, task):
        jobs = [workers.submit(map_head, h, _data(data), maps) for h in heads]
        for job in as_completed(jobs):
            name, reason = job.result()
            refused += reason is not None
            bar.advance(task)
            bar.console.print(f"{name}: {reason or 'done'}")
    if refused:
        raise SystemExit(1)


@app.command()
def simulate(
    config: Config, maps: Maps, pool: Samples, data: Data = None, processes: Processes = 2
) -> None:
    """Draw the pool of simulated CT samples with their T1; finished heads are passed over."""
    from trainer.config import TrainConfig
    from trainer.heads import catalogue
    from trainer.pool import PoolIndex, write_index
    from trainer.stages import simulate_head

    simulation = TrainConfig.load(config).simulate
    heads = [h for h in catalogue(_data(data)) if h.role != "demonstration"]
    records = []
    with ProcessPoolExecutor(processes) as workers, _bar("heads", len(heads)) as (bar, task):
        jobs = [workers.submit(simulate_head, h, maps, pool, simulation) for h in heads]
        for job in as_completed(jobs):
            records.append(job.result())
            bar.advance(task)
    records.sort(key=lambda record: record.name)
    write_index(pool, PoolIndex(seed=simulation.seed, subjects=tuple(records)))


@app.command()
def bridge(config: Config, pool: Samples, run: Run) -> None:
    """Train the network; a run that was interrupted goes on where its last checkpoint was."""
    import torch

    from rebrain_node.model.unet import WIDTHS
    from trainer.config import TrainConfig
    from trainer.pool import Pool
    from trainer.train_bridge import fresh_state, resume, train

    torch.set_num_threads(os.cpu_count() or 1)
    settings = TrainConfig.load(config)
    run.mkdir(parents=True, exist_ok=True)
    state = fresh_state(settings.train, WIDTHS)
    if (run / "checkpoint.pt").exists():
        resume(state, settings.training_digest, run / "checkpoint.pt")
    with _bar("steps", settings.train.steps) as (bar, task):

        def report(step: int, loss: float) -> None:
            bar.update(task, completed=step, description=f"steps (loss {loss:.4f})")

        bar.update(task, completed=state.step)
        train(settings, Pool.open(pool, "train"), state, run, report)


@app.command()
def score(
    config: Config,
    pool: Samples,
    run: Run,
    data: Data = None,
    every: Annotated[int, typer.Option(min=1, help="Score every n-th held-out sample.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Score a checkpoint on held-out heads and on the real pairs; writes RUN/scores.json."""
    from trainer import stages
    from trainer.config import TrainConfig

    with _bar("predictions", 1) as (bar, task):
        progress = stages.Progress(
            lambda total: bar.update(task, total=total), lambda: bar.advance(task)
        )
        folders = stages.Folders(pool, run, _data(data))
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


@app.command()
def release(
    config: Config,
    pool: Samples,
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")],
    version: Annotated[str, typer.Option(help="Version of the model.")],
    data: Data = None,
) -> None:
    """Turn a finished and scored run into a bundle."""
    from trainer import stages
    from trainer.config import TrainConfig

    folders = stages.Folders(pool, run, _data(data))
    bundle = stages.release_run(TrainConfig.load(config), folders, out, version)
    size = sum(record.size for record in bundle.manifest.files.values())
    typer.echo(f"{out}: {bundle.name} {version}, {size / 1e6:.1f} MB, {bundle.digest}")


@app.command("demo-head")
def demo_head(
    maps: Maps,
    out: Annotated[
        Path, typer.Option(help="Folder to write head.npz, LICENSE and README.md into.")
    ],
    data: Data = None,
) -> None:
    """Make the demonstration head: a simulated CT with its true T1."""
    import numpy as np

    from trainer.demo_head import write_demo_head
    from trainer.heads import DEMONSTRATION, catalogue

    chosen = next(h for h in catalogue(_data(data)) if h.name == DEMONSTRATION)
    with np.load(maps / f"{chosen.name}.npz") as arrays:
        size = write_demo_head(chosen, dict(arrays), out)
    typer.echo(f"{out / 'head.npz'}: {size / 1e6:.1f} MB")


@app.command()
def gates(
    maps: Maps,
    data: Data = None,
    draws: Annotated[int, typer.Option(min=1, help="Series of each class and head.")] = 1,
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure the node's own gates on simulated series with and without a condition."""
    from rebrain_node.domain.limits import shipped_limits
    from trainer import gates as measured
    from trainer.heads import catalogue

    found = []
    total = len(catalogue(_data(data))) * (len(measured.CLASSES) + 1) * draws
    with _bar("series", total) as (bar, task):
        for trial in measured.measure(_data(data), maps, draws, seed, shipped_limits()):
            found.append(trial)
            bar.advance(task)
    scores = measured.scores(found)
    if as_json:
        rows = [{"class": s.code, "n": s.n, "hits": s.hits, "interval": s.interval} for s in scores]
        typer.echo(json.dumps(rows))
    else:
        typer.echo(measured.table(scores))
