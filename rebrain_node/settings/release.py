"""What is sent to clinical destinations: shadow mode, stop rules, acceptance."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from rebrain_node.domain.stop_rules import JUDGED_RULES, JudgedRule
from rebrain_node.settings.values import Section


class ShadowSettings(Section):
    """Shadow mode: everything is made and judged, nothing goes to the clinical destinations."""

    active: bool = Field(
        default=False,
        description=(
            "whether results stay in the node: they are kept for every destination, and `outbox "
            "retry` sends chosen ones once this is false again; nobody is notified, no workitem "
            "is claimed ([shadow mode](how-to/shadow-mode.md))"
        ),
    )
    destination: str | None = Field(
        default=None,
        description=(
            "name of the one destination that gets the results while shadow mode is active, a "
            "test archive; none means that they stay in the node"
        ),
    )


class StopSettings(Section):
    """When delivery stops by itself, until a person releases it."""

    rules: tuple[JudgedRule, ...] = Field(
        default=JUDGED_RULES,
        description=(
            "rules that are applied: `failures`, `drift`, `uncertainty`; an empty list applies "
            "none ([delivery](delivery.md#when-delivery-stops))"
        ),
    )
    results: int = Field(
        default=50, ge=1, le=1000, description="newest series that each rule looks at"
    )
    least_results: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="no rule stops delivery on fewer series than this, at most `stop.results`",
    )
    failed_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description=(
            "delivery stops when more than this share of the newest series failed or was refused "
            "by the gate"
        ),
    )
    uncertainty: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description=(
            "delivery stops when the mean uncertainty of the newest results is above this, ratio "
            "of the display range; none means the limit of the bundle for a slice "
            "(`abstain.slice_above`); a bundle without one stops nothing"
        ),
    )
    drift_sd: float = Field(
        default=3.0,
        gt=0,
        le=50,
        description=(
            "delivery stops when the median of a statistic of the newest CT lies farther from the "
            "series behind the bundle than this, on either side, standard deviations"
        ),
    )
    drift_hu: float = Field(
        default=10.0,
        gt=0,
        le=100,
        description=(
            "delivery stops when the median level of brain tissue lies farther from that which "
            "the bundle expects than this, on either side, HU"
        ),
    )
    drift_ood: float = Field(
        default=1.0,
        gt=0,
        le=100,
        description=(
            "delivery stops when the median OOD score is more than this many times the threshold "
            "of the bundle"
        ),
    )

    @model_validator(mode="after")
    def _looks_at_enough(self) -> Self:
        if self.least_results > self.results:
            raise ValueError(
                f"stop.least_results is {self.least_results}, but only the newest {self.results} "
                "series are looked at (stop.results): no rule would ever stop delivery; lower "
                "least_results, or raise results"
            )
        return self


class AcceptanceSettings(Section):
    """What shadow mode must show before the site goes on; `audit acceptance` compares."""

    results: int = Field(default=50, ge=1, description="results of shadow mode, at least")
    verdicts: int = Field(
        default=20, ge=1, description="results that a person has judged (`queue verdict`), at least"
    )
    accepted_share: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description=(
            "lower end of the 95 % interval of the share of judged results that were accepted, at "
            "least"
        ),
    )
    failed_share: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="share of series that failed or were refused by the gate, at most",
    )
    latency_s: float = Field(
        default=900.0,
        gt=0,
        description="seconds from complete study to result that 90 % of the results keep",
    )
    ood_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of results with an OOD score above the threshold of the bundle, at most",
    )
