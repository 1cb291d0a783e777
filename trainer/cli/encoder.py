"""`head-template`, `encoder`: where a slice lies in a head, and what it looks like."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.options import Config, Data, Maps, Processes, Run, bar_of, data_of

if TYPE_CHECKING:
    from trainer.config import TrainConfig
    from trainer.heads import Head
    from trainer.simulate.hounsfield import Tissues


def head_template(
    maps: Maps,
    out: Annotated[Path, typer.Option(help="Folder to write template.npz and LICENSE into.")],
    data: Data = None,
) -> None:
    """Average simulated CT into the head template."""
    import numpy as np

    from trainer.heads import catalogue
    from trainer.simulate.hounsfield import tissues
    from trainer.simulate.shipped_heads import chosen, mean_template, write_head_template

    heads = chosen(catalogue(data_of(data)))
    with bar_of("heads", len(heads)) as (bar, task):

        def anatomies() -> "Iterator[Tissues]":
            for head in heads:
                with np.load(maps / f"{head.name}.npz") as arrays:
                    yield tissues(dict(arrays))
                bar.advance(task)

        size = write_head_template(out, mean_template(anatomies()), heads)
    typer.echo(f"{out / 'template.npz'}: {size / 1e3:.0f} kB")


def encoder(
    config: Config,
    maps: Maps,
    run: Run,
    data: Data = None,
    processes: Processes = 2,
    start: Annotated[
        Path | None, typer.Option(help="Pretrained weights, safetensors; default: from scratch.")
    ] = None,
) -> None:
    """Train the encoder.

    A run that was interrupted goes on where its last checkpoint was. Draws RUN/stacks first, where
    they are not there yet. Leaves RUN/encoder.onnx and RUN/encoder.safetensors.
    """
    import os

    import torch
    from safetensors.torch import save_file

    from trainer.config import TrainConfig
    from trainer.heads import catalogue
    from trainer.release.export import export_encoder, halves_of
    from trainer.simulate.stacks import Stacks
    from trainer.train import encoder as train_encoder

    settings = TrainConfig.load(config)
    if settings.encoder is None:
        raise typer.BadParameter(f"{config} has no [encoder]")
    heads = [head for head in catalogue(data_of(data)) if (maps / f"{head.name}.npz").exists()]
    _draw_stacks(settings, heads, maps, run / "stacks", processes)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    stacks = Stacks.open(run / "stacks", "train")
    state = train_encoder.fresh_state(settings.encoder, stacks, start)
    checkpoint = run / "checkpoint.pt"
    if checkpoint.exists():
        state.resume(checkpoint)
    with bar_of("steps", settings.encoder.steps) as (bar, task):

        def report(step: int, loss: float) -> None:
            bar.update(task, completed=step, description=f"steps (loss {loss:.3f})")

        bar.update(task, completed=state.step)
        train_encoder.train(settings.encoder, stacks, state, run, report)
    weights = train_encoder.trained(run).state_dict()
    (run / "encoder.onnx").write_bytes(export_encoder(weights))
    save_file(halves_of(weights), run / "encoder.safetensors")
    typer.echo(f"{run / 'encoder.onnx'}")


def _draw_stacks(
    settings: "TrainConfig", heads: "list[Head]", maps: Path, folder: Path, processes: int
) -> None:
    from trainer.simulate.pool import write_index
    from trainer.simulate.stacks import StackIndex, stack_head

    if (folder / "index.json").exists() or settings.encoder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    seed = settings.encoder.seed
    with ProcessPoolExecutor(processes) as workers, bar_of("stacks", len(heads)) as (bar, task):
        jobs = [
            workers.submit(stack_head, head, maps, folder, seed, settings.recipe) for head in heads
        ]
        records = []
        for job in as_completed(jobs):
            record = job.result()
            if record is not None:
                records.append(record)
            bar.advance(task)
    left_out = sorted({head.name for head in heads} - {record.name for record in records})
    if left_out:
        typer.echo(f"left out, their registration to MNI is not credible: {', '.join(left_out)}")
    records.sort(key=lambda record: record.name)
    write_index(folder, StackIndex(seed=seed, subjects=tuple(records)))
