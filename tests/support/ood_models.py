"""Tiny OOD models: features sampled from one distribution, and a model fitted to them."""

from __future__ import annotations

import numpy as np

from rebrain_node.model.ood import OodFeatures, OodModel
from rebrain_node.steps.ood import FRAME, PICTURE
from trainer.ood.fit import InDistributionSeries, fit

SUBJECTS = 20
SLICES = 12


def ood_features(
    rng: np.random.Generator, shift: float = 0.0, dimension: int | None = None
) -> OodFeatures:
    """A series whose features are normal, ``shift`` standard deviations from the mean of 1."""
    vectors = None if dimension is None else rng.normal(shift, 1.0, (SLICES, dimension))
    return OodFeatures(
        position_mm=np.linspace(-50.0, 70.0, SLICES),
        frame=rng.normal(1.0 + shift, 1.0, (1, len(FRAME))),
        picture=rng.normal(1.0 + shift, 1.0, (SLICES, len(PICTURE))),
        embeddings=None if vectors is None else vectors.astype(np.float32),
    )


def in_distribution_series(
    dimension: int | None = None, subjects: int = SUBJECTS
) -> list[InDistributionSeries]:
    """Four series of each subject."""
    rng = np.random.default_rng(3)
    return [
        InDistributionSeries(f"sub{k:02}", ood_features(rng, 0.0, dimension))
        for k in range(subjects)
        for _ in range(4)
    ]


def ood_model(dimension: int | None = None, encoder_sha256: str = "a" * 64) -> OodModel:
    """The OOD model of `in_distribution_series`."""
    return fit(
        in_distribution_series(dimension), None if dimension is None else encoder_sha256, 0.9
    )
