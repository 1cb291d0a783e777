"""Build a knowledge base, add people to it, take a person out of it.

What the node reads is described in `rebrain_node.retrieval.knowledge_base`; here it is made.
Every change writes a new folder beside the old one and then takes its place, so that there is
never half a base, and nothing of the old one is left.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rebrain_node.errors import RebrainError
from rebrain_node.model.head_template import load_head_template
from rebrain_node.model.recipe import Recipe
from rebrain_node.model.resample import halved
from rebrain_node.ports import Encoder
from rebrain_node.retrieval.knowledge_base import (
    Index,
    KnowledgeBase,
    SubjectRecord,
    contents_of,
    parse,
)
from rebrain_node.retrieval.search import CELLS_FROM_ROWS, cluster
from trainer.data.dataset import PreparedData, Subject
from trainer.data.placing import HeadFrameError, located
from trainer.retrieval.thresholds import tau_table
from trainer.simulate.stacks import StackIndex, Stacks

Progress = Callable[[str, int, int], None]  #: (what is done, done, in all)

_LEAST_HEAD_MM2 = 1500.0


class BaseUpdateError(RebrainError):
    """A knowledge base cannot be made or changed as asked; the message says why."""


@dataclass(frozen=True)
class SubjectSlices:
    """The slices of one person.

    Attributes
    ----------
    name : str
        As in the source; it never enters the base, its keyed hash does.
    slices : ndarray of uint8
        (n, rows, columns), brain window 0 to 255, half the model grid.
    position_mm : ndarray
        (n,), head frame.
    """

    name: str
    licence: str
    slices: NDArray[np.uint8]
    position_mm: NDArray[np.float64]


@dataclass(frozen=True)
class EntrySettings:
    """What every entry of a base shares.

    Attributes
    ----------
    graph : bytes
        `encoder.onnx`.
    encoder : Encoder
        Started from it.
    hash_of : callable
        A person's name to the keyed hash.
    """

    graph: bytes
    encoder: Encoder
    recipe: Recipe
    hash_of: Callable[[str], str]

    def empty(self) -> KnowledgeBase:
        """Return a base without an entry."""
        rows, columns = (side // 2 for side in self.recipe.grid.shape)
        window = self.recipe.brain_window
        probe = self.encoder.embed(np.full((1, 1, rows, columns), -1.0, dtype=np.float32))
        index = Index(
            encoder_sha256=hashlib.sha256(self.graph).hexdigest(),
            template_sha256=load_head_template().digest,
            dimension=len(probe),
            plane=(rows, columns),
            pixel_mm=2 * self.recipe.grid.pixel_mm,
            window_hu=(window.low_hu, window.high_hu),
            entries=0,
            subjects={},
            files={},
        )
        return KnowledgeBase(
            index=index,
            embeddings=np.empty((0, len(probe)), dtype=np.float32),
            position_mm=np.empty(0),
            subject=np.empty(0, dtype="S32"),
            ct=np.empty((0, rows, columns), dtype=np.uint8),
        )


def people_of_stacks(
    folder: Path, roles: Sequence[str], stacks: int | None
) -> Iterator[SubjectSlices]:
    """Read the people of a folder of simulated stacks, of each the first `stacks` series.

    Raises
    ------
    BaseUpdateError
        The folder is no folder of stacks, or nobody plays one of these roles.
    """
    try:
        index = StackIndex.model_validate_json((folder / "index.json").read_bytes())
        held = Stacks.open(folder, *roles)
    except (OSError, ValueError) as error:
        raise BaseUpdateError(f"{folder}: {error}") from error
    licences = {record.name: record.licence for record in index.subjects}
    for number, name in enumerate(held.names):
        rows = held.subject == number
        if stacks is not None:
            rows &= held.stack < held.stack[rows].min() + stacks
        yield SubjectSlices(name, licences[name], held.slices[rows], held.position_mm[rows])


def people_of_data(
    data: PreparedData, roles: Sequence[str], recipe: Recipe
) -> Iterator[SubjectSlices]:
    """Read the people of a prepared data set of CT in HU, placed in the head frame as in the node.

    Raises
    ------
    BaseUpdateError
        The set holds no HU or no volumes, or a head cannot be placed.
    """
    if data.source_kind != "ct" or not data.volumetric:
        raise BaseUpdateError(
            f"the data set holds {data.source_kind!r}, volumes: {data.volumetric}; a knowledge "
            "base is built from volumes of CT in HU"
        )
    for role in roles:
        for name in data.split.get(role, ()):
            yield _placed(data.subject(name), data.licence, recipe)


def _placed(subject: Subject, licence: str, recipe: Recipe) -> SubjectSlices:
    try:
        found = located(subject.source, subject.positions_mm, subject.pixel_mm, recipe)
    except HeadFrameError as error:
        raise BaseUpdateError(f"{subject.name}: {error}; leave this subject out") from error
    area_mm2 = found.prepared.head.sum(axis=(1, 2)) * recipe.grid.pixel_mm**2
    kept = area_mm2 >= _LEAST_HEAD_MM2
    brain = halved(recipe.brain_window.apply(found.prepared.hu[kept]))
    slices = np.rint((brain + 1) * 127.5).astype(np.uint8)
    return SubjectSlices(subject.name, licence, slices, found.frame.position_mm[kept])


def grown(
    base: KnowledgeBase,
    people: Iterable[SubjectSlices],
    making: EntrySettings,
    progress: Progress | None = None,
) -> KnowledgeBase:
    """Return a base with more people in it, its thresholds measured anew.

    Raises
    ------
    BaseUpdateError
        A person is in it already, or the base was made with another encoder, recipe or template.
    """
    mould = making.empty()
    same = ("encoder_sha256", "template_sha256", "dimension", "plane", "pixel_mm", "window_hu")
    for name in same:
        found, wanted = getattr(base.index, name), getattr(mould.index, name)
        if found != wanted:
            raise BaseUpdateError(f"the base has {name} {found}, now it is {wanted}: rebuild it")
    parts, licences = [base], {n: r.licence for n, r in base.index.subjects.items()}
    for person in people:
        hashed = making.hash_of(person.name)
        if hashed in licences:
            raise BaseUpdateError(f"{person.name} is in the base already; remove first")
        licences[hashed] = person.licence
        parts.append(_entries(mould, person, hashed, making.encoder, progress))
    return _sealed(parts, licences, progress)


def without(base: KnowledgeBase, hashed: str, progress: Progress | None = None) -> KnowledgeBase:
    """Return a base without one person, its thresholds measured anew.

    Raises
    ------
    BaseUpdateError
        Nobody in it has this hash.
    """
    if hashed not in base.index.subjects:
        raise BaseUpdateError(
            f"nobody in the base has the keyed hash {hashed}; it holds {len(base.index.subjects)} "
            "people: is this the key it was built with?"
        )
    kept = base.subject != hashed.encode()
    rest = replace(
        base,
        embeddings=base.embeddings[kept],
        position_mm=base.position_mm[kept],
        subject=base.subject[kept],
        ct=base.ct[kept],
        cells=None,
    )
    licences = {n: r.licence for n, r in base.index.subjects.items() if n != hashed}
    return _sealed([rest], licences, progress)


def write(base: KnowledgeBase, folder: Path) -> KnowledgeBase:
    """Write a base in the place of `folder` and return it as it is read back.

    Raises
    ------
    KnowledgeBaseError
        What was written cannot be read.
    """
    contents = contents_of(base)
    found = parse(contents, str(folder))
    part, old = (folder.with_name(f".{folder.name}.{word}") for word in ("part", "old"))
    for rest in (part, old):
        shutil.rmtree(rest, ignore_errors=True)
    part.mkdir(parents=True)
    for name, content in contents.items():
        (part / name).write_bytes(content)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return found


def _entries(
    mould: KnowledgeBase,
    person: SubjectSlices,
    hashed: str,
    encoder: Encoder,
    progress: Progress | None,
) -> KnowledgeBase:
    embeddings = np.empty((len(person.slices), mould.index.dimension), dtype=np.float32)
    for row, plane in enumerate(person.slices):
        image = plane.astype(np.float32) / np.float32(127.5) - np.float32(1)
        embeddings[row] = encoder.embed(image[None, None])
        if progress is not None:
            progress("embed", row + 1, len(person.slices))
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return replace(
        mould,
        embeddings=embeddings / lengths,
        position_mm=person.position_mm.astype(np.float64),
        subject=np.full(len(person.slices), hashed.encode(), dtype="S32"),
        ct=person.slices,
    )


def _sealed(
    parts: Sequence[KnowledgeBase], licences: dict[str, str], progress: Progress | None
) -> KnowledgeBase:
    """Put the entries of several bases in order of position, then measure the thresholds."""
    position = np.concatenate([part.position_mm for part in parts])
    subject = np.concatenate([part.subject for part in parts])
    order = np.lexsort((subject, position))
    embeddings = np.concatenate([part.embeddings for part in parts])[order]
    names, counts = np.unique(subject, return_counts=True)
    index = parts[0].index.model_copy(
        update={
            "entries": len(order),
            "subjects": {
                name: SubjectRecord(entries=int(count), licence=licences[name])
                for name, count in zip((n.decode() for n in names), counts, strict=True)
            },
            "tau": tau_table(
                embeddings,
                subject[order],
                position[order],
                None if progress is None else lambda done, total: progress("tau", done, total),
            ),
        }
    )
    return KnowledgeBase(
        index=index,
        embeddings=embeddings,
        position_mm=position[order],
        subject=subject[order],
        ct=np.concatenate([part.ct for part in parts])[order],
        cells=cluster(embeddings) if len(order) >= CELLS_FROM_ROWS else None,
    )
