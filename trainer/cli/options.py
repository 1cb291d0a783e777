"""Options that several commands share, and the progress bar."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

if TYPE_CHECKING:
    from trainer.heads import Head
    from trainer.simulate.hounsfield import Tissues
    from trainer.simulate.labels import LabelHead

Data = Annotated[
    Path | None,
    typer.Option(help="Folder of T1 heads and templates; default: REBRAIN_DATA or ../shared/data."),
]
Config = Annotated[Path, typer.Option(help="TOML file of parameters; see conf/train.")]
Maps = Annotated[Path, typer.Option(help="Folder of tissue maps, one file per subject.")]
Samples = Annotated[Path, typer.Option("--pool", help="Folder of simulated samples (`simulate`).")]
Run = Annotated[Path, typer.Option(help="Folder of the training run.")]
Out = Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")]
Version = Annotated[str, typer.Option(help="Version of the new bundle, e.g. 1.2.0.")]
Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Processes = Annotated[int, typer.Option(min=1, help="Subjects processed at the same time.")]
EncoderRun = Annotated[Path, typer.Option("--encoder", help="Folder of a run of `train-encoder`.")]
ExemplarFolder = Annotated[
    Path, typer.Option("--knowledge-base", help="Folder of the knowledge base.")
]
NetworkBundle = Annotated[
    str, typer.Option("--bundle", help="Folder of the bundle, or demo for the shipped one.")
]

_Section = TypeVar("_Section")
_Result = TypeVar("_Result")


def data_of(folder: Path | None) -> Path:
    """Return `folder`, or the default folder of shared data."""
    from trainer.heads import data_folder

    return folder if folder is not None else data_folder()


def section_of(path: Path, name: str, section: _Section | None) -> _Section:
    """Return a section of the parameters; refuse a file that does not have it."""
    if section is None:
        raise typer.BadParameter(f"{path} has no section [{name}]; give another --config")
    return section


def heads_of(data: Path | None, *roles: str) -> "list[Head]":
    """Return the subjects of the given roles; without a role, all."""
    from trainer.heads import catalogue

    return [head for head in catalogue(data_of(data)) if not roles or head.role in roles]


def tissues_of(maps: Path, head: "Head") -> "Tissues | LabelHead":
    """Read the tissue maps of one subject."""
    from trainer.simulate.labels import read_maps

    return read_maps(maps / f"{head.name}.npz")


def in_parallel(
    work: Callable[["Head"], _Result],
    heads: "Sequence[Head]",
    processes: int,
    text: Callable[[_Result], str] | None = None,
) -> list[_Result]:
    """Process subjects in several processes; return the results in order of completion."""
    results = []
    with ProcessPoolExecutor(processes) as workers, bar_of("subjects", len(heads)) as (bar, task):
        for job in as_completed([workers.submit(work, head) for head in heads]):
            results.append(job.result())
            bar.advance(task)
            if text is not None:
                bar.console.print(text(results[-1]))
    return results


@contextmanager
def bar_of(label: str, total: int) -> Iterator[tuple[Progress, TaskID]]:
    """Show a progress bar on standard error while the block runs."""
    with Progress(console=Console(stderr=True)) as progress:
        yield progress, progress.add_task(label, total=total)
