"""`knowledge-base`: whose slices may guide a drawing, and no longer."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rebrain_node.errors import KnowledgeBaseError
from trainer.cli.options import AsJson, Config, bar_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rebrain_node.retrieval.knowledge_base import KnowledgeBase
    from trainer.retrieval.knowledge_base import EntrySettings, Progress, SubjectSlices

knowledge_base = typer.Typer(
    help="Slices of other people's heads that may guide a drawing.", no_args_is_help=True
)

Base = Annotated[Path, typer.Argument(help="Folder of the knowledge base.")]
Key = Annotated[
    Path | None, typer.Option(help="Key file of the hashes; default: beside the folder, .key.")
]
EncoderGraph = Annotated[Path, typer.Option("--encoder", help="The encoder, encoder.onnx.")]
Source = Annotated[
    Path, typer.Option("--from", help="Folder of simulated stacks, or prepared data set of CT.")
]
Roles = Annotated[list[str], typer.Option("--role", help="Whose slices; may be given twice.")]
Series = Annotated[
    int | None, typer.Option(min=1, help="Take so many series of each person; default all.")
]


@knowledge_base.command()
def build(  # noqa: PLR0913 - one option each
    base: Base,
    source: Source,
    encoder: EncoderGraph,
    config: Config,
    roles: Roles = ["train"],  # noqa: B006 - typer reads the default
    series: Series = None,
    number: Annotated[
        int | None, typer.Option("--people", min=2, help="Take so many people; default all.")
    ] = None,
    key: Key = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Build anew in the place of an old one.")
    ] = False,
) -> None:
    """Build a base from stacks or a prepared data set.

    Makes a key where there is none.
    """
    from trainer.retrieval.knowledge_base import BaseUpdateError, grown, write
    from trainer.retrieval.subject_keys import key_beside, make_key

    if base.exists() and not replace:
        raise BaseUpdateError(f"{base} exists; add to it, or build it anew with --replace")
    key = key or key_beside(base)
    if not key.exists():
        base.parent.mkdir(parents=True, exist_ok=True)
        make_key(key)
    making = _making(encoder, config, key)
    with _progress() as told:
        people = islice(_people(source, roles, series, making), number)
        made = write(grown(making.empty(), people, making, told), base)
    _say(base, made)


@knowledge_base.command()
def add(  # noqa: PLR0913 - one option each
    base: Base,
    source: Source,
    encoder: EncoderGraph,
    config: Config,
    roles: Roles = ["train"],  # noqa: B006 - typer reads the default
    series: Series = None,
    key: Key = None,
) -> None:
    """Add people, nobody twice.

    The thresholds are measured anew.
    """
    from rebrain_node.retrieval.knowledge_base import read
    from trainer.retrieval.knowledge_base import grown, write
    from trainer.retrieval.subject_keys import key_beside

    making = _making(encoder, config, key or key_beside(base))
    with _progress() as told:
        people = _people(source, roles, series, making)
        made = write(grown(read(base), people, making, told), base)
    _say(base, made)


@knowledge_base.command()
def remove(
    base: Base,
    subject: Annotated[
        str | None, typer.Option(help="Name of the person, as in the source; needs the key.")
    ] = None,
    hashed: Annotated[
        str | None, typer.Option("--hash", help="Keyed hash of the person instead of the name.")
    ] = None,
    key: Key = None,
) -> None:
    """Take a person out.

    No embedding, no slice and no hash of it is left in the folder.
    """
    from rebrain_node.retrieval.knowledge_base import read
    from trainer.retrieval.knowledge_base import without, write
    from trainer.retrieval.subject_keys import key_beside, person_hash, read_key

    if (subject is None) == (hashed is None):
        raise typer.BadParameter("give either --subject or --hash")
    if subject is not None:
        hashed = person_hash(read_key(key or key_beside(base)), subject)
    with _progress() as told:
        made = write(without(read(base), str(hashed), told), base)
    _say(base, made)


@knowledge_base.command()
def info(base: Base, as_json: AsJson = False) -> None:
    """Show what a base holds and whether a node can use it."""
    from rebrain_node.retrieval.knowledge_base import read

    found = read(base)
    answer = _facts(base, found)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    for name, value in answer.items():
        if not isinstance(value, dict | list):
            typer.echo(f"{name}: {value}")
    for record in found.index.tau:
        typer.echo(f"tau at {record.percent} %: {record.tau:.4f}, accepts {record.acceptance:.1%}")


def _facts(path: Path, base: "KnowledgeBase") -> dict[str, object]:
    from rebrain_node.retrieval.knowledge_base import check_usable

    try:
        check_usable(base, str(path))
        refusal = None
    except KnowledgeBaseError as error:
        refusal = error.code
    index = base.index
    reach = [float(base.position_mm[k]) for k in (0, -1)] if index.entries else None
    return {
        "digest": base.digest,
        "entries": index.entries,
        "subjects": len(index.subjects),
        "usable": refusal is None,
        "refusal": refusal,
        "dimension": index.dimension,
        "plane": list(index.plane),
        "pixel_mm": index.pixel_mm,
        "window_hu": list(index.window_hu),
        "reach_mm": reach,
        "search": "exact" if base.cells is None else "cells",
        "bytes": sum(record.size for record in index.files.values()),
        "encoder_sha256": index.encoder_sha256,
        "template_sha256": index.template_sha256,
        "licences": sorted({record.licence for record in index.subjects.values()}),
        "people": {name: record.entries for name, record in index.subjects.items()},
        "tau": [record.model_dump() for record in index.tau],
    }


def _say(path: Path, base: "KnowledgeBase") -> None:
    typer.echo(
        f"{path}: {base.index.entries} slices of {len(base.index.subjects)} people, {base.digest}"
    )


def _making(encoder: Path, config: Path, key: Path) -> "EntrySettings":
    from functools import partial

    from rebrain_node.engine.open import encoder_of_graph
    from trainer.config import TrainConfig
    from trainer.retrieval.knowledge_base import EntrySettings
    from trainer.retrieval.subject_keys import person_hash, read_key

    graph = encoder.read_bytes()
    return EntrySettings(
        graph=graph,
        encoder=encoder_of_graph(graph),
        recipe=TrainConfig.load(config).recipe,
        hash_of=partial(person_hash, read_key(key)),
    )


def _people(
    source: Path, roles: list[str], series: int | None, making: "EntrySettings"
) -> "Iterable[SubjectSlices]":
    from trainer.data.dataset import PreparedData
    from trainer.retrieval.knowledge_base import people_of_data, people_of_stacks

    if (source / "dataset.json").is_file():
        return people_of_data(PreparedData.open(source), roles, making.recipe)
    return people_of_stacks(source, roles, series)


@contextmanager
def _progress() -> "Iterator[Progress]":
    with bar_of("slices", 1) as (bar, task):

        def told(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield told
