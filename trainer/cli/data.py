"""Training data: prepared data sets, tissue maps, simulated samples, templates."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainer.cli import options

if TYPE_CHECKING:
    from trainer.data.dataset import Layout, SourceKind

LayoutName = Literal["synthrad", "brats", "flair-t1", "nifti", "dicom", "maps", "archive"]


def prepare(  # noqa: PLR0913 - one option each
    layout: Annotated[LayoutName, typer.Argument(help="How files are arranged in SOURCE.")],
    source: Annotated[Path, typer.Argument(help="Folder, table (.csv) or archive (.npz).")],
    out: Annotated[Path, typer.Option(help="Folder of the prepared data set.")],
    split: Annotated[
        str | None,
        typer.Option(
            help="Train/validation/test: counts (14/3/3), shares (default: 0.7/0.15/0.15) or a "
            "JSON file of the subjects of each role."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = 0,
    kind: Annotated[
        Literal["ct", "mr"] | None,
        typer.Option("--source-kind", help="Modality of the source; for nifti and dicom."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence; default: of the layout.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Convert paired images to a prepared data set.

    A pair is CT and MR, or two MR sequences, of one subject. Subjects that are prepared already
    are skipped. Exit code 1 if a subject was refused, 3 if all were; reasons are printed.
    """
    from trainer.data.layouts import LAYOUTS
    from trainer.data.prepare import Task
    from trainer.data.prepare import prepare as prepare_task

    chosen = LAYOUTS[layout]
    task = Task(chosen, kind_of(chosen, kind), source, out, split, seed, licence or chosen.licence)
    with options.bar_of("subjects", 1) as (bar, line):

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


def kind_of(layout: "Layout", given: Literal["ct", "mr"] | None) -> "SourceKind":
    """Return what the source of a layout is, where it must be given as given."""
    if layout.kind is None and given is None:
        raise typer.BadParameter(f"the layout {layout.name} needs --source-kind ct or mr")
    if layout.kind is not None and given not in {None, layout.kind}:
        raise typer.BadParameter(
            f"the source of the layout {layout.name} is {layout.kind}, not {given}"
        )
    return layout.kind or given or "ct"


def tissue_maps(
    maps: options.Maps, data: options.Data = None, processes: options.Processes = 2
) -> None:
    """Compute 1 mm tissue maps for each subject.

    Subjects that have maps already are skipped. Exit code 1 if a subject was refused; the reason
    is printed.
    """
    from trainer.stages import map_head

    heads = [h for h in options.heads_of(data) if not (maps / f"{h.name}.npz").exists()]
    maps.mkdir(parents=True, exist_ok=True)
    work = partial(map_head, data=options.data_of(data), folder=maps)
    results = options.in_parallel(work, heads, processes, lambda r: f"{r[0]}: {r[1] or 'done'}")
    if any(reason for _, reason in results):
        raise SystemExit(1)


def simulate(
    config: options.Config,
    maps: options.Maps,
    pool: options.Samples,
    data: options.Data = None,
    processes: options.Processes = 2,
    gaps: Annotated[
        bool, typer.Option("--gaps", help="Missing positions only, for `train-control`.")
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
        options.section_of(config, "gaps", settings.gaps)
        if gaps
        else options.section_of(config, "simulate", settings.simulate)
    )
    work = partial(simulate_head, maps=maps, pool=pool, simulation=simulation)
    records = options.in_parallel(work, options.heads_of(data, "train", "validation"), processes)
    records.sort(key=lambda record: record.name)
    write_index(pool, PoolIndex(seed=simulation.seed, subjects=tuple(records)))


def head_template(
    maps: options.Maps,
    out: Annotated[Path, typer.Option(help="Folder for template.npz and LICENSE.")],
    data: options.Data = None,
) -> None:
    """Build the registration template from simulated CT.

    It is the head template of the node: the mean simulated CT of twelve subjects.
    """
    from trainer.simulate.shipped_heads import chosen, mean_template, write_head_template

    heads = chosen(options.heads_of(data))
    with options.bar_of("subjects", len(heads)) as (bar, task):
        tissues = (options.tissues_of(maps, head) for head in bar.track(heads, task_id=task))
        size = write_head_template(out, mean_template(tissues), heads)
    typer.echo(f"{out / 'template.npz'}: {size / 1e3:.0f} kB")


def demo_head(
    maps: options.Maps,
    out: Annotated[Path, typer.Option(help="Folder for head.npz, LICENSE and README.md.")],
    data: options.Data = None,
) -> None:
    """Simulate the head CT of `rebrain-node demo`.

    Writes the CT and the T1 it was simulated from to OUT/head.npz.
    """
    import numpy as np

    from trainer.simulate.shipped_heads import write_demo_head

    (head,) = options.heads_of(data, "demonstration")
    with np.load(maps / f"{head.name}.npz") as arrays:
        size = write_demo_head(head, dict(arrays), out)
    typer.echo(f"{out / 'head.npz'}: {size / 1e6:.1f} MB")
