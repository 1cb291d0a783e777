"""When the delivery of results stops by itself: three rules over what the node made last.

A rule is judged on the newest results since it was released last, so that after a release only new
results can stop delivery again. Each statistic is a share, a mean or a median that a person can
compute from the audit log; medians, because one unusual head is no drift.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean, median
from typing import Any, Final, Literal, Self

JudgedRule = Literal["failures", "drift", "uncertainty"]
StopRule = Literal["failures", "drift", "uncertainty", "operator"]
JUDGED_RULES: Final[tuple[JudgedRule, ...]] = ("failures", "drift", "uncertainty")
#: `operator` is the stop by hand
STOP_RULES: Final[tuple[StopRule, ...]] = (*JUDGED_RULES, "operator")
BRAIN_HU: Final = "level of brain tissue"
OOD_SCORE: Final = "OOD score"
_LOOK: Final[Mapping[JudgedRule, str]] = {
    "failures": "see `rebrain-node queue list --state failed`",
    "drift": (
        "compare a new CT with an older one of the scanner (protocol, calibration, patients), and "
        "see `rebrain-node audit report --period`"
    ),
    "uncertainty": "look at the newest results with `rebrain-node audit report SERIES`",
}
#: what the statistics of the OOD model measure (docs/out-of-domain.md)
_WORDS: Final[Mapping[str, str]] = {
    "likeness": "likeness to the head template",
    "symmetry": "symmetry of the head",
    "size": "size of the head",
    "section": "section of the head in a slice",
    "width": "width of the head by its depth",
    "air": "share of air in the head",
    "fat": "share of fat",
    "bright": "share as bright as blood",
    "bone": "share of bone",
    "middle": "median HU of soft tissue",
    "spread": "spread of HU in soft tissue",
    "noise": "noise",
    "asymmetry": "difference between left and right",
}


@dataclass(frozen=True, kw_only=True)
class StopLimits:
    """What `[stop]` of the settings says."""

    rules: tuple[JudgedRule, ...] = JUDGED_RULES  #: those that are applied
    results: int = 50  #: newest series that a rule looks at
    least_results: int = 10  #: no rule stops delivery on fewer
    failed_share: float = 0.2
    uncertainty: float | None = None  #: ratio of the display range; None: the limit of the bundle
    drift_sd: float = 3.0  #: standard deviations of the series behind the bundle
    drift_hu: float = 10.0  #: HU, from the level of brain tissue that the bundle expects
    drift_ood: float = 1.0  #: ratio of the OOD threshold of the bundle


@dataclass(frozen=True, kw_only=True)
class ResultMeasures:
    """What was measured on the way to one result, with the reference that its bundle carries.

    A value is None where the bundle has no model for it, or nothing was seen.
    """

    uncertainty: float | None = None  #: mean, ratio of the display range
    uncertainty_limit: float | None = None  #: of a slice, by the bundle
    untrusted: int = 0  #: slices above that limit
    slices: int = 0
    ood_score: float | None = None
    ood_threshold: float | None = None
    brain_hu: float | None = None
    expected_hu: float | None = None
    #: statistics of the CT in standard deviations of the series behind the bundle
    deviations: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the audit details."""
        return dict(vars(self)) | {"deviations": dict(self.deviations)}

    @classmethod
    def from_json(cls, details: Mapping[str, Any]) -> Self:
        """Read audit details; other keys are left out."""
        return cls(**{k: v for k, v in details.items() if k in cls.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class SeriesOutcome:
    """How the work on one accepted series ended."""

    sequence: int  #: of its row in the audit log
    measures: ResultMeasures | None  #: None where it failed or the gate refused the result


@dataclass(frozen=True, kw_only=True)
class DriftStatistic:
    """The median of one measure over the newest results."""

    name: str
    value: float
    limit: float
    unit: str  #: what value and limit count
    results: int
    two_sided: bool = True

    @property
    def load(self) -> float:
        """Value as a ratio of its limit; above 1 it is beyond."""
        return (abs(self.value) if self.two_sided else self.value) / self.limit

    @property
    def words(self) -> str:
        """What was measured."""
        return _WORDS.get(self.name, self.name)

    @property
    def sentence(self) -> str:
        """Value and limit in words."""
        start = f"the median of the {self.words} of the last {self.results} results"
        if self.name == OOD_SCORE:
            return (
                f"{start} is {self.value:.2f} times the threshold of the bundle, at most "
                f"{self.limit:g} is usual"
            )
        side = "above" if self.value > 0 else "below"
        reference = (
            "the level that the bundle expects"
            if self.name == BRAIN_HU
            else "that of the series behind the bundle"
        )
        return (
            f"{start} lies {abs(self.value):.1f} {self.unit} {side} {reference}, at most "
            f"{self.limit:g} on either side are usual"
        )


@dataclass(frozen=True, kw_only=True)
class RuleReading:
    """Where one rule stands: value, limit, and over how many series."""

    rule: JudgedRule
    setting: str
    results: int  #: series that count
    value: float | None  #: None before there is any
    limit: float | None  #: None where neither settings nor bundle have one
    exceeded: bool  #: beyond the limit, on enough series
    words: str  #: value and limit

    @property
    def sentence(self) -> str:
        """Say why delivery stops, and what to look at."""
        return f"{self.words} ({self.setting}); {_LOOK[self.rule]}"


@dataclass(frozen=True, kw_only=True)
class DeliveryStop:
    """A stop that is in force until a person releases it."""

    rule: StopRule
    reason: str
    since: datetime  #: aware, UTC

    def sentence(self, waiting: int) -> str:
        """Say what is stopped, why, and what ends it; ``waiting`` sets are due."""
        return (
            f"delivery is stopped by the rule {self.rule}: {self.reason}; {waiting} results wait; "
            f"once the cause is removed, `rebrain-node stop release {self.rule} --reason TEXT` "
            "ends the stop"
        )


def read_rule(
    rule: JudgedRule, outcomes: Sequence[SeriesOutcome], limits: StopLimits
) -> RuleReading:
    """Judge one rule on the outcomes since its last release, oldest first."""
    newest = outcomes[-limits.results :]
    measured = [one.measures for one in newest if one.measures is not None]
    match rule:
        case "failures":
            return _failures(newest, limits)
        case "uncertainty":
            return _uncertainty(measured, limits)
        case "drift":
            return _drift(measured, limits)


def drift_of(measured: Sequence[ResultMeasures], limits: StopLimits) -> list[DriftStatistic]:
    """Return the drift statistics, the one nearest to its limit, or farthest beyond, first."""
    names = dict.fromkeys(name for one in measured for name in one.deviations)
    found = [
        _statistic(
            name, [m.deviations[name] for m in measured if name in m.deviations],
            limits.drift_sd, "standard deviations",
        )
        for name in names
    ]  # fmt: skip
    levels = [
        one.brain_hu - one.expected_hu
        for one in measured
        if one.brain_hu is not None and one.expected_hu is not None
    ]
    scores = [
        one.ood_score / one.ood_threshold for one in measured if one.ood_score and one.ood_threshold
    ]
    if levels:
        found.append(_statistic(BRAIN_HU, levels, limits.drift_hu, "HU"))
    if scores:
        score = _statistic(OOD_SCORE, scores, limits.drift_ood, "thresholds", two_sided=False)
        found.append(score)
    return sorted(found, key=lambda each: -each.load)


def _failures(newest: Sequence[SeriesOutcome], limits: StopLimits) -> RuleReading:
    failed = sum(one.measures is None for one in newest)
    count = len(newest)
    share = failed / count if count else None
    return RuleReading(
        rule="failures",
        setting="stop.failed_share",
        results=count,
        value=share,
        limit=limits.failed_share,
        exceeded=_enough(count, limits) and share is not None and share > limits.failed_share,
        words=(
            f"{failed} of the last {count} series failed or were refused by the gate"
            f"{'' if share is None else f' ({100 * share:.0f} %)'}, "
            f"at most {100 * limits.failed_share:g} % may"
        ),
    )


def _uncertainty(measured: Sequence[ResultMeasures], limits: StopLimits) -> RuleReading:
    known = measured[-1].uncertainty_limit if measured else None  # of the bundle in force
    means = [
        one.uncertainty
        for one in measured
        if one.uncertainty is not None and one.uncertainty_limit == known
    ]
    limit = known if limits.uncertainty is None else limits.uncertainty
    value = fmean(means) if means else None
    exceeded = _enough(len(means), limits) and None not in (value, limit) and value > limit  # type: ignore[operator] # neither is None
    if value is None:
        words = "no result with an uncertainty yet"
    else:
        most = "without a limit" if limit is None else f"at most {limit:g} is usual"
        words = (
            f"the mean uncertainty of the last {len(means)} results is {value:.3g} of the display "
            f"range, {most}"
        )
    return RuleReading(
        rule="uncertainty", setting="stop.uncertainty", results=len(means), value=value,
        limit=limit, exceeded=exceeded, words=words,
    )  # fmt: skip


def _drift(measured: Sequence[ResultMeasures], limits: StopLimits) -> RuleReading:
    found = drift_of(measured, limits)
    judged = [each for each in found if _enough(each.results, limits)] or found
    if not judged:
        return RuleReading(
            rule="drift", setting="stop.drift_sd", results=0, value=None, limit=None,
            exceeded=False, words="no result with a measure that the bundle has a reference for",
        )  # fmt: skip
    worst = judged[0]
    setting = {BRAIN_HU: "stop.drift_hu", OOD_SCORE: "stop.drift_ood"}
    return RuleReading(
        rule="drift",
        setting=setting.get(worst.name, "stop.drift_sd"),
        results=worst.results,
        value=worst.value,
        limit=worst.limit,
        exceeded=_enough(worst.results, limits) and worst.load > 1.0,
        words=worst.sentence,
    )


def _statistic(
    name: str, values: Iterable[float], limit: float, unit: str, *, two_sided: bool = True
) -> DriftStatistic:
    found = list(values)
    return DriftStatistic(
        name=name, value=median(found), limit=limit, unit=unit, results=len(found),
        two_sided=two_sided,
    )  # fmt: skip


def _enough(count: int, limits: StopLimits) -> bool:
    return count >= limits.least_results
