"""Options that several commands share, and the progress bar."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

if TYPE_CHECKING:
    from trainer.heads import Head
    from trainer.make.run import Watcher
    from trainer.simulate.hounsfield import Tissues
    from trainer.simulate.labels import LabelHead

Data = Annotated[
    Path | None,
    typer.Option(help="Folder of T1 heads and templates; default: REBRAIN_DATA or ../shared/data."),
]
Prepared = Annotated[
    Path | None,
    typer.Option(help="Prepared data set (`prepare`) instead of subjects with tissue maps."),
]
MapsOrNone = Annotated[
    Path | None, typer.Option("--maps", help="Folder of tissue maps, one file per subject.")
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
def stages() -> "Iterator[Watcher]":
    """Show the stages of `make` on standard error, and the progress of the one at work."""
    from trainer.make.run import STAGES, Watcher

    with bar_of("starting", 1) as (bar, task):

        def told(line: str) -> None:
            bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

        def stage(name: str, state: str) -> None:
            told(f"[{STAGES.index(name) + 1}/{len(STAGES)}] {name}: {state}")

        def ended(name: str, seconds: float | None) -> None:
            stage(name, "done before" if seconds is None else f"done in {seconds:.0f} s")

        yield Watcher(
            begun=lambda name: stage(name, "begins"),
            ended=ended,
            started=lambda what, count: bar.reset(task, description=what, total=count),
            advance=lambda count: bar.advance(task, count),
            told=told,
        )


#: seconds between two lines of progress where standard error is no terminal
LINE_EVERY_S = 30.0


@contextmanager
def bar_of(label: str, total: int) -> Iterator[tuple[Progress, TaskID]]:
    """Show progress on standard error while the block runs: a bar, or lines off a terminal."""
    console = Console(stderr=True)
    lines = not console.is_terminal
    with Progress(console=console, disable=lines) as progress:
        task = progress.add_task(label, total=total)
        ended = Event()
        writer = Thread(target=_write_lines, args=(progress, ended), daemon=True)
        if lines:
            writer.start()
        try:
            yield progress, task
        finally:
            ended.set()
            if lines:
                writer.join()


def _write_lines(progress: Progress, ended: Event) -> None:
    """Write how far the tasks are, from time to time, and at the end of a long one."""
    long = False
    while not ended.wait(LINE_EVERY_S):
        long = True
        _write_line(progress)
    if long:
        _write_line(progress)


def _write_line(progress: Progress) -> None:
    for task in progress.tasks:
        whole = "" if task.total is None else f" of {task.total:g}"
        minutes, seconds = divmod(round(task.elapsed or 0.0), 60)
        line = f"{task.description}: {task.completed:g}{whole}, {minutes}:{seconds:02d}"
        progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
