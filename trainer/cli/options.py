"""Options that several commands share, and the progress bar."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

if TYPE_CHECKING:
    from trainer.heads import Head
    from trainer.simulate.hounsfield import Tissues

Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder with t1_highres, t1_flair_2mm and templates; default: the environment "
        "variable REBRAIN_DATA, else ../shared/data."
    ),
]
Config = Annotated[Path, typer.Option(help="TOML file of parameters, e.g. conf/train/demo.toml.")]
Maps = Annotated[
    Path, typer.Option(help="Folder of tissue maps at 1 mm, one file per subject (`tissue-maps`).")
]
Samples = Annotated[
    Path, typer.Option("--pool", help="Folder of simulated training samples (`simulate`).")
]
Run = Annotated[Path, typer.Option(help="Folder of the training run; resumed if it exists.")]
Out = Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")]
Version = Annotated[str, typer.Option(help="Version of the new bundle, e.g. 1.2.0.")]
BundleOption = Annotated[
    Path, typer.Option("--bundle", help="Folder of the bundle; it stays as it is.")
]
BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle; it stays as it is.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Processes = Annotated[int, typer.Option(min=1, help="Number of processes, one subject each.")]


_Section = TypeVar("_Section")


def data_of(folder: Path | None) -> Path:
    """Return `folder`, or the default folder of shared data."""
    from trainer.heads import data_folder

    return folder if folder is not None else data_folder()


def section_of(path: Path, name: str, section: _Section | None) -> _Section:
    """Return a section of the parameters that a command needs.

    Raises
    ------
    typer.BadParameter
        The file has no such section.
    """
    if section is None:
        raise typer.BadParameter(f"{path} has no section [{name}]; give another --config")
    return section


def heads_of(data: Path | None, *roles: str) -> "list[Head]":
    """Return the subjects of the given roles; without a role, all."""
    from trainer.heads import catalogue

    return [head for head in catalogue(data_of(data)) if not roles or head.role in roles]


def tissues_of(maps: Path, head: "Head") -> "Tissues":
    """Read the tissue maps of one subject."""
    import numpy as np

    from trainer.simulate.hounsfield import tissues

    with np.load(maps / f"{head.name}.npz") as arrays:
        return tissues(dict(arrays))


@contextmanager
def bar_of(label: str, total: int) -> Iterator[tuple[Progress, TaskID]]:
    """Show a progress bar on standard error while the block runs."""
    with Progress(console=Console(stderr=True)) as progress:
        yield progress, progress.add_task(label, total=total)
