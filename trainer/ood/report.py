"""How well out-of-domain series are caught: by the rules, by the score, by either.

Held-out people alone: neither the encoder, nor the known domain, nor its threshold knew them.
Intervals are Clopper and Pearson's, 95 %.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom

from rebrain_node.instance.codecs import register
from rebrain_node.limits_file import shipped_limits
from rebrain_node.model.ood import OodModel
from rebrain_node.steps.assemble import assemble
from trainer.ood.exact_interval import exact_interval
from trainer.ood.series import CONDITIONS, IN_DOMAIN, EvaluatedSeries, SeriesEvaluator

#: real series with a known answer: name, its files under the data, description (None: any)
REAL = (
    ("clinical head", "ct_toshiba_head_study/*.dcm", "Brain Head 5.0"),
    ("plastic phantom", "ct_philips_phantom/S2010/I*", None),
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the whole of the node says of one series."""

    condition: str
    refused: tuple[str, ...]  #: codes of the rules
    flagged: tuple[str, ...]  #: codes of the rules
    score: float | None  #: None where no look was taken
    over: bool  #: whether the score lies above the threshold

    @property
    def caught(self) -> bool:
        """Whether anything was found: refused or flagged."""
        return bool(self.refused or self.flagged or self.over)


def verdict(seen: EvaluatedSeries, known: OodModel) -> Verdict:
    """Add the score to what the rules said."""
    strange = None if seen.look is None else known.score_of(seen.look)
    return Verdict(
        condition=seen.condition,
        refused=seen.refused,
        flagged=seen.flagged,
        score=None if strange is None else strange.score,
        over=strange is not None and strange.score > strange.threshold,
    )


def real_series(way: SeriesEvaluator, data: Path) -> list[EvaluatedSeries]:
    """Look at the real series of `REAL` that lie in the folder of shared data."""
    found = []
    register()
    for name, files, description in REAL:
        instances = [pydicom.dcmread(path) for path in sorted(data.glob(files))]
        chosen = [i for i in instances if description in (None, i.get("SeriesDescription"))]
        if chosen:
            found.append(way.seen(assemble(chosen, shipped_limits().geometry), ("real", name, 0)))
    return found


def rows(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Count each condition; of series in domain what is caught is a false alarm."""
    table = []
    names = (IN_DOMAIN, *CONDITIONS, *(name for name, _, _ in REAL))
    for name in names:
        own = [v for v in verdicts if v.condition == name]
        if not own:
            continue
        caught = sum(v.caught for v in own)
        looked = [v for v in own if v.score is not None]
        codes = Counter(code for v in own for code in {*v.refused, *v.flagged})
        table.append(
            {
                "condition": name,
                "n": len(own),
                "refused_by_rules": sum(bool(v.refused) for v in own),
                "flagged_by_rules_only": sum(bool(v.flagged and not v.refused) for v in own),
                "by_score_only": sum(v.over and not (v.refused or v.flagged) for v in own),
                "caught": caught,
                "interval": exact_interval(caught, len(own)),
                "looked_at": len(looked),
                "above_threshold": sum(v.over for v in looked),
                "scores": [round(v.score, 3) for v in looked if v.score is not None],
                "codes": dict(codes.most_common()),
            }
        )
    return table


def markdown(table: Sequence[dict[str, Any]]) -> str:
    """Print the counts as Markdown."""
    columns = (
        "series", "n", "refused by rules", "flagged only", "by the score only", "caught",
        "95 % interval", "above threshold, of those looked at", "codes of the rules",
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
