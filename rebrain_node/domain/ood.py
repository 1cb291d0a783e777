"""The out-of-distribution (OOD) score of a series: one number and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class OodScore:
    """How far a series lies from those that the model was made for.

    Each part is a mean squared distance divided by the one that 95 % of valid series stay below,
    so 1 is usual and 3 is far; the score is the largest part.
    """

    parts: Mapping[str, float]  #: head frame, picture and, with an encoder, embedding
    threshold: float  #: a series with a larger score is out of distribution
    deviations: Mapping[str, float]  #: of each statistic, in standard deviations of valid series

    @property
    def score(self) -> float:
        """The largest part."""
        return max(self.parts.values())

    @property
    def farthest(self) -> tuple[str, ...]:
        """Names of the three statistics that deviate most, the farthest first."""
        ordered = sorted(self.deviations, key=lambda name: -abs(self.deviations[name]))
        return tuple(ordered[:3])

    def to_json(self) -> dict[str, Any]:
        """Return the audit details of the score."""
        return {
            "score": round(self.score, 3),
            "threshold": round(self.threshold, 3),
            "parts": {name: round(value, 3) for name, value in self.parts.items()},
            "deviations": {name: round(value, 2) for name, value in self.deviations.items()},
        }
