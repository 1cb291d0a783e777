"""Build a knowledge base, add subjects, remove a subject, compute the similarity thresholds.

The format is that of `rebrain_node.retrieval.knowledge_base`. Every change writes a new folder and
replaces the old one, so that a base is always complete and nothing removed remains.
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
    TauRecord,
    contents_of,
    parse,
)
from rebrain_node.retrieval.search import CELLS_FROM_ROWS, cluster
from trainer.data.dataset import PreparedData, Subject
from trainer.data.placing import HeadFrameError, levelled_window, located
from trainer.simulate.stacks import StackIndex, Stacks

Progress = Callable[[str, int, int], None]  #: (what is done, done, in all)

PERCENTS = (1, 2, 5, 10, 20)  #: at which tau is stored
WINDOW_MM = 6.0  #: of the slice-position check behind an acceptance
_LEAST_HEAD_MM2 = 1500.0
_QUERIES_AT_ONCE = 256


class BaseUpdateError(RebrainError):
    """A knowledge base cannot be built or changed; the message gives the reason."""


@dataclass(frozen=True)
class SubjectSlices:
    """The slices of one subject.

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
    """Settings that all entries of a base share.

    Attributes
    ----------
    graph : bytes
        `encoder.onnx`.
    encoder : Encoder
        The loaded graph.
    hash_of : callable
        From the name of a subject to its keyed hash.
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


def subjects_of_stacks(
    folder: Path, roles: Sequence[str], stacks: int | None, recipe: Recipe
) -> Iterator[SubjectSlices]:
    """Yield the subjects of a folder of simulated stacks, the first `stacks` series of each.

    Each series is levelled to the tissue that the recipe expects, as the node levels a query.

    Raises
    ------
    BaseUpdateError
        The folder holds no stacks, or no subject has one of these roles.
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
        slices = held.slices[rows]
        for stack in np.unique(held.stack[rows]):
            within = held.stack[rows] == stack
            slices[within] = _levelled(slices[within], recipe)
        yield SubjectSlices(name, licences[name], slices, held.position_mm[rows])


def _levelled(slices: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.uint8]:
    """Level one series, (n, rows, columns) at half the resolution of the grid, window 0 to 255."""
    full = slices.repeat(2, axis=1).repeat(2, axis=2).astype(np.float32) / np.float32(255)
    levelled = levelled_window(full, recipe)[:, ::2, ::2]
    return np.rint(levelled * 255).astype(np.uint8)


def subjects_of_data(
    data: PreparedData, roles: Sequence[str], recipe: Recipe
) -> Iterator[SubjectSlices]:
    """Yield the subjects of a prepared data set of CT in HU, located in the head frame.

    Raises
    ------
    BaseUpdateError
        The data set holds no HU or no volumes, or a head cannot be located.
    """
    if data.source_kind != "ct" or not data.volumetric:
        raise BaseUpdateError(
            f"the data set holds {data.source_kind!r}, volumes: {data.volumetric}; a knowledge "
            "base is built from volumes of CT in HU"
        )
    for role in roles:
        for name in data.split.get(role, ()):
            yield _located(data.subject(name), data.licence, recipe)


def _located(subject: Subject, licence: str, recipe: Recipe) -> SubjectSlices:
    try:
        series = located(subject.source, subject.positions_mm, subject.pixel_mm, recipe)
    except HeadFrameError as error:
        raise BaseUpdateError(f"{subject.name}: {error}; leave this subject out") from error
    area_mm2 = series.prepared.head.sum(axis=(1, 2)) * recipe.grid.pixel_mm**2
    kept = area_mm2 >= _LEAST_HEAD_MM2
    brain = halved(recipe.brain_window.apply(series.prepared.hu[kept]))
    slices = np.rint((brain + 1) * 127.5).astype(np.uint8)
    return SubjectSlices(subject.name, licence, slices, series.frame.position_mm[kept])


def extended(
    base: KnowledgeBase,
    subjects: Iterable[SubjectSlices],
    settings: EntrySettings,
    progress: Progress | None = None,
) -> KnowledgeBase:
    """Return a base with more subjects, its thresholds computed again.

    Raises
    ------
    BaseUpdateError
        A subject is in it already, or the base was made with another encoder, recipe or template.
    """
    empty = settings.empty()
    same = ("encoder_sha256", "template_sha256", "dimension", "plane", "pixel_mm", "window_hu")
    for name in same:
        built, current = getattr(base.index, name), getattr(empty.index, name)
        if built != current:
            raise BaseUpdateError(f"the base has {name} {built}, now it is {current}: rebuild it")
    parts, licences = [base], {n: r.licence for n, r in base.index.subjects.items()}
    for subject in subjects:
        hashed = settings.hash_of(subject.name)
        if hashed in licences:
            raise BaseUpdateError(f"{subject.name} is in the base already; remove it first")
        licences[hashed] = subject.licence
        parts.append(_entries(empty, subject, hashed, settings.encoder, progress))
    return _merged(parts, licences, progress)


