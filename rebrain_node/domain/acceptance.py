"""What shadow mode has shown: results, failures, verdicts of people, and whether it is enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from math import sqrt
from statistics import quantiles
from typing import Any, Final, Literal, Self

from rebrain_node.domain.stop_rules import DriftStatistic, ResultMeasures
from rebrain_node.domain.text import utc

#: what a person thinks of a result
Verdict = Literal["accept", "reject"]
VERDICTS: Final[tuple[Verdict, ...]] = ("accept", "reject")
#: standard normal quantile of the two-sided 95 % interval
_Z: Final = 1.959964


@dataclass(frozen=True, kw_only=True)
class AcceptanceLimits:
    """What `[acceptance]` of the settings says."""

    results: int = 50
    verdicts: int = 20
    accepted_share: float = 0.8
    failed_share: float = 0.05
    latency_s: float = 900.0
    ood_share: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ReaderVerdict:
    """The newest verdict of one person on one result."""

    operator: str
    verdict: Verdict
    reason: str
    recorded_at: datetime  #: aware, UTC

    @property
    def sentence(self) -> str:
        """Verdict, time and reason."""
        return f"{self.verdict}, {utc(self.recorded_at)}: {self.reason}"

    def to_json(self) -> dict[str, str]:
        """Return every field as JSON."""
        return asdict(self) | {"recorded_at": utc(self.recorded_at)}

    @classmethod
    def from_json(cls, details: Mapping[str, Any], recorded_at: datetime) -> Self:
        """Read the details of an audit event."""
        return cls(
            operator=str(details["operator"]),
            verdict="accept" if details["verdict"] == "accept" else "reject",
            reason=str(details["reason"]),
            recorded_at=recorded_at,
        )


@dataclass(frozen=True, kw_only=True)
class ShadowResult:
    """One result that was made in shadow mode."""

    series_instance_uid: str
    set_id: int
    made_at: datetime  #: aware, UTC
    latency_s: float | None  #: from complete study to result; None where the log lacks the former
    measures: ResultMeasures
    verdicts: tuple[ReaderVerdict, ...] = ()

    @property
    def accepted(self) -> bool | None:
        """Whether nobody rejects it; None before anybody has judged it."""
        if not self.verdicts:
            return None
        return all(one.verdict == "accept" for one in self.verdicts)


@dataclass(frozen=True, kw_only=True)
class AcceptanceRule:
    """One thing that must hold, and what was found."""

    name: str
    setting: str
    found: str
    required: str
    met: bool


@dataclass(frozen=True, kw_only=True)
class AcceptanceFacts:
    """What happened while shadow mode was active from ``begin`` to ``end`` (aware, UTC)."""

    begin: datetime
    end: datetime
    active: Sequence[tuple[datetime, datetime]]  #: when shadow mode was active in the period
    limits: AcceptanceLimits
    studies: int  #: that were complete
    results: Sequence[ShadowResult]
    outside: int  #: results of the period that were made outside shadow mode
    refused: Mapping[str, int]  #: refused series by code
    failed: Mapping[str, int]  #: failed series by code
    gate: Mapping[str, int]  #: series that the gate refused, by code
    failures: int  #: series that failed or were refused by the gate
    stops: Sequence[str]  #: why a rule stopped delivery
    drift: Sequence[DriftStatistic]

    @property
    def latencies_s(self) -> list[float]:
        """Seconds from complete study to result, rising."""
        return sorted(one.latency_s for one in self.results if one.latency_s is not None)

    @property
    def judged(self) -> list[ShadowResult]:
        """Results with a verdict."""
        return [one for one in self.results if one.accepted is not None]

    @property
    def rules(self) -> tuple[AcceptanceRule, ...]:
        """Compare with the settings."""
        return (*self._counts(), *self._shares(), self._latency(), self._stops())

    @property
    def met(self) -> bool:
        """Whether all of them are met."""
        return all(rule.met for rule in self.rules)

    def _counts(self) -> tuple[AcceptanceRule, ...]:
        limits, made, judged = self.limits, len(self.results), len(self.judged)
        return (
            AcceptanceRule(
                name="results of shadow mode", setting="acceptance.results", found=str(made),
                required=f"at least {limits.results}", met=made >= limits.results,
            ),
            AcceptanceRule(
                name="results that a person has judged", setting="acceptance.verdicts",
                found=str(judged), required=f"at least {limits.verdicts}",
                met=judged >= limits.verdicts,
            ),
        )  # fmt: skip

    def _shares(self) -> tuple[AcceptanceRule, ...]:
        limits = self.limits
        accepted = sum(bool(one.accepted) for one in self.judged)
        low, high = wilson(accepted, len(self.judged))
        ended = len(self.results) + self.failures
        scored = [
            one.measures.ood_score > one.measures.ood_threshold
            for one in self.results
            if one.measures.ood_score is not None and one.measures.ood_threshold is not None
        ]
        return (
            AcceptanceRule(
                name="share of judged results that were accepted",
                setting="acceptance.accepted_share",
                found=f"{accepted} of {len(self.judged)}, 95 % interval {_percent(low)} to "
                f"{_percent(high)}",
                required=f"lower end at least {_percent(limits.accepted_share)}",
                met=low >= limits.accepted_share,
            ),
            AcceptanceRule(
                name="series that failed or were refused by the gate",
                setting="acceptance.failed_share",
                found=f"{self.failures} of {ended}",
                required=f"at most {_percent(limits.failed_share)}",
                met=ended > 0 and self.failures <= limits.failed_share * ended,
            ),
            AcceptanceRule(
                name="results above the OOD threshold",
                setting="acceptance.ood_share",
                found=f"{sum(scored)} of {len(scored)}"
                if scored
                else "not known: the bundle has no OOD model",
                required=f"at most {_percent(limits.ood_share)}",
                met=not scored or sum(scored) <= limits.ood_share * len(scored),
            ),
        )

    def _latency(self) -> AcceptanceRule:
        ninth = ninetieth(self.latencies_s)
        return AcceptanceRule(
            name="seconds from complete study to result, 90 % of the results",
            setting="acceptance.latency_s",
            found="no result" if ninth is None else f"{ninth:.0f} s",
            required=f"at most {self.limits.latency_s:g} s",
            met=ninth is not None and ninth <= self.limits.latency_s,
        )

    def _stops(self) -> AcceptanceRule:
        return AcceptanceRule(
            name="stops of delivery by a rule", setting="stop", found=str(len(self.stops)),
            required="none", met=not self.stops,
        )  # fmt: skip


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); 0 to 1 without a trial."""
    if trials == 0:
        return 0.0, 1.0
    share, square = successes / trials, _Z * _Z
    centre = share + square / (2 * trials)
    width = _Z * sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    scale = 1 + square / trials
    return max(0.0, (centre - width) / scale), min(1.0, (centre + width) / scale)


def ninetieth(values: Sequence[float]) -> float | None:
    """Return the 90th percentile of rising values; None without any."""
    if len(values) < 2:
        return values[0] if values else None
    return quantiles(values, n=10, method="inclusive")[-1]


def shadow_times(
    changes: Sequence[tuple[datetime, bool]], begin: datetime, end: datetime
) -> tuple[tuple[datetime, datetime], ...]:
    """Return when shadow mode was active from ``begin`` to ``end``.

    Parameters
    ----------
    changes : sequence of (datetime, bool)
        When it became active or not, oldest first.
    """
    closed = [*changes, (end, False)]
    spans = [
        (max(begin, start), min(end, stop))
        for (start, active), (stop, _) in pairwise(closed)
        if active
    ]
    return tuple((start, stop) for start, stop in spans if start < stop)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
