"""What intervals are worth on people who set none of their widths.

Every figure of a person comes from widths that the other people set (leave one person out) and a
head that neither taught.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from rebrain_node.domain.volume import FloatArray, SliceKind
from trainer.calibrate.conformal import plain, width
from trainer.calibrate.residuals import KINDS, Residuals

LEVELS = (0.5, 0.8, 0.9, 0.95)
_VOXELS = 100_000  # of a person, for what needs them sorted
_STEPS = 50  # of the sparsification curve


@dataclass(frozen=True)
class SubjectResiduals:
    """One person's residuals with the scales of a head that the person did not teach."""

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
        """Voxels inside the head, drawn once, by place among all of them."""
        count = int(self.residuals.inside.sum())
        rng = np.random.default_rng(0)
        return rng.choice(count, min(count, _VOXELS), replace=False)

    def sampled(self, values: NDArray[np.floating]) -> FloatArray:
        """Values (k, rows, columns) at the drawn voxels."""
        return values[self.residuals.inside][self.sample].astype(np.float32)


def coverage(people: Sequence[SubjectResiduals], kind: SliceKind) -> dict[str, object]:
    """Coverage of one kind of slice at every level, and what hides in the mean.

    Returns
    -------
    dict
        ``levels``: by level in per cent the mean over people and every person's; ``quartiles``:
        at 90 %, from the surest to the least sure quarter of a person's voxels;
        ``worst_series``: at 90 %, of single series; ``width``: mean half-width at 90 %.
    """
    people = [each for each in people if each.has(kind)]
    found: dict[str, list[float]] = {f"{level:.0%}": [] for level in LEVELS}
    quartiles, worst, wide = [], [], []
    for person in people:
        others = [each.scores(kind) for each in people if each is not person]
        if not others:
            continue
        own, scale = person.scores(kind), person.scales(kind)
        for level in LEVELS:
            covered = own <= _scales(others, 1.0 - level)
            found[f"{level:.0%}"].append(float(covered.mean()))
        widest = _scales(others, 0.1)
        quartiles.append(_by_quartile(own <= widest, scale))
        wide.append(float(scale.mean(dtype=np.float64)) * widest)
        for number in np.unique(person.residuals.series):
            scores = person.scores(kind, int(number))
            if scores.size:
                worst.append(float((scores <= widest).mean()))
    return {
        "people": len(people),
        "levels": {
            level: {"mean": float(np.mean(values)), "per_person": values}
            for level, values in found.items()
            if values
        },
        "quartiles": np.mean(quartiles, axis=0).tolist() if quartiles else [],
        "worst_series": min(worst, default=None),
        "width": float(np.mean(wide)) if wide else None,
    }


def _scales(others: Sequence[FloatArray], alpha: float) -> float:
    """Width at any level by the rule of the bundle's own: conformal, or plain for too few."""
    if not width(others, 0.1).conformal:
        return plain(others, alpha)
    return width(others, alpha).scales


def _by_quartile(covered: NDArray[np.bool_], scale: FloatArray) -> list[float]:
    order = np.argsort(scale, kind="stable")
    return [float(part.mean()) for part in np.array_split(covered[order], 4)]


def order(people: Sequence[SubjectResiduals]) -> dict[str, object]:
    """How well a map tells large errors from small ones: Spearman's rho and AUSE, per person.

    Returns
    -------
    dict
        ``spearman`` and ``ause`` by map: ``scale``, ``rule of thumb``, ``constant`` and, where the
        walk has noise, ``spread of samples``.
    """
    maps: Mapping[str, Callable[[SubjectResiduals], FloatArray]] = {
        "scale": lambda each: each.sampled(each.scale),
        "rule of thumb": lambda each: each.sampled(each.residuals.rule),
        "constant": lambda each: np.ones(len(each.sample), dtype=np.float32),
    }
    if all(each.residuals.spread is not None for each in people):
        maps = {**maps, "spread of samples": _spread}
    rho: dict[str, float] = {}
    area: dict[str, float] = {}
    for name, of in maps.items():
        pairs = [(of(each), each.sampled(each.residuals.error)) for each in people]
        area[name] = float(np.mean([ause(*pair) for pair in pairs]))
        if name != "constant":
            rho[name] = float(np.mean([_rho(*pair) for pair in pairs]))
    return {"spearman": rho, "ause": area}


def _rho(uncertainty: FloatArray, error: FloatArray) -> float:
    if uncertainty.min() == uncertainty.max():
        return 0.0
    return float(spearmanr(uncertainty, error).statistic)


def _spread(person: SubjectResiduals) -> FloatArray:
    spread = person.residuals.spread
    return person.sampled(spread if spread is not None else person.residuals.rule)


def ause(uncertainty: FloatArray, error: FloatArray) -> float:
    """Area between sparsification curve and oracle, in units of the mean error.

    The curve is the mean error of what remains when the least sure voxels are taken away; the
    oracle takes away the largest errors. A constant map takes away at random: its curve is 1.
    """
    return _area(uncertainty, error) - _area(error, error)


def _area(by: FloatArray, error: FloatArray) -> float:
    if by.min() == by.max():
        return 1.0
    sorted_errors = error[np.argsort(by, kind="stable")].astype(np.float64)
    remaining = np.cumsum(sorted_errors) / np.arange(1, len(error) + 1)
    kept = np.ceil(np.linspace(1.0, 0.02, _STEPS) * len(error)).astype(int) - 1
    return float(remaining[kept].mean() / remaining[-1])


def likelihood(people: Sequence[SubjectResiduals]) -> dict[str, float]:
    """Mean of |e| / b + log b over people, of the head and of the best constant for each person."""
    head, constant = [], []
    for person in people:
        error = person.sampled(person.residuals.error).astype(np.float64)
        scale = person.sampled(person.scale).astype(np.float64)
        head.append(float((error / scale + np.log(scale)).mean()))
        constant.append(float(1.0 + np.log(error.mean())))
    return {"scale": float(np.mean(head)), "constant": float(np.mean(constant))}


def by_kind(people: Sequence[SubjectResiduals]) -> dict[str, dict[str, object]]:
    """Coverage of every kind of slice that was met."""
    return {
        kind: coverage(people, kind) for kind in KINDS if any(each.has(kind) for each in people)
    }
