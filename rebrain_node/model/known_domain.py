"""What series the model was made for: `domain.json` of a bundle.

A series is described by vectors (`Look`): one of the whole, its head frame, and of each measured
slice one of plain statistics and one embedding. `Gaussian` says which vectors are usual at which
position in the head. How a look is taken: `rebrain_node.steps.ood`.
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

#: a statistic counts for at most so many standard deviations: one that leaves the scale says
#: "far", not "how far"
MOST_DEVIATION = 50.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """A series as it is held against the known domain."""

    position_mm: MillimetreArray  #: (n,) of the slices that are looked at, head frame
    frame: Vectors  #: (1, 3), see `steps.ood.FRAME`
    picture: Vectors  #: (n, 10), see `steps.ood.PICTURE`
    embeddings: FloatArray | None = None  #: (n, d); None without an encoder


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Gaussian(_Frozen):
    """Usual vectors by position in the head.

    Attributes
    ----------
    names : tuple of str
        Of the d numbers of a vector.
    knots_mm : tuple of float
        (k,) positions in the head frame, rising; one where the position does not matter.
    mean, sd : tuple
        (k, d) at each knot, linear between them and constant beyond.
    precision : tuple
        (d, d) inverse of the correlation of the standardised vectors.
    scale : float
        Mean squared distance that 95 % of sound series stay below.
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
        """Return (n, d) standard deviations from the mean; 0 where a number is not known."""
        off = (vectors - self._at(self.mean, position_mm)) / self._at(self.sd, position_mm)
        known = np.where(np.isfinite(off), off, 0.0)
        return np.clip(known, -MOST_DEVIATION, MOST_DEVIATION)

    def distance(self, deviations: Vectors) -> float:
        """Return the mean squared Mahalanobis distance a dimension, divided by `scale`."""
        precision = np.array(self.precision)
        squared = np.einsum("ni,ij,nj->n", deviations, precision, deviations)
        return float(squared.mean() / (deviations.shape[1] * self.scale))

    def _at(self, table: tuple[tuple[float, ...], ...], position_mm: MillimetreArray) -> Vectors:
        columns = np.array(table).T
        return np.stack([np.interp(position_mm, self.knots_mm, c) for c in columns], axis=1)


class EmbeddedDomain(_Frozen):
    """Usual embeddings.

    Attributes
    ----------
    encoder_sha256 : str
        Of the bundle's `encoder.onnx`.
    axes : tuple
        (a, d) directions of the d-dimensional embedding that are looked at.
    usual : Gaussian
        Of the a coordinates along them and the length of what they leave.
    """

    encoder_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    axes: tuple[tuple[float, ...], ...] = Field(min_length=1)
    usual: Gaussian

    def vectors(self, embeddings: Vectors) -> Vectors:
        """Return (n, a + 1) from embeddings (n, d)."""
        axes = np.array(self.axes)
        along = embeddings @ axes.T
        left = np.linalg.norm(embeddings - along @ axes, axis=1)
        return np.column_stack([along, left])


class KnownDomain(_Frozen):
    """`domain.json`.

    Attributes
    ----------
    template_sha256 : str
        Head template by which positions were measured.
    pixel_mm : float
        Of the grid on which the statistics were measured.
    frame, picture : Gaussian
        Of the series as a whole and of its slices.
    embedding : EmbeddedDomain or None
        None in a bundle without an encoder.
    threshold : float
        A score above it is out of domain.
    false_refusals : float
        Share of the sound series of a new person that may lie above the threshold.
    people, series : int
        On whose held-out scores the threshold rests.
    calibration_sha256 : str
        Of those series.
    """

    format: Literal[1] = 1
    template_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    pixel_mm: float = Field(gt=0)
    frame: Gaussian
    picture: Gaussian
    embedding: EmbeddedDomain | None = None
    threshold: float = Field(gt=0)
    false_refusals: float = Field(gt=0, lt=1)
    people: int = Field(gt=0)
    series: int = Field(gt=0)
    calibration_sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def score_of(self, look: Look) -> OodScore:
        """Measure how far a look lies from what is usual."""
        whole = self.frame.deviations(look.frame, np.zeros(1))
        slices = self.picture.deviations(look.picture, look.position_mm)
        parts = {
            "head frame": self.frame.distance(whole),
            "picture": self.picture.distance(slices),
        }
        if self.embedding is not None and look.embeddings is not None:
            usual = self.embedding.usual
            vectors = self.embedding.vectors(look.embeddings.astype(np.float64))
            parts["embedding"] = usual.distance(usual.deviations(vectors, look.position_mm))
        names = (*self.frame.names, *self.picture.names)
        means = (*whole.mean(axis=0), *slices.mean(axis=0))
        return OodScore(
            parts=parts,
            threshold=self.threshold,
            deviations=dict(zip(names, map(float, means), strict=True)),
        )

    def to_json(self) -> str:
        """Write it on one line: it is tables of numbers."""
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":")) + "\n"
