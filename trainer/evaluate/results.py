"""The result of an evaluation: its JSON document, the volumes shown, and the scores as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]


class MetricSummary(TypedDict):
    """One metric of one method: over subjects, and each of them.

    `ci95` is the bootstrap interval of the mean over subjects; `sd` the standard deviation over
    subjects (0 for one subject). `pooled`, of slice identities alone: over all slices of all
    subjects together.
    """

    mean: float
    ci95: list[float]
    sd: float
    per_subject: dict[str, float]
    pooled: NotRequired[float]


class DatasetFacts(TypedDict):
    """What was evaluated on.

    `subjects` are those scored, `slices` the number of positions scored in each.
    """

    name: str
    source_kind: str
    volumetric: bool
    licence: str
    origin: str
    split: str
    subjects: list[str]
    slices: dict[str, int]


class BundleFacts(TypedDict):
    """Which model stands behind `rebrain`, and what evaluated it."""

    name: str
    version: str
    digest: str
    engine: str


class Document(TypedDict):
    """The whole evaluation as JSON.

    `methods` holds {method: {metric: MetricSummary}}, `skipped` {method: reason} for every
    baseline that has no row, `notes` sentences that belong under every table, `montage` the
    subject whose volumes are shown (the first of the split: fixed before any score is known).
    """

    format: int
    dataset: DatasetFacts
    protocol: str
    mode: str
    bundle: BundleFacts
    seed: int
    methods: dict[str, dict[str, MetricSummary]]
    skipped: dict[str, str]
    notes: list[str]
    montage: str


@dataclass(frozen=True, kw_only=True)
class Montage:
    """Volumes of one subject at the positions scored, (slice, row, column) on the native grid.

    Attributes
    ----------
    source : Volume
        As the methods see it, 0 to 1; at filled positions linear between measured slices.
    reference : Volume
        The truth, mapped by the metrics' affine map: 0 and 1 are its percentiles 0.5 and 99.5.
    mask : Mask
        The head.
    predictions : mapping of str to Volume
        By method, in the unit of `reference`.
    positions_mm : NDArray of float64
        (slice,), rising; slice numbers where positions are unknown.
    measured : Mask
        (slice,), true where the methods were given a slice.
    pixel_mm : tuple of float or None
        Between rows, between columns; None where unknown.
    """

    subject: str
    source: Volume
    reference: Volume
    mask: Mask
    predictions: Mapping[str, Volume]
    positions_mm: NDArray[np.float64]
    measured: Mask
    pixel_mm: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The outcome of one run of `rebrain-train evaluate`."""

    document: Document
    montage: Montage


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
    pooled: float = math.nan  #: over all slices of all subjects together, where it is known


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


def _statistic(entry: MetricSummary) -> Statistic:
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
