"""Conformal widths of intervals, and their coverage; one subject is one observation.

    lambda = inf{ lambda : n/(n+1) loss(lambda) + B/(n+1) <= alpha and miss(lambda) <= alpha }
    B = min(3 alpha, 1)

where miss of a subject is the share of its voxels whose residual is larger than lambda scales, its
loss is min(miss, B), and both are means over n subjects. For a new subject, exchangeable with
these, the expected loss is at most alpha (Angelopoulos et al., Conformal Risk Control, 2022,
theorem 1): a subject of whom more than B lies outside counts as B. Without that bound twenty
subjects pay five points of coverage for the next one that may miss everything. The reported figures
of a subject use the widths set by the other subjects (leave one out).
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from rebrain_node.domain.uncertainty import CalibrationSource, UncertaintyInterpretation
from rebrain_node.domain.volume import FloatArray, SliceKind
from rebrain_node.model.calibration import Calibration, Width
from rebrain_node.model.recipe import Abstain
from trainer.calibrate.residuals import KINDS, Residuals

ALPHA = 0.1
LEVELS = (0.5, 0.8, 0.9, 0.95)
#: limits of abstention: one voxel in ten, one slice in twenty of the held-out subjects lies above
VOXEL_QUANTILE, SLICE_QUANTILE = 0.90, 0.95
#: five times the share of marked slices of the held-out subjects
SERIES_SHARE = 0.25
#: largest loss of one subject, in units of alpha
LARGEST_LOSS = 3.0
_VOXELS = 100_000  # per subject, where they must be sorted
_STEPS = 50  # of the sparsification curve
_ROUNDING = 1e-9


def conformal(scores: Sequence[FloatArray], alpha: float) -> float:
    """Return lambda; infinite where n < 1/alpha - 1.

    Parameters
    ----------
    scores : sequence of FloatArray
        Of each subject: |residual| / scale of each voxel, any shape.
    alpha : float
        Share of the voxels that may lie outside the interval.
    """
    n, largest = len(scores), min(LARGEST_LOSS * alpha, 1.0)
    if alpha * (n + 1) < 1.0 - _ROUNDING:
        return math.inf
    allowed = (alpha * (n + 1) - largest) / n  # of loss, from the formula above
    return max(_least(scores, allowed, largest), plain(scores, alpha))


def plain(scores: Sequence[FloatArray], alpha: float) -> float:
    """Return the quantile with equal weight of each subject, without the term B/(n+1)."""
    return _least(scores, alpha, 1.0)


def _least(scores: Sequence[FloatArray], allowed: float, largest: float) -> float:
    """Return the least lambda at which the mean loss, `largest` a subject, is at most `allowed`.

    It is one of the scores, found by bisection: twenty subjects have ten million.
    """
    ranked = [np.sort(np.ravel(each), kind="stable") for each in scores]  # fast where sorted

    def lost(limit: float) -> float:
        at = np.float32(limit)
        larger = [each.size - np.searchsorted(each, at, side="right") for each in ranked]
        shares = [n / each.size for n, each in zip(larger, ranked, strict=True)]
        return float(np.mean(np.minimum(shares, largest)))

    low, high = -1.0, max(float(each[-1]) for each in ranked)
    while (middle := float(np.float32((low + high) / 2))) not in (low, high):
        low, high = (low, middle) if lost(middle) <= allowed + _ROUNDING else (middle, high)
    return max(float(v) for each in ranked for v in _at_most(each, high))


def _at_most(ranked: FloatArray, limit: float) -> FloatArray:
    """Return the largest value that does not exceed a limit; nothing where all are larger."""
    end = int(np.searchsorted(ranked, np.float32(limit), side="right"))
    return ranked[max(0, end - 1) : end]


def width(scores: Sequence[FloatArray], alpha: float) -> Width:
    """Return the width of the intervals of one kind of slice: conformal, or plain if n is small."""
    scales = conformal(scores, alpha)
    if math.isfinite(scales):
        return Width(scales=max(scales, 1e-6), people=len(scores), conformal=True)
    return Width(scales=max(plain(scores, alpha), 1e-6), people=len(scores), conformal=False)


@dataclass(frozen=True)
class SubjectResiduals:
    """Residuals of one subject, and the scales of a network not trained on the subject."""

    residuals: Residuals
    scale: FloatArray  # (k, rows, columns)

    def has(self, kind: SliceKind) -> bool:
        """Whether any slice is of this kind."""
        return bool(self.residuals.of_kind(kind).any())

    def scores(self, kind: SliceKind, series: int | None = None) -> FloatArray:
        """|residual| over scale inside the head, of the slices of a kind."""
        error, scale = self.errors(kind, series), self.scales(kind, series)
        return np.asarray(error / scale)

    def errors(self, kind: SliceKind, series: int | None = None) -> FloatArray:
        """|residual| inside the head, of the slices of a kind."""
        return self._inside(self.residuals.error, kind, series)

    def scales(self, kind: SliceKind, series: int | None = None) -> FloatArray:
        """Scale inside the head, of the slices of a kind."""
        return self._inside(self.scale, kind, series)

    def _inside(
        self, values: NDArray[np.floating], kind: SliceKind, series: int | None
    ) -> FloatArray:
        kept = self.residuals.of_kind(kind)
        if series is not None:
            kept &= self.residuals.series == series
        return values[kept][self.residuals.inside[kept]].astype(np.float32)

    @cached_property
    def sample(self) -> NDArray[np.intp]:
        """Random voxels inside the head, as indices among all of them."""
        count = int(self.residuals.inside.sum())
        rng = np.random.default_rng(0)
        return rng.choice(count, min(count, _VOXELS), replace=False)

    def sampled(self, values: NDArray[np.floating]) -> FloatArray:
        """Values (k, rows, columns) at the voxels of `sample`."""
        return values[self.residuals.inside][self.sample].astype(np.float32)


def coverage(subjects: Sequence[SubjectResiduals], kind: SliceKind) -> dict[str, object]:
    """Return coverage and width of one kind of slice, each subject by the widths of the others.

    Returns
    -------
    dict
        ``levels``: by level in per cent the mean over subjects and each subject's; ``quartiles``:
        at 90 %, by quartile of uncertainty, lowest first; ``worst_series``: lowest of a single
        series at 90 %; ``width``: mean half-width at 90 %.
    """
    subjects = [each for each in subjects if each.has(kind)]
    ranked = [np.sort(each.scores(kind)) for each in subjects]  # once for all levels
    covered: dict[str, list[float]] = {f"{level:.0%}": [] for level in LEVELS}
    quartiles, worst, wide = [], [], []
    for row, subject in enumerate(subjects):
        others = [*ranked[:row], *ranked[row + 1 :]]
        if not others:
            continue
        own, scale = subject.scores(kind), subject.scales(kind)
        for level in LEVELS:
            inside = own <= _scales(others, 1.0 - level)
            covered[f"{level:.0%}"].append(float(inside.mean()))
        widest = _scales(others, 0.1)
        quartiles.append(_by_quartile(own <= widest, scale))
        wide.append(float(scale.mean(dtype=np.float64)) * widest)
        for number in np.unique(subject.residuals.series):
            scores = subject.scores(kind, int(number))
            if scores.size:
                worst.append(float((scores <= widest).mean()))
    return {
        "people": len(subjects),
        "levels": {
            level: {"mean": float(np.mean(values)), "per_person": values}
            for level, values in covered.items()
            if values
        },
        "quartiles": np.mean(quartiles, axis=0).tolist() if quartiles else [],
        "worst_series": min(worst, default=None),
        "width": float(np.mean(wide)) if wide else None,
    }


def _scales(others: Sequence[FloatArray], alpha: float) -> float:
    """Return lambda by the rule of the bundle: conformal at all levels, or plain at all levels."""
    if not width(others, 0.1).conformal:
        return plain(others, alpha)
    return width(others, alpha).scales


def _by_quartile(covered: NDArray[np.bool_], scale: FloatArray) -> list[float]:
    order = np.argsort(scale, kind="stable")
    return [float(part.mean()) for part in np.array_split(covered[order], 4)]


def order(subjects: Sequence[SubjectResiduals]) -> dict[str, object]:
    """Return Spearman's rho of uncertainty and error, and AUSE: means over subjects.

    Returns
    -------
    dict
        ``spearman`` and ``ause`` by map: ``scale``, ``rule of thumb``, ``constant`` and, where the
        result has sampled noise, ``spread of samples``.
    """
    maps: Mapping[str, Callable[[SubjectResiduals], FloatArray]] = {
        "scale": lambda each: each.sampled(each.scale),
        "rule of thumb": lambda each: each.sampled(each.residuals.rule),
        "constant": lambda each: np.ones(len(each.sample), dtype=np.float32),
    }
    if all(each.residuals.spread is not None for each in subjects):
        maps = {**maps, "spread of samples": _spread}
    rho: dict[str, float] = {}
    area: dict[str, float] = {}
    for name, of in maps.items():
        pairs = [(of(each), each.sampled(each.residuals.error)) for each in subjects]
        area[name] = float(np.mean([ause(*pair) for pair in pairs]))
        if name != "constant":
            rho[name] = float(np.mean([_rho(*pair) for pair in pairs]))
    return {"spearman": rho, "ause": area}


def _rho(uncertainty: FloatArray, error: FloatArray) -> float:
    if uncertainty.min() == uncertainty.max():
        return 0.0
    return float(spearmanr(uncertainty, error).statistic)


def _spread(subject: SubjectResiduals) -> FloatArray:
    spread = subject.residuals.spread
    return subject.sampled(spread if spread is not None else subject.residuals.rule)


def ause(uncertainty: FloatArray, error: FloatArray) -> float:
    """Return the area between sparsification curve and oracle, in units of the mean error.

    The curve is the mean error of the remaining voxels when those of largest uncertainty are
    removed; the oracle removes the largest errors. A constant map removes random voxels: 1.
    """
    return _area(uncertainty, error) - _area(error, error)


def _area(by: FloatArray, error: FloatArray) -> float:
    if by.min() == by.max():
        return 1.0
    sorted_errors = error[np.argsort(by, kind="stable")].astype(np.float64)
    remaining = np.cumsum(sorted_errors) / np.arange(1, len(error) + 1)
    kept = np.ceil(np.linspace(1.0, 0.02, _STEPS) * len(error)).astype(int) - 1
    return float(remaining[kept].mean() / remaining[-1])


def top_share(
    uncertainty: FloatArray, among: NDArray[np.bool_], wrong: NDArray[np.bool_], share: float = 0.05
) -> float:
    """Return how much of what is wrong lies in the most uncertain `share` of the voxels `among`.

    Parameters
    ----------
    uncertainty, among, wrong : ndarray
        Of one shape; `wrong` is part of `among`, e.g. tissue of the brain drawn as fluid.

    Returns
    -------
    float
        0 to 1; NaN where nothing is wrong.
    """
    if not wrong.any():
        return math.nan
    least = np.quantile(uncertainty[among], 1.0 - share)
    return float((uncertainty[wrong] >= least).mean())


def likelihood(subjects: Sequence[SubjectResiduals]) -> dict[str, float]:
    """Return the mean of |e| / b + log b: of the network, and of the best constant per subject."""
    network, constant = [], []
    for subject in subjects:
        error = subject.sampled(subject.residuals.error).astype(np.float64)
        scale = subject.sampled(subject.scale).astype(np.float64)
        network.append(float((error / scale + np.log(scale)).mean()))
        constant.append(float(1.0 + np.log(error.mean())))
    return {"scale": float(np.mean(network)), "constant": float(np.mean(constant))}


def by_kind(subjects: Sequence[SubjectResiduals]) -> dict[str, dict[str, object]]:
    """Return the coverage of every kind of slice that occurs."""
    return {
        kind: coverage(subjects, kind) for kind in KINDS if any(each.has(kind) for each in subjects)
    }


def calibration_of(
    subjects: Sequence[SubjectResiduals], source: CalibrationSource = "simulated CT"
) -> Calibration:
    """Return the widths of every kind of slice; a kind that does not occur takes the widest."""
    widths: dict[SliceKind, Width] = {}
    for kind in KINDS:
        scores = [each.scores(kind) for each in subjects if each.has(kind)]
        if scores:
            widths[kind] = width(scores, ALPHA)
    n = min(each.people for each in widths.values())
    widest = max(each.scales for each in widths.values())
    for kind in KINDS:
        widths.setdefault(kind, Width(scales=widest, people=0, conformal=False))
    digests = "".join(each.residuals.digest for each in subjects)
    return Calibration(
        alpha=ALPHA,
        people=n,
        label=UncertaintyInterpretation(alpha=ALPHA, subjects=n, source=source).label,
        widths=widths,
        set_digest=hashlib.sha256(digests.encode()).hexdigest(),
        subjects=tuple(each.residuals.subject for each in subjects),
        files={},
        source=source,
    )


def limits_of(subjects: Sequence[SubjectResiduals], calibration: Calibration) -> Abstain:
    """Return the limits of abstention: quantiles of the half-widths of the held-out subjects."""
    widths = []
    for each in subjects:
        lambdas = [calibration.width_of(kind) for kind in each.residuals.kinds]
        widths.append(each.scale * np.array(lambdas, dtype=np.float32)[:, None, None])
    means = [
        float(wide[inside].mean())
        for each, many in zip(subjects, widths, strict=True)
        for wide, inside in zip(many, each.residuals.inside, strict=True)
    ]
    voxels = np.concatenate([e.sampled(wide) for e, wide in zip(subjects, widths, strict=True)])
    return Abstain(
        voxel_above=_limit(float(np.quantile(voxels, VOXEL_QUANTILE))),
        slice_above=_limit(float(np.quantile(means, SLICE_QUANTILE))),
        series_share=SERIES_SHARE,
    )


def _limit(value: float) -> float:
    return round(min(max(value, 0.001), 0.99), 4)