def without(base: KnowledgeBase, hashed: str, progress: Progress | None = None) -> KnowledgeBase:
    """Return a base without one subject, its thresholds computed again.

    Raises
    ------
    BaseUpdateError
        No subject in it has this hash.
    """
    if hashed not in base.index.subjects:
        raise BaseUpdateError(
            f"no subject of the base has the keyed hash {hashed}; it holds "
            f"{len(base.index.subjects)} subjects: is this the key it was built with?"
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
    return _merged([rest], licences, progress)


def write(base: KnowledgeBase, folder: Path) -> KnowledgeBase:
    """Replace `folder` by the base and return the base as it is read back.

    Raises
    ------
    KnowledgeBaseError
        What was written cannot be read.
    """
    contents = contents_of(base)
    written = parse(contents, str(folder))
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
    return written


def _entries(
    empty: KnowledgeBase,
    subject: SubjectSlices,
    hashed: str,
    encoder: Encoder,
    progress: Progress | None,
) -> KnowledgeBase:
    embeddings = np.empty((len(subject.slices), empty.index.dimension), dtype=np.float32)
    for row, plane in enumerate(subject.slices):
        image = plane.astype(np.float32) / np.float32(127.5) - np.float32(1)
        embeddings[row] = encoder.embed(image[None, None])
        if progress is not None:
            progress("embed", row + 1, len(subject.slices))
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return replace(
        empty,
        embeddings=embeddings / lengths,
        position_mm=subject.position_mm.astype(np.float64),
        subject=np.full(len(subject.slices), hashed.encode(), dtype="S32"),
        ct=subject.slices,
    )


def _merged(
    parts: Sequence[KnowledgeBase], licences: dict[str, str], progress: Progress | None
) -> KnowledgeBase:
    """Merge the entries of several bases in order of position and compute the thresholds."""
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


def tau_table(
    embeddings: NDArray[np.float32],
    subject: NDArray[np.generic],
    position_mm: NDArray[np.float64],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[TauRecord, ...]:
    """Compute the similarity thresholds of a knowledge base, each subject left out in turn.

    Every slice queries the slices of all other subjects. Tau for p is the mean over these queries
    of the mean of their top p per cent similarities; its acceptance is the share of the queries
    whose best exemplar within `WINDOW_MM` of their position reaches it.

    Parameters
    ----------
    embeddings : ndarray
        (n, d), length 1.
    subject : ndarray
        (n,), keyed hash.
    position_mm : ndarray
        (n,), head frame.
    progress : callable, optional
        Receives the number of queries done and in all.

    Returns
    -------
    tuple of TauRecord
        One for each of `PERCENTS`; empty for fewer than two subjects.
    """
    _, owner = np.unique(subject, return_inverse=True)
    if len(embeddings) == 0 or owner.max() == 0:
        return ()
    sums = np.zeros(len(PERCENTS))
    best = np.empty(len(embeddings))
    for first in range(0, len(embeddings), _QUERIES_AT_ONCE):
        queries = slice(first, first + _QUERIES_AT_ONCE)
        similarity = embeddings[queries] @ embeddings.T
        similarity[owner[queries, None] == owner] = -np.inf
        sums += _sums_of_top_means(similarity)
        near = np.abs(position_mm[queries, None] - position_mm) <= WINDOW_MM
        best[queries] = np.where(near, similarity, -np.inf).max(axis=1)
        if progress is not None:
            progress(min(first + _QUERIES_AT_ONCE, len(embeddings)), len(embeddings))
    return tuple(
        TauRecord(percent=p, tau=float(tau), acceptance=float((best >= tau).mean()))
        # a mean of equal embeddings may exceed 1 by rounding
        for p, tau in zip(PERCENTS, np.minimum(sums / len(embeddings), 1.0), strict=True)
    )


def _sums_of_top_means(similarity: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum over queries of the mean of the top p per cent, for each of `PERCENTS`."""
    others = np.isfinite(similarity).sum(axis=1)
    most = max(1, int(np.ceil(max(PERCENTS) / 100 * others.max())))
    falling = -np.sort(-np.partition(similarity, -most, axis=1)[:, -most:], axis=1)
    running = np.cumsum(falling, axis=1, dtype=np.float64)
    sums = []
    for percent in PERCENTS:
        count = np.maximum(1, np.ceil(percent / 100 * others).astype(int))
        sums.append(float((running[np.arange(len(count)), count - 1] / count).sum()))
    return np.array(sums)
