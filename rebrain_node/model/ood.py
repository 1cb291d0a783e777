"""The out-of-distribution (OOD) model of a bundle: `domain.json`.

A series is described by feature vectors (`OodFeatures`): one for the whole series, its head frame,
and for each measured slice one of statistics and one embedding. A `Gaussian` models their
distribution by position in the head. `rebrain_node.steps.ood` computes the features.
"""

import json
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rebrain_node.domain.ood import OodScore
from rebrain_node.domain.volume import FloatArray, MillimetreArray

Vectors = NDArray[np.float64]  # (n, d)

#: limit of the deviation of one feature, in standard deviations: beyond it the Gaussian does not
#: hold and a single feature would dominate the distance
MOST_DEVIATION = 50.0


@dataclass(frozen=True, kw_only=True)
class OodFeatures:
    """Feature vectors of one series."""

    position_mm: MillimetreArray  #: (n,) of the slices used, head frame
    frame: Vectors  #: (1, 3), see `steps.ood.FRAME`
    picture: Vectors  #: (n, 10), see `steps.ood.PICTURE`
    embeddings: FloatArray | None = None  #: (n, d); None without an encoder


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Gaussian(_Frozen):
    """Distribution of feature vectors by position in the head.

    Attributes
    ----------
    names : tuple of str
        Of the d features of a vector.
    knots_mm : tuple of float
        (k,) positions in the head frame, rising; one where the distribution does not depend on
        the position.
    mean, sd : tuple
        (k, d) at each knot; linear between knots, constant outside them.
    precision : tuple
        (d, d) inverse of the correlation matrix of the standardised vectors.
    scale : float
        95th percentile of the mean squared distance of in-distribution series.
    """

    names: tuple[str, ...] = Field(min_length=1)
    knots_mm: tuple[float, ...] = Field(min_length=1)
    mean: tuple[tuple[float, ...], ...]
    sd: tuple[tuple[float, ...], ...]
    precision: tuple[tuple[float, ...], ...]
    scale: float = Field(gt=0)

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        knots, size = len(self.knots_mm), len(self.names)
        if any(b <= a for a, b in zip(self.knots_mm, self.knots_mm[1:], strict=False)):
            raise ValueError("knots_mm must rise")
        for name, rows in (("mean", knots), ("sd", knots), ("precision", size)):
            table = getattr(self, name)
            if len(table) != rows or any(len(row) != size for row in table):
                raise ValueError(f"{name} must have {rows} rows of {size} numbers")
        if min(map(min, self.sd)) <= 0:
            raise ValueError("sd must be positive")
        return self

    def deviations(self, vectors: Vectors, position_mm: MillimetreArray) -> Vectors:
        """Return (n, d) in standard deviations from the mean; 0 where a feature is not finite."""
        off = (vectors - self._at(self.mean, position_mm)) / self._at(self.sd, position_mm)
        finite = np.where(np.isfinite(off), off, 0.0)
        return np.clip(finite, -MOST_DEVIATION, MOST_DEVIATION)

    def distance(self, deviations: Vectors) -> float:
        """Return the mean squared Mahalanobis distance per dimension, divided by `scale`."""
        precision = np.array(self.precision)
        squared = np.einsum("ni,ij,nj->n", deviations, precision, deviations)
        return float(squared.mean() / (deviations.shape[1] * self.scale))

    def _at(self, table: tuple[tuple[float, ...], ...], position_mm: MillimetreArray) -> Vectors:
        columns = np.array(table).T
        return np.stack([np.interp(position_mm, self.knots_mm, c) for c in columns], axis=1)


class EmbeddingDistribution(_Frozen):
    """Distribution of the embeddings.

    Attributes
    ----------
    encoder_sha256 : str
        Of the bundle's `encoder.onnx`.
    axes : tuple
        (a, d) directions of the d-dimensional embedding onto which it is projected.
    usual : Gaussian
        Of the a coordinates along them and the length of the remainder.
    """

    encoder_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    axes: tuple[tuple[float, ...], ...] = Field(min_length=1)
    usual: Gaussian

    def vectors(self, embeddings: Vectors) -> Vectors:
        """Return (n, a + 1), projections and length of the remainder, from embeddings (n, d)."""
        axes = np.array(self.axes)
        along = embeddings @ axes.T
        remainder = np.linalg.norm(embeddings - along @ axes, axis=1)
        return np.column_stack([along, remainder])


class OodModel(_Frozen):
    """`domain.json`.

    Attributes
    ----------
    template_sha256 : str
        SHA-256 of the head template that defines the positions.
    pixel_mm : float
        Pixel size of the grid on which the statistics were computed.
    frame, picture : Gaussian
        Of the features of the series and of its slices.
    embedding : EmbeddingDistribution or None
        None in a bundle without an encoder.
    threshold : float
        A series with a score above it is out of distribution.
    false_refusals : float
        Accepted share of in-distribution series of a new subject above the threshold, 0 to 1.
    people, series : int
        Numbers of subjects and series whose held-out scores set the threshold.
    calibration_sha256 : str
        SHA-256 of those series.
    """

    format: Literal[1] = 1
    template_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    pixel_mm: float = Field(gt=0)
    frame: Gaussian
    picture: Gaussian
    embedding: EmbeddingDistribution | None = None
    threshold: float = Field(gt=0)
    false_refusals: float = Field(gt=0, lt=1)
    people: int = Field(gt=0)
    series: int = Field(gt=0)
    calibration_sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def score_of(self, features: OodFeatures) -> OodScore:
        """Compute the distance of a series from the distribution."""
        whole = self.frame.deviations(features.frame, np.zeros(1))
        slices = self.picture.deviations(features.picture, features.position_mm)
        parts = {
            "head frame": self.frame.distance(whole),
            "picture": self.picture.distance(slices),
        }
        if self.embedding is not None and features.embeddings is not None:
            usual = self.embedding.usual
            vectors = self.embedding.vectors(features.embeddings.astype(np.float64))
            parts["embedding"] = usual.distance(usual.deviations(vectors, features.position_mm))
        names = (*self.frame.names, *self.picture.names)
        means = (*whole.mean(axis=0), *slices.mean(axis=0))
        return OodScore(
            parts=parts,
            threshold=self.threshold,
            deviations=dict(zip(names, map(float, means), strict=True)),
        )

    def to_json(self) -> str:
        """Write it on one line: most of it is tables of numbers."""
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":")) + "\n"
