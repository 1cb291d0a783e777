"""`knowledge-base`: which subjects' slices may guide the synthesis."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rebrain_node.errors import KnowledgeBaseError
from trainer.cli import options

if TYPE_CHECKING:
    from rebrain_node.retrieval.knowledge_base import KnowledgeBase
    from trainer.retrieval.knowledge_base import EntrySettings, Progress, SubjectSlices

knowledge_base = typer.Typer(
    help="Build and inspect exemplar databases for retrieval.", no_args_is_help=True
)

Base = Annotated[Path, typer.Argument(metavar="BASE", help="Folder of the knowledge base.")]
Key = Annotated[Path | None, typer.Option(help="Key of the hashes of subjects; default: BASE.key.")]
EncoderGraph = Annotated[Path, typer.Option("--encoder", help="encoder.onnx of `train-encoder`.")]
Source = Annotated[
    Path, typer.Option("--from", help="RUN/stacks of `train-encoder`, or prepared data of CT.")
]
Roles = Annotated[list[str], typer.Option("--role", help="Role of the subjects; repeatable.")]
Series = Annotated[int | None, typer.Option(min=1, help="Stacks per subject; default: all.")]


@knowledge_base.command()
def build(  # noqa: PLR0913 - one option each
    base: Base,
    source: Source,
    encoder: EncoderGraph,
    config: options.Config,
    roles: Roles = ["train"],  # noqa: B006 - typer reads the default
    series: Series = None,
    count: Annotated[
        int | None, typer.Option("--subjects", min=2, help="Number of subjects; default: all.")
    ] = None,
    key: Key = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace BASE if it exists.")] = False,
) -> None:
    """Build a knowledge base of CT slices (exemplars).

    Makes the key if it does not exist.
    """
    from trainer.retrieval.knowledge_base import BaseUpdateError
    from trainer.retrieval.subject_keys import key_beside, make_key

    if base.exists() and not replace:
        raise BaseUpdateError(f"{base} exists; add to it, or give --replace to build it again")
    key = key or key_beside(base)
    if not key.exists():
        base.parent.mkdir(parents=True, exist_ok=True)
        make_key(key)
    settings = _entry_settings(encoder, config, key)
    subjects = islice(_subjects(source, roles, series, settings), count)
    _extend(settings.empty(), subjects, settings, base)


@knowledge_base.command()
def add(  # noqa: PLR0913 - one option each
    base: Base,
    source: Source,
    encoder: EncoderGraph,
    config: options.Config,
    roles: Roles = ["train"],  # noqa: B006 - typer reads the default
    series: Series = None,
    key: Key = None,
) -> None:
    """Add subjects that are not in the knowledge base.

    Encoder, parameters and key must be those it was built with. The similarity thresholds are
    computed again.
    """
    from rebrain_node.retrieval.knowledge_base import read
    from trainer.retrieval.subject_keys import key_beside

    settings = _entry_settings(encoder, config, key or key_beside(base))
    _extend(read(base), _subjects(source, roles, series, settings), settings, base)


@knowledge_base.command()
def remove(
    base: Base,
    subject: Annotated[
        str | None, typer.Option(help="Name of the subject in the source; needs the key file.")
    ] = None,
    hashed: Annotated[
        str | None, typer.Option("--hash", help="Keyed hash of the subject, instead of its name.")
    ] = None,
    key: Key = None,
) -> None:
    """Remove all data of one subject.

    No embedding, slice or hash of the subject remains in the folder. The similarity thresholds are
    computed again.
    """
    from rebrain_node.retrieval.knowledge_base import read
    from trainer.retrieval.knowledge_base import without, write
    from trainer.retrieval.subject_keys import key_beside, read_key, subject_hash

    if (subject is None) == (hashed is None):
        raise typer.BadParameter("give either --subject or --hash")
    if subject is not None:
        hashed = subject_hash(read_key(key or key_beside(base)), subject)
    with _progress() as progress:
        _print_summary(base, write(without(read(base), str(hashed), progress), base))


@knowledge_base.command()
def info(base: Base, as_json: options.AsJson = False) -> None:
    """Show contents, thresholds and whether a node accepts it."""
    from rebrain_node.retrieval.knowledge_base import check_usable, read

    held = read(base)
    try:
        check_usable(held, str(base))
        refusal = None
    except KnowledgeBaseError as error:
        refusal = error.code
    index = held.index
    facts = {
        "digest": held.digest,
        "entries": index.entries,
        "subjects": len(index.subjects),
        "usable": refusal is None,
        "refusal": refusal,
        "dimension": index.dimension,
        "plane": list(index.plane),
        "pixel_mm": index.pixel_mm,
        "window_hu": list(index.window_hu),
        "reach_mm": [float(held.position_mm[k]) for k in (0, -1)] if index.entries else None,
        "search": "exact" if held.cells is None else "cells",
        "bytes": sum(record.size for record in index.files.values()),
        "encoder_sha256": index.encoder_sha256,
        "template_sha256": index.template_sha256,
        "licences": sorted({record.licence for record in index.subjects.values()}),
        "people": {name: record.entries for name, record in index.subjects.items()},
        "tau": [record.model_dump() for record in index.tau],
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        if not isinstance(value, dict | list):
            typer.echo(f"{name}: {value}")
    for record in index.tau:
        typer.echo(f"tau at {record.percent} %: {record.tau:.4f}, accepts {record.acceptance:.1%}")


def _print_summary(path: Path, base: "KnowledgeBase") -> None:
    index = base.index
    typer.echo(f"{path}: {index.entries} slices of {len(index.subjects)} subjects, {base.digest}")


def _entry_settings(encoder: Path, config: Path, key: Path) -> "EntrySettings":
    from rebrain_node.engine.open import encoder_of_graph
    from trainer.config import TrainConfig
    from trainer.retrieval.knowledge_base import EntrySettings
    from trainer.retrieval.subject_keys import read_key, subject_hash

    graph = encoder.read_bytes()
    return EntrySettings(
        graph=graph,
        encoder=encoder_of_graph(graph),
        recipe=TrainConfig.load(config).recipe,
        hash_of=partial(subject_hash, read_key(key)),
    )


def _subjects(
    source: Path, roles: list[str], series: int | None, settings: "EntrySettings"
) -> "Iterable[SubjectSlices]":
    from trainer.data.dataset import PreparedData
    from trainer.retrieval.knowledge_base import subjects_of_data, subjects_of_stacks

    if (source / "dataset.json").is_file():
        return subjects_of_data(PreparedData.open(source), roles, settings.recipe)
    return subjects_of_stacks(source, roles, series, settings.recipe)


def _extend(
    base: "KnowledgeBase",
    subjects: "Iterable[SubjectSlices]",
    settings: "EntrySettings",
    folder: Path,
) -> None:
    from trainer.retrieval.knowledge_base import extended, write

    with _progress() as progress:
        _print_summary(folder, write(extended(base, subjects, settings, progress), folder))


@contextmanager
def _progress() -> "Iterator[Progress]":
    with options.bar_of("slices", 1) as (bar, task):
        yield lambda what, done, total: bar.update(
            task, description=what, completed=done, total=total
        )
