"""How often the input checks, the OOD score, or either detect a series.

All series are of held-out subjects, which neither the encoder nor the OOD model was fitted to.
Intervals are Clopper-Pearson, 95 %.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from scipy.stats import binomtest

from rebrain_node.instance.codecs import register
from rebrain_node.limits_file import shipped_limits
from rebrain_node.model.ood import OodModel
from rebrain_node.steps.assemble import assemble
from trainer.ood.series import CONDITIONS, IN_DISTRIBUTION, EvaluatedSeries, SeriesEvaluator

#: real series whose result is known: name, its files under the data, description (None: any)
REAL = (
    ("clinical head", "ct_toshiba_head_study/*.dcm", "Brain Head 5.0"),
    ("plastic phantom", "ct_philips_phantom/S2010/I*", None),
)


def exact_interval(hits: int, count: int) -> list[float]:
    """Return the exact (Clopper-Pearson) 95 % interval of a proportion; [0, 1] for a count of 0."""
    if count == 0:
        return [0.0, 1.0]
    interval = binomtest(hits, count).proportion_ci(0.95, "exact")
    return [float(interval.low), float(interval.high)]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the node decides about one series."""

    condition: str
    refused: tuple[str, ...]  #: codes of the input checks
    flagged: tuple[str, ...]  #: codes of the input checks
    score: float | None  #: None if the series was not scored
    over: bool  #: whether the score is above the threshold

    @property
    def detected(self) -> bool:
        """Whether the series is refused or flagged."""
        return bool(self.refused or self.flagged or self.over)


def verdict(series: EvaluatedSeries, model: OodModel) -> Verdict:
    """Add the OOD score to the result of the input checks."""
    ood = None if series.features is None else model.score_of(series.features)
    return Verdict(
        condition=series.condition,
        refused=series.refused,
        flagged=series.flagged,
        score=None if ood is None else ood.score,
        over=ood is not None and ood.score > ood.threshold,
    )


def real_series(evaluator: SeriesEvaluator, data: Path) -> list[EvaluatedSeries]:
    """Evaluate the real series of `REAL` that the folder of shared data holds."""
    evaluated = []
    register()
    for name, files, description in REAL:
        instances = [pydicom.dcmread(path) for path in sorted(data.glob(files))]
        chosen = [i for i in instances if description in (None, i.get("SeriesDescription"))]
        if chosen:
            volume = assemble(chosen, shipped_limits().geometry)
            evaluated.append(evaluator.evaluate(volume, ("real", name, 0)))
    return evaluated


def rows(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Count each condition; a detected in-distribution series is a false alarm."""
    table = []
    names = (IN_DISTRIBUTION, *CONDITIONS, *(name for name, _, _ in REAL))
    for name in names:
        own = [v for v in verdicts if v.condition == name]
        if not own:
            continue
        detected = sum(v.detected for v in own)
        scored = [v for v in own if v.score is not None]
        codes = Counter(code for v in own for code in {*v.refused, *v.flagged})
        table.append(
            {
                "condition": name,
                "n": len(own),
                "refused_by_rules": sum(bool(v.refused) for v in own),
                "flagged_by_rules_only": sum(bool(v.flagged and not v.refused) for v in own),
                "by_score_only": sum(v.over and not (v.refused or v.flagged) for v in own),
                "caught": detected,
                "interval": exact_interval(detected, len(own)),
                "looked_at": len(scored),
                "above_threshold": sum(v.over for v in scored),
                "scores": [round(v.score, 3) for v in scored if v.score is not None],
                "codes": dict(codes.most_common()),
            }
        )
    return table


def markdown(table: Sequence[dict[str, Any]]) -> str:
    """Return the counts as Markdown."""
    columns = (
        "series", "n", "refused by checks", "flagged only", "by the score only", "detected",
        "95 % interval", "above threshold, of those scored", "codes of the checks",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in table:
        low, high = row["interval"]
        codes = ", ".join(f"`{code}` {n}" for code, n in row["codes"].items())
        share = 100 * row["caught"] / row["n"]
        lines.append(
            f"| {row['condition']} | {row['n']} | {row['refused_by_rules']} | "
            f"{row['flagged_by_rules_only']} | {row['by_score_only']} | {share:.1f} % | "
            f"{100 * low:.1f} to {100 * high:.1f} % | {row['above_threshold']} of "
            f"{row['looked_at']} | {codes or '-'} |"
        )
    return "\n".join(lines)
