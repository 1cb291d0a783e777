"""The options that several commands share, and the progress bar a person waits beside."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

Data = Annotated[
    Path | None, typer.Option(help="Folder of shared data; default REBRAIN_DATA or ../shared/data.")
]
Config = Annotated[Path, typer.Option(help="Parameters, e.g. conf/train/demo.toml.")]
Maps = Annotated[Path, typer.Option(help="Folder of anatomy maps, one file per head.")]
Samples = Annotated[Path, typer.Option("--pool", help="Folder of the pool of simulated samples.")]
Run = Annotated[Path, typer.Option(help="Folder of the training run.")]
Bundle = Annotated[str, typer.Option(help="demo, or the folder of a bundle.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Processes = Annotated[int, typer.Option(min=1, help="Heads worked on at the same time.")]


def data_of(folder: Path | None) -> Path:
    """Return `folder`, or the folder of shared data where none is given."""
    from trainer.data.heads import data_folder

    return folder if folder is not None else data_folder()


@contextmanager
def bar_of(label: str, total: int) -> Iterator[tuple[Progress, TaskID]]:
    """Show a progress bar on standard error while the block runs."""
    with Progress(console=Console(stderr=True)) as progress:
        yield progress, progress.add_task(label, total=total)
