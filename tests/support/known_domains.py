"""Known domains at tiny size: looks drawn from one distribution, and a domain fitted to them."""

from __future__ import annotations

import numpy as np

from rebrain_node.model.known_domain import KnownDomain, Look
from rebrain_node.steps.recognise import FRAME, PICTURE
from trainer.ood.fit import Sound, fit

PEOPLE = 20
SLICES = 12


def look(rng: np.random.Generator, shift: float = 0.0, dimension: int | None = None) -> Look:
    """A series whose vectors are normal about 1, ``shift`` standard deviations away."""
    vectors = None if dimension is None else rng.normal(shift, 1.0, (SLICES, dimension))
    return Look(
        position_mm=np.linspace(-50.0, 70.0, SLICES),
        frame=rng.normal(1.0 + shift, 1.0, (1, len(FRAME))),
        picture=rng.normal(1.0 + shift, 1.0, (SLICES, len(PICTURE))),
        embeddings=None if vectors is None else vectors.astype(np.float32),
    )


def sounds(dimension: int | None = None, people: int = PEOPLE) -> list[Sound]:
    """Four series of each person."""
    rng = np.random.default_rng(3)
    return [Sound(f"sub{k:02}", look(rng, 0.0, dimension)) for k in range(people) for _ in range(4)]


def known_domain(dimension: int | None = None, encoder_sha256: str = "a" * 64) -> KnownDomain:
    """The domain of `sounds`."""
    return fit(sounds(dimension), None if dimension is None else encoder_sha256, 0.9)
