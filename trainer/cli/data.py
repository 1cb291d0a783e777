"""Training data: prepared data sets, tissue maps, simulated samples, templates."""

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Literal

import typer

from trainer.cli.options import (
    AsJson,
    Config,
    Data,
    Maps,
    Processes,
    Samples,
    bar_of,
    data_of,
    heads_of,
    section_of,
    tissues_of,
)

LayoutName = Literal["synthrad", "brats", "flair-t1", "pairs", "dicom", "maps", "archive"]


def prepare(  # noqa: PLR0913 - one option each
    layout: Annotated[LayoutName, typer.Argument(help="How files are arranged in SOURCE.")],
    source: Annotated[Path, typer.Argument(help="Folder, table (.csv) or archive (.npz).")],
    out: Annotated[Path, typer.Option(help="Folder of the prepared data set.")],
    split: Annotated[
        str | None,
        typer.Option(
            help="Train/validation/test split: counts 14/3/3, shares 0.7/0.15/0.15 (used if none "
            "is given), or a JSON file with the subjects of each role."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = 0,
    kind: Annotated[
        Literal["ct", "mr"] | None,
        typer.Option("--source-kind", help="Modality of the source; for pairs and dicom only."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the data; default: that of the layout.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert paired images to a prepared data set.

    Pairs are CT and MR, or two MR sequences, of the same subject. Subjects that are prepared
    already are skipped. Exit code 1 if a subject was refused, 3 if all were; the reason of each is
    printed.
    """
    from trainer.data.layouts import LAYOUTS
    from trainer.data.prepare import Task
    from trainer.data.prepare import prepare as prepare_task

    chosen = LAYOUTS[layout]
    if chosen.kind is None and kind is None:
        raise typer.BadParameter(f"the layout {layout} needs --source-kind ct or mr")
    if chosen.kind is not None and kind not in {None, chosen.kind}:
        raise typer.BadParameter(f"the source of the layout {layout} is {chosen.kind}, not {kind}")
    task = Task(
        chosen, chosen.kind or kind or "ct", source, out, split, seed, licence or chosen.licence
    )
    with bar_of("subjects", 1) as (bar, line):

        def report(name: str, outcome: str) -> None:
            bar.advance(line)
            bar.console.print(f"{name}: {outcome}", markup=False, soft_wrap=True)

        summary = prepare_task(task, lambda total: bar.update(line, total=total), report)
    roles = {} if summary.index is None else summary.index.split
    document = {
        "out": str(out),
        "source_kind": task.kind,
        "prepared": list(summary.prepared),
        "kept": list(summary.kept),
        "refused": summary.refused,
        "split": {role: list(names) for role, names in roles.items()},
    }
    if as_json:
        typer.echo(json.dumps(document))
    else:
        typer.echo(
            f"{out}: {len(summary.prepared)} prepared, {len(summary.kept)} kept, "
            f"{len(summary.refused)} refused; "
            + ", ".join(f"{len(names)} {role}" for role, names in roles.items())
        )
    if summary.refused:
        raise SystemExit(1 if summary.index else 3)


def tissue_maps(maps: Maps, data: Data = None, processes: Processes = 2) -> None:
    """Compute 1 mm tissue maps for each subject.

    Subjects that have maps already are skipped. Exit code 1 if a subject was refused; the reason
    is printed.
    """
    from trainer.stages import map_head

    heads = [h for h in heads_of(data) if not (maps / f"{h.name}.npz").exists()]
    maps.mkdir(parents=True, exist_ok=True)
    refused = 0
    with ProcessPoolExecutor(processes) as workers, bar_of("subjects", len(heads)) as (bar, task):
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
        bool,
        typer.Option(
            "--gaps",
            help="Simulate missing positions only, by [gaps] of the parameters, for "
            "`train-control`.",
        ),
    ] = False,
) -> None:
    """Simulate CT samples paired with T1 for training.

    Subjects that have samples already are skipped.
    """
    from trainer.config import TrainConfig
    from trainer.simulate.pool import PoolIndex, write_index
    from trainer.stages import simulate_head

    settings = TrainConfig.load(config)
    simulation = (
        section_of(config, "gaps", settings.gaps)
        if gaps
        else section_of(config, "simulate", settings.simulate)
    )
    heads = heads_of(data, "train", "validation")
    records = []
    with ProcessPoolExecutor(processes) as workers, bar_of("subjects", len(heads)) as (bar, task):
        jobs = [workers.submit(simulate_head, h, maps, pool, simulation) for h in heads]
        for job in as_completed(jobs):
            records.append(job.result())
            bar.advance(task)
    records.sort(key=lambda record: record.name)
    write_index(pool, PoolIndex(seed=simulation.seed, subjects=tuple(records)))


def head_template(
    maps: Maps,
    out: Annotated[Path, typer.Option(help="Folder for template.npz and LICENSE.")],
    data: Data = None,
) -> None:
    """Build the registration template from simulated CT."""
    from trainer.simulate.head_template import chosen, mean_template, write_head_template

    heads = chosen(heads_of(data))
    with bar_of("subjects", len(heads)) as (bar, task):
        tissues = (tissues_of(maps, head) for head in bar.track(heads, task_id=task))
        size = write_head_template(out, mean_template(tissues), heads)
    typer.echo(f"{out / 'template.npz'}: {size / 1e3:.0f} kB")


def demo_head(
    maps: Maps,
    out: Annotated[Path, typer.Option(help="Folder for head.npz, LICENSE and README.md.")],
    data: Data = None,
) -> None:
    """Simulate the head CT of `rebrain-node demo`.

    Writes the CT and the T1 it was simulated from to OUT/head.npz.
    """
    import numpy as np

    from trainer.simulate.demo_head import write_demo_head

    (head,) = heads_of(data, "demonstration")
    with np.load(maps / f"{head.name}.npz") as arrays:
        size = write_demo_head(head, dict(arrays), out)
    typer.echo(f"{out / 'head.npz'}: {size / 1e6:.1f} MB")
