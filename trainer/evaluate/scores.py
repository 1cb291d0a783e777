"""The scores of an evaluation document, as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from trainer.evaluate.evaluation import Document, Figure

#: the name of our method in every document
OURS: Final = "rebrain"


@dataclass(frozen=True)
class Statistic:
    """One metric of one method over the subjects; NaN where it could not be had."""

    mean: float
    low: float  #: 95 % bootstrap interval over subjects
    high: float
    sd: float
    per_subject: Mapping[str, float]
    pooled: float = math.nan  #: over all slices of all subjects together, where that is told


Scores = Mapping[str, Mapping[str, Statistic]]  #: by method, by metric


def read_scores(document: Document) -> Scores:
    """Take the scores from a document, our method first, then in the document's order."""
    methods = document["methods"]
    names = sorted(methods, key=lambda name: name != OURS)
    return {
        name: {metric: _statistic(entry) for metric, entry in methods[name].items()}
        for name in names
    }


def metrics_of(scores: Scores) -> tuple[str, ...]:
    """Name every metric that any method has, in order of appearance."""
    return tuple(dict.fromkeys(metric for entries in scores.values() for metric in entries))


def subjects_of(scores: Scores) -> tuple[str, ...]:
    """Name every subject, in order of appearance."""
    return tuple(
        dict.fromkeys(
            subject
            for entries in scores.values()
            for statistic in entries.values()
            for subject in statistic.per_subject
        )
    )


def _statistic(entry: Figure) -> Statistic:
    low, high = entry["ci95"]
    return Statistic(
        _float(entry["mean"]),
        _float(low),
        _float(high),
        _float(entry["sd"]),
        {subject: _float(value) for subject, value in entry["per_subject"].items()},
        _float(entry.get("pooled")),
    )


def _float(value: float | None) -> float:
    """JSON has no NaN: what could not be had stands there as null."""
    return math.nan if value is None else float(value)
