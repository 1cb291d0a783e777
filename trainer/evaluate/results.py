"""The result of an evaluation: its JSON document, the volumes shown, and the scores as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from trainer.data.dataset import Mask, Volume
from trainer.release.card import OURS


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
    """Volumes of one subject at the positions scored, (slice, row, column) on the native grid."""

    subject: str
    #: as the methods see it, 0 to 1; at filled positions linear between measured slices
    source: Volume
    #: the truth, mapped by the metrics' affine map: 0 and 1 are its percentiles 0.5 and 99.5
    reference: Volume
    mask: Mask  #: the head
    predictions: Mapping[str, Volume]  #: by method, in the unit of `reference`
    #: (slice,), rising; slice numbers where positions are unknown
    positions_mm: NDArray[np.float64]
    measured: Mask  #: (slice,), true where the methods were given a slice
    pixel_mm: tuple[float, float] | None  #: between rows, between columns; None where unknown


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The outcome of one run of `rebrain-train evaluate`."""

    document: Document
    montage: Montage


@dataclass(frozen=True)
class Statistic:
    """One metric of one method over the subjects; NaN where it is not known."""

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
    """JSON has no NaN: a value that is not known is null there."""
    return math.nan if value is None else float(value)


PaperData = Literal["SynthRAD2023", "BraTS"]
Printed = Mapping[str, Mapping[str, float]]  #: by method, by metric

_COLUMNS: Final = ("nrmse", "psnr", "ssim", "i_ssim")


def _rows(**rows: tuple[float, float, float, float]) -> Printed:
    return {name: dict(zip(_COLUMNS, values, strict=True)) for name, values in rows.items()}


#: Tables 1 and 6: half-resolution input
TABLE_1: Final[Mapping[PaperData, Printed]] = {
    "SynthRAD2023": _rows(
        MaskGAN=(0.1526, 17.685, 0.5883, 0.9093),
        CT2MRI=(0.1138, 19.293, 0.6015, 0.9484),
        DualApproxBridge=(0.1093, 18.178, 0.6162, 0.9382),
        I3Net=(0.1653, 11.775, 0.5581, 0.9407),
        ALDM=(0.1336, 17.561, 0.6266, 0.9368),
        mDAUNet=(0.1069, 18.662, 0.6331, 0.9466),
        ReBrain=(0.1054, 20.759, 0.6682, 0.9662),
    ),
    "BraTS": _rows(
        MaskGAN=(0.1035, 20.171, 0.7028, 0.9215),
        CT2MRI=(0.0643, 23.844, 0.8535, 0.9489),
        DualApproxBridge=(0.0706, 24.510, 0.8419, 0.9404),
        I3Net=(0.1502, 18.914, 0.8074, 0.9530),
        ALDM=(0.0808, 21.921, 0.7930, 0.9544),
        mDAUNet=(0.0602, 24.646, 0.8378, 0.9597),
        ReBrain=(0.0551, 25.607, 0.8887, 0.9575),
    ),
}
#: Table 2: the objective
TABLE_2: Final[Mapping[PaperData, Printed]] = {
    "SynthRAD2023": {
        "raw objective": {"nrmse": 0.1239, "psnr": 19.103, "ssim": 0.6427, "i_ssim": 0.9558},
        "directional objective": TABLE_1["SynthRAD2023"]["ReBrain"],
    }
}
#: Table 4: control. The paper prints an NRMSE of 0.5939 without it, a slip for 0.0594.
TABLE_4: Final[Mapping[PaperData, Printed]] = {
    "BraTS": {
        "without control": {"nrmse": 0.0594, "psnr": 24.571, "ssim": 0.8460, "i_ssim": 0.9237},
        "with control": TABLE_1["BraTS"]["ReBrain"],
    }
}


def paper_data(document: Document) -> PaperData | None:
    """Return which of the paper's data sets was used, if any; it printed `decimate:2` alone."""
    origin = f"{document['dataset']['name']} {document['dataset']['origin']}".lower()
    if document["protocol"] != "decimate:2":
        return None
    if "synthrad2023" in origin:
        return "SynthRAD2023"
    return "BraTS" if "brats" in origin else None
