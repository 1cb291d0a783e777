"""Half-widths that are no straight line of the scale, and whether they are worth it.

The curve is the quantile of the errors of the training subjects in bins of the scale, made to rise
by isotonic regression. The widths are then the conformal multiple of the curve that the held-out
subjects set, so the guarantee of `trainer.calibrate.intervals` holds whatever the curve is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from rebrain_node.model.calibration import bent
from trainer.calibrate.intervals import ALPHA, SubjectResiduals, by_kind

BINS = 20
#: a curve is kept where it is narrower than the straight line by this share, at equal coverage
LEAST_GAIN = 0.10
Curve = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class WidthComparison:
    """Mean half-widths at 90 % of held-out subjects, each by the widths that the others set."""

    straight: float
    curved: float
    kept: bool  #: whether the curve is

    @property
    def sentence(self) -> str:
        """What was compared and kept."""
        gain = 1.0 - self.curved / self.straight
        word = "kept" if self.kept else "not kept"
        return (
            f"Widths that follow a rising curve of the scale instead of a straight line: mean "
            f"half-width {self.curved:.4f} against {self.straight:.4f}, {gain:.1%} narrower; "
            f"{word} ({LEAST_GAIN:.0%} are asked for)."
        )


def width_curve(training: Sequence[SubjectResiduals]) -> Curve:
    """Return points (scale, half-width) that rise in both; at least two.

    Parameters
    ----------
    training : sequence of SubjectResiduals
        Of subjects that set no width.
    """
    scale = np.concatenate([each.sampled(each.scale) for each in training])
    error = np.concatenate([each.sampled(each.residuals.error) for each in training])
    edges = np.quantile(scale, np.linspace(0.0, 1.0, BINS + 1))
    number = np.clip(np.searchsorted(edges, scale, side="right") - 1, 0, BINS - 1)
    used = [k for k in range(BINS) if (number == k).any()]
    middles = np.array([float(np.median(scale[number == k])) for k in used])
    quantiles = np.array([float(np.quantile(error[number == k], 1.0 - ALPHA)) for k in used])
    weights = np.array([int((number == k).sum()) for k in used], dtype=np.float64)
    rising = isotonic_regression(np.maximum(quantiles, 1e-4), weights=weights).x
    return _distinct(middles, rising)


def _distinct(scales: NDArray[np.float64], widths: NDArray[np.float64]) -> Curve:
    """Let both rise strictly, which a plateau or equal scales would not."""
    points = [(float(scales[0]), float(widths[0]))]
    for scale, width in zip(scales[1:], widths[1:], strict=True):
        if scale > points[-1][0]:
            points.append((float(scale), max(float(width), points[-1][1] * (1.0 + 1e-6))))
    if len(points) == 1:
        points.append((2.0 * points[0][0], 2.0 * points[0][1]))
    return tuple(points)


def curved(subjects: Sequence[SubjectResiduals], curve: Curve) -> list[SubjectResiduals]:
    """Return the subjects with the half-widths of the curve instead of the scale."""
    return [replace(each, scale=bent(each.scale, curve)) for each in subjects]


def compare(straight: Sequence[SubjectResiduals], curve: Curve) -> WidthComparison:
    """Compare mean half-widths, weighted by the number of slices of each kind."""
    found = [_mean_width(each) for each in (straight, curved(straight, curve))]
    return WidthComparison(found[0], found[1], found[1] <= (1.0 - LEAST_GAIN) * found[0])


def _mean_width(subjects: Sequence[SubjectResiduals]) -> float:
    widths, counts = [], []
    for kind, figures in by_kind(subjects).items():
        if isinstance(figures["width"], float):
            widths.append(figures["width"])
            counts.append(sum(each.residuals.kinds.count(kind) for each in subjects))
    return float(np.average(widths, weights=counts)) if widths else float("inf")
