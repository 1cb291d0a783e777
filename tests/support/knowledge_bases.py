"""Small knowledge bases with known contents, and the same search in numpy."""

from __future__ import annotations

import numpy as np

from rebrain_node.model.head_template import load_head_template
from rebrain_node.ports import Exemplar
from rebrain_node.retrieval.knowledge_base import (
    Cells,
    Index,
    KnowledgeBase,
    SubjectRecord,
    TauRecord,
    contents_of,
    parse,
)

PLANE = (32, 24)
ENCODER = "e" * 64
TAU = tuple(TauRecord(percent=p, tau=0.9 - p / 100, acceptance=0.5) for p in (1, 2, 5, 10, 20))


def subject_hash(number: int) -> str:
    """The keyed hash of a made-up subject."""
    return f"{number:032x}"


def random_base(
    entries: int = 60,
    dimension: int = 16,
    subjects: int = 4,
    plane: tuple[int, int] = PLANE,
    seed: int = 0,
) -> KnowledgeBase:
    """A base of random slices between -60 and 110 mm, rows rising in position."""
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((entries, dimension), dtype=np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    names = [subject_hash(k % subjects).encode() for k in range(entries)]
    return with_index(
        embeddings=embeddings,
        position_mm=np.sort(rng.uniform(-60.0, 110.0, entries)),
        subject=np.array(names, dtype="S32"),
        ct=rng.integers(0, 256, (entries, *plane), dtype=np.uint8),
    )


def with_index(
    *,
    embeddings: np.ndarray,
    position_mm: np.ndarray,
    subject: np.ndarray,
    ct: np.ndarray,
    cells: Cells | None = None,
    encoder_sha256: str = ENCODER,
) -> KnowledgeBase:
    """Make a base of arrays with a matching index; nothing is verified."""
    names, counts = np.unique(subject, return_counts=True)
    index = Index(
        encoder_sha256=encoder_sha256,
        template_sha256=load_head_template().digest,
        dimension=embeddings.shape[1],
        plane=(ct.shape[1], ct.shape[2]),
        pixel_mm=1.8,
        window_hu=(0.0, 80.0),
        entries=len(embeddings),
        subjects={
            name.decode(): SubjectRecord(entries=int(count), licence="CC0-1.0")
            for name, count in zip(names, counts, strict=True)
        },
        tau=TAU if len(names) > 1 else (),
        files={},
    )
    return KnowledgeBase(
        index=index,
        embeddings=embeddings,
        position_mm=position_mm,
        subject=subject,
        ct=ct,
        cells=cells,
    )


def verified(base: KnowledgeBase) -> KnowledgeBase:
    """Write and read a base, as from a bundle."""
    return parse(contents_of(base), "exemplars")


class NumpyExemplars:
    """The search by its definition, row by row (port ``Exemplars``)."""

    def __init__(self, base: KnowledgeBase, tau: float) -> None:
        self.tau = tau
        self.digest = base.digest
        self._base = base

    def nearest(
        self,
        embedding: np.ndarray,
        position_mm: float,
        window_mm: float,
        excluded: str | None = None,
    ) -> Exemplar | None:
        """Compare with every row in the window."""
        base = self._base
        if not (np.isfinite(embedding).all() and np.isfinite(position_mm)):
            return None
        near = np.abs(base.position_mm - position_mm) <= window_mm
        other = base.subject != (excluded or "").encode()
        similarity = np.where(near & other, base.embeddings @ embedding, -np.inf)
        if not np.isfinite(similarity).any():
            return None
        row = int(similarity.argmax())
        return Exemplar(
            key=base.key(row),
            similarity=float(similarity[row]),
            position_mm=float(base.position_mm[row]),
            hu=base.hu(row),
        )
