"""What the values of an uncertainty map mean, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, Literal

#: what a map was calibrated on: CT simulated from T1, or CT and MR of the same people
CalibrationSource = Literal["simulated CT", "paired scans"]
#: subjects on which a map must have been calibrated for it to be called calibrated
LEAST_SUBJECTS: Final = 20


@dataclass(frozen=True, kw_only=True)
class UncertaintyInterpretation:
    """How an uncertainty map is to be read; without a calibration it is a rule of thumb.

    Attributes
    ----------
    alpha : float or None
        The map holds the half-width of the interval that misses the truth in this share of a
        head's voxels; None: an expected absolute error by rule of thumb.
    subjects : int
        n, the subjects whose residuals set the width.
    source : str
        What those subjects were.
    untrusted_above : float or None
        A slice whose mean uncertainty inside the head is larger is not to be trusted; None where
        the recipe sets no limit.
    """

    alpha: float | None = None
    subjects: int = 0
    source: CalibrationSource = "simulated CT"
    untrusted_above: float | None = None

    @property
    def calibrated(self) -> bool:
        """Whether enough subjects were used to calibrate the map."""
        return self.alpha is not None and self.subjects >= LEAST_SUBJECTS

    @property
    def label(self) -> str:
        """Words shown beside the map in every object and report."""
        word = f"calibrated on {self.source}" if self.calibrated else "UNCALIBRATED"
        return word if self.alpha is None else f"{word}, n = {self.subjects}"

    @property
    def quantity(self) -> str:
        """What one value is, in words."""
        if self.alpha is None:
            return "Expected absolute error"
        return f"Half-width of {1.0 - self.alpha:.0%} interval"

    def trusts(self, uncertainty: float) -> bool | None:
        """Whether a slice of this mean uncertainty is within the limit; None without a limit."""
        return None if self.untrusted_above is None else uncertainty <= self.untrusted_above


#: of a map without a calibration
RULE_OF_THUMB: Final = UncertaintyInterpretation()


def uncertainty_details(
    slices: Sequence[float], meaning: UncertaintyInterpretation
) -> dict[str, Any]:
    """Return the uncertainty of a series as the audit log keeps it.

    Parameters
    ----------
    slices : sequence of float
        Mean of each slice inside the head, ratio of the display range; 0 where no head is seen.
    meaning : UncertaintyInterpretation
        Label and limit.
    """
    seen = [value for value in slices if value > 0.0]
    untrusted = [k + 1 for k, value in enumerate(slices) if meaning.trusts(value) is False]
    return {
        "mean": round(fmean(seen), 5) if seen else None,
        "label": meaning.label,
        "untrusted_above": meaning.untrusted_above,
        "untrusted": untrusted,
        "slices": [round(value, 5) for value in slices],
    }
