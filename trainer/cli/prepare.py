"""Other people's images become one prepared data set."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from trainer.cli.options import AsJson, bar_of

LayoutName = Literal["synthrad", "brats", "flair-t1", "pairs", "dicom", "maps", "archive"]


def prepare(  # noqa: PLR0913 - the options of a command are its parameters
    layout: Annotated[LayoutName, typer.Argument(help="How the source data lie in folders.")],
    source: Annotated[Path, typer.Argument(help="Folder, table (.csv) or archive (.npz).")],
    out: Annotated[Path, typer.Option(help="Folder of the prepared data set.")],
    split: Annotated[
        str | None,
        typer.Option(help="train/validation/test: 14/3/3, 0.7/0.15/0.15, or a JSON file."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw of the split.")] = 0,
    kind: Annotated[
        Literal["ct", "mr"] | None,
        typer.Option("--source-kind", help="What the source is, for pairs and dicom."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the data; default by layout.")] = None,
    as_json: AsJson = False,
) -> None:
    """Bring pairs of volumes into the prepared format.

    Finished subjects are passed over. The exit code is 1 where a subject was refused, 3 where all
    were.
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

        def told(name: str, outcome: str) -> None:
            bar.advance(line)
            bar.console.print(f"{name}: {outcome}", markup=False, soft_wrap=True)

        summary = prepare_task(task, lambda total: bar.update(line, total=total), told)
    split_made = {} if summary.index is None else summary.index.split
    document = {
        "out": str(out),
        "source_kind": task.kind,
        "prepared": list(summary.prepared),
        "kept": list(summary.kept),
        "refused": summary.refused,
        "split": {role: list(names) for role, names in split_made.items()},
    }
    if as_json:
        typer.echo(json.dumps(document))
    else:
        typer.echo(
            f"{out}: {len(summary.prepared)} prepared, {len(summary.kept)} kept, "
            f"{len(summary.refused)} refused; "
            + ", ".join(f"{len(names)} {role}" for role, names in split_made.items())
        )
    if summary.refused:
        raise SystemExit(1 if summary.index else 3)
