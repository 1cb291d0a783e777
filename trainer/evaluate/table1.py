"""The tables and figures of the comparison with the paper's peers, from the runs that have ended.

    OUT/table1.json   every figure: over seeds and subjects, by subject, and what each method costs
    OUT/table1.md     the paper's Tables 1 and 6 at our scale, more factors, and the cost
    OUT/figures/      one subject by every method; every subject as a point

Baselines that need no network stand beside the methods, and volumes of others where a site gives
them: the folder of a method has one folder for each protocol.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NotRequired, TypedDict

import numpy as np

from trainer.config import TrainConfig
from trainer.data.dataset import PreparedData, Volume
from trainer.data.placing import unit
from trainer.data.protocols import Case, Sparsity
from trainer.evaluate.baselines import Baselines
from trainer.evaluate.methods import Predictions
from trainer.evaluate.metrics import Reference, metrics_of_volume
from trainer.evaluate.montage import montage
from trainer.evaluate.peer_runs import (
    PICTURED,
    PROTOCOLS,
    ComparisonError,
    PeerRequest,
    PeerRun,
    SubjectScores,
    cases,
)
from trainer.evaluate.plots import Plot, points
from trainer.evaluate.report_files import json_text, markdown_table
from trainer.evaluate.results import TABLE_1, MetricSummary, Montage, Scores, Statistic
from trainer.evaluate.run import summarise
from trainer.evaluate.tables import Cell, Row, Table, metric, number
from trainer.peers.catalogue import METHODS
from trainer.release.card import OURS

PAPER: Final = ("nrmse", "psnr", "ssim", "i_ssim")  #: the columns of the paper's tables
#: what a blurred volume does not win, and the positions where no slice was given
BEYOND: Final = ("i_ssim_gap", "spectrum_error", "psnr_filled", "ssim_filled")
_FACTOR: Final = ("psnr", "ssim", "spectrum_error")
_BASELINES: Final = ("constant", "linear-lut", "exemplar")
_SPREAD: Final = (
    "Mean over subjects and seeds ± standard deviation over seeds, in brackets the 95 % bootstrap "
    "interval over subjects. Methods with one seed, and those without a network, have no deviation."
)
_GAP: Final = (
    "I-SSIM is highest for a volume that is the same in every slice; its gap to the real MR's own "
    "value, and the error of the power spectrum, are lowest for a volume as rough as the real one."
)


class SeedSummary(TypedDict):
    """One metric of one method under one protocol."""

    summary: MetricSummary  #: over subjects, of their means over seeds
    seeds_sd: float | None  #: over seeds, of their means over subjects; null for one seed


class MethodCost(TypedDict):
    """What a method costs: means over seeds."""

    iterations: float
    training_seconds: float
    volume_seconds: float
    volume_gflop: float
    parameters: int
    memory_mib: float


class MethodResult(TypedDict):
    """One method of the comparison."""

    seeds: list[int]
    protocols: dict[str, dict[str, SeedSummary]]
    cost: NotRequired[MethodCost]  #: of the methods trained here


class ComparisonDocument(TypedDict):
    """The JSON of a comparison."""

    format: int
    data: str
    source_kind: str
    digest: str
    budget_seconds: float | None
    iterations: int | None
    sampling_steps: int
    subjects: list[str]
    i_ssim_reference: dict[str, float]  #: the real MR's own, by protocol
    methods: dict[str, MethodResult]


@dataclass(frozen=True)
class Comparison:
    """A comparison ready to be written."""

    document: ComparisonDocument
    plots: tuple[Plot, ...]


def compare(
    request: PeerRequest, runs: Sequence[PeerRun], others: Mapping[str, Path]
) -> Comparison:
    """Put the runs beside the baselines and the volumes of others.

    Parameters
    ----------
    others : mapping
        Folder by name of the method.

    Raises
    ------
    ComparisonError
        A name is taken.
    PredictionError
        A volume of another method is missing or cannot be scored.
    """
    taken = [name for name in others if name in METHODS or name in _BASELINES]
    if taken:
        raise ComparisonError(f"the name {taken[0]!r} of a method is taken; give another")
    data, config = PreparedData.open(request.data), TrainConfig.load(request.config)
    baselines = Baselines.fit(data, data.split["train"], config.recipe, lambda: None)
    scores: dict[str, dict[str, SubjectScores]] = {}
    shown: dict[str, Volume] = {}
    own: dict[str, list[float]] = {str(protocol): [] for protocol in PROTOCOLS}
    pictured: tuple[Case, Reference] | None = None
    for protocol, case in cases(data):
        truth = Reference.of(case, volumetric=True)
        own[str(protocol)].append(truth.i_ssim)
        volumes = {k: v for k, v in baselines.synthesise(case) if k in _BASELINES}
        for name, folder in others.items():
            read = Predictions(name, folder / str(protocol).replace(":", "-")).read(case.subject)
            volumes[name] = truth.scale.map(read[case.rows])
        for name, volume in volumes.items():
            of_method = scores.setdefault(name, {}).setdefault(str(protocol), {})
            of_method[case.subject.name] = metrics_of_volume(volume, truth, "standard")
        if pictured is None:
            pictured, shown = (case, truth), volumes
    assert pictured is not None  # noqa: S101 - a run that ended has scored a subject
    entries = _entries(runs) | {
        name: MethodResult(seeds=[], protocols=_figures([each])) for name, each in scores.items()
    }
    document: ComparisonDocument = {
        "format": 1,
        "data": request.data.resolve().name,
        "source_kind": data.source_kind,
        "digest": request.digest,
        "budget_seconds": request.budget.seconds,
        "iterations": request.budget.iterations,
        "sampling_steps": request.sampling_steps,
        "subjects": list(data.split["test"]),
        "i_ssim_reference": {name: float(np.mean(values)) for name, values in own.items()},
        "methods": entries,
    }
    drawn = {each.method: request.file(each.method, each.seed) for each in reversed(runs)}
    volumes = {name: _volume(drawn[name]) for name in METHODS if name in drawn} | shown
    picture = _montage(*pictured, volumes, data, config)
    plots = (
        montage(picture, data.source_kind, volumetric=True),
        points(_scores(document, PICTURED)),
    )
    return Comparison(document, tuple(plot for plot in plots if plot is not None))


def _volume(run: Path) -> Volume:
    with np.load(run.with_suffix(".npz"), allow_pickle=False) as content:
        return np.asarray(content["volume"], dtype=np.float32)


def _montage(
    case: Case,
    truth: Reference,
    volumes: Mapping[str, Volume],
    data: PreparedData,
    config: TrainConfig,
) -> Montage:
    return Montage(
        subject=case.subject.name,
        source=case.linear(unit(case.source, case.head, data.source_kind, config.recipe)),
        reference=truth.reference,
        mask=truth.head,
        predictions=volumes,
        positions_mm=case.targets_mm,
        measured=case.measured,
        pixel_mm=case.subject.pixel_mm,
    )


def _entries(runs: Sequence[PeerRun]) -> dict[str, MethodResult]:
    entries: dict[str, MethodResult] = {}
    for method in METHODS:
        own = [run for run in runs if run.method == method]
        if not own:
            continue
        entries[method] = {
            "seeds": [run.seed for run in own],
            "protocols": _figures([run.scores for run in own]),
            "cost": {
                "iterations": _mean([run.iterations for run in own]),
                "training_seconds": _mean([run.training_seconds for run in own]),
                "volume_seconds": _mean([run.volume_seconds for run in own]),
                "volume_gflop": _mean([run.volume_flop for run in own]) / 1e9,
                "parameters": own[0].parameters,
                "memory_mib": _mean([run.memory_mib for run in own]),
            },
        }
    return entries


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _figures(seeds: Sequence[Mapping[str, SubjectScores]]) -> dict[str, dict[str, SeedSummary]]:
    """Sum up one method, from the scores of each of its seeds."""
    return {protocol: _of_protocol([each[protocol] for each in seeds]) for protocol in seeds[0]}


def _of_protocol(seeds: Sequence[SubjectScores]) -> dict[str, SeedSummary]:
    subjects = list(seeds[0])
    names = [name for name in seeds[0][subjects[0]] if name != "i_ssim_reference"]
    figures: dict[str, SeedSummary] = {}
    for name in names:
        values = np.array([[each[subject].get(name, np.nan) for subject in subjects]
                           for each in seeds])  # fmt: skip
        of_seeds = values.mean(axis=1)
        figures[name] = {
            "summary": summarise(dict(zip(subjects, values.mean(axis=0).tolist(), strict=True)), 0),
            "seeds_sd": float(of_seeds.std(ddof=1)) if len(of_seeds) > 1 else None,
        }
    return figures


def _scores(document: ComparisonDocument, protocol: Sparsity) -> Scores:
    """Return the scores under one protocol as the plots of other reports take them."""
    found: dict[str, dict[str, Statistic]] = {}
    for name, entry in document["methods"].items():
        figures = entry["protocols"][str(protocol)]
        found[name] = {key: _statistic(figure["summary"]) for key, figure in figures.items()}
    return found


def _statistic(summary: MetricSummary) -> Statistic:
    low, high = summary["ci95"]
    return Statistic(summary["mean"], low, high, summary["sd"], summary["per_subject"])


def score_table(document: ComparisonDocument, protocol: Sparsity, wanted: Sequence[str]) -> Table:
    """Return one table: the methods as rows, `wanted` as columns, the best of each marked."""
    held = [name for name in wanted if any(
        name in entry["protocols"][str(protocol)] for entry in document["methods"].values()
    )]  # fmt: skip
    best = {name: _best(document, protocol, name) for name in held}
    rows = [
        Row(
            method,
            tuple(
                _cell(entry["protocols"][str(protocol)].get(name), name, method == best[name])
                for name in held
            ),
            "ours" if method == OURS else "method",
        )
        for method, entry in document["methods"].items()
    ]
    title = f"{str(protocol).replace(':', ' x')}: {', '.join(metric(n).label for n in held)}"
    return Table(title, tuple(metric(name).heading for name in held), tuple(rows), (_SPREAD,))


def _cell(figure: SeedSummary | None, name: str, best: bool) -> Cell:
    if figure is None:
        return Cell("-")
    digits = metric(name).digits
    text = number(figure["summary"]["mean"], digits)
    if figure["seeds_sd"] is not None:
        text += f" ± {number(figure['seeds_sd'], digits)}"
    low, high = figure["summary"]["ci95"]
    return Cell(text, f"{number(low, digits)} to {number(high, digits)}", best)


def _best(document: ComparisonDocument, protocol: Sparsity, name: str) -> str | None:
    """Name the best method of a column; none where neither end is the better one."""
    means = {
        method: figure["summary"]["mean"]
        for method, entry in document["methods"].items()
        if (figure := entry["protocols"][str(protocol)].get(name)) is not None
    }
    better = metric(name).better
    if better == "closer":
        return None
    return (max if better == "higher" else min)(means, key=lambda method: means[method])


def cost_table(document: ComparisonDocument) -> Table:
    """Return what each method trained here costs."""
    rows = tuple(
        Row(
            method,
            tuple(
                Cell(text)
                for text in (
                    ", ".join(str(seed) for seed in entry["seeds"]),
                    f"{cost['iterations']:.0f}",
                    f"{cost['training_seconds']:.1f}",
                    f"{cost['volume_seconds']:.1f}",
                    f"{cost['volume_gflop']:.0f}",
                    f"{cost['parameters'] / 1e6:.2f}",
                    f"{cost['memory_mib']:.0f}",
                )
            ),
            "ours" if method == OURS else "method",
        )
        for method, entry in document["methods"].items()
        if (cost := entry.get("cost")) is not None
    )
    columns = ("seeds", "iterations", "training, s", "volume, s", "volume, GFLOP",
               "parameters, million", "memory, MiB")  # fmt: skip
    note = (
        "Seconds of the processor. A volume is a subject with every second slice given. Memory is "
        "the largest of the process, libraries and training data included."
    )
    return Table("Cost", columns, rows, (note,))


def paper_table() -> Table:
    """Return the paper's own Table 1 on BraTS, FLAIR to T1, for comparison of the order."""
    rows = tuple(
        Row(name, tuple(Cell(number(values[key], metric(key).digits)) for key in PAPER), "paper")
        for name, values in TABLE_1["BraTS"].items()
    )
    note = "Other data, 100,000 iterations, networks of the authors: only the order compares."
    return Table(
        "As printed in the paper, BraTS, x2",
        tuple(metric(key).heading for key in PAPER), rows, (note,),
    )  # fmt: skip


def markdown(document: ComparisonDocument) -> str:
    """Write the tables as Markdown."""
    spent = document["budget_seconds"]
    budget = (
        f"{document['iterations']} iterations" if spent is None
        else f"{spent:.0f} s of processor time"
    )  # fmt: skip
    own = ", ".join(f"{name} {value:.3f}" for name, value in document["i_ssim_reference"].items())
    head = (
        f"Data set `{document['data']}`; each method and seed was trained for {budget}; diffusion "
        f"samples by {document['sampling_steps']} time steps. Subjects scored: "
        f"{', '.join(document['subjects'])}. I-SSIM of the real MR: {own}.\n\n{_GAP}\n\n"
    )
    tables = [
        score_table(document, PICTURED, PAPER),
        score_table(document, PICTURED, BEYOND),
        *(score_table(document, protocol, _FACTOR) for protocol in PROTOCOLS[1:]),
        cost_table(document),
        paper_table(),
    ]
    return head + "\n".join(markdown_table(table, level=2) for table in tables)


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Write tables and figures beside the runs."""
    (out / "figures").mkdir(parents=True, exist_ok=True)
    (out / "table1.json").write_text(json_text(comparison.document), encoding="utf-8")
    figures = "\n".join(
        f"\n![{plot.title}](figures/{plot.name}.png)\n\n{plot.caption}\n"
        for plot in comparison.plots
    )
    text = f"# The paper's Table 1 at our scale\n\n{markdown(comparison.document)}{figures}"
    (out / "table1.md").write_text(text, encoding="utf-8")
    for plot in comparison.plots:
        (out / "figures" / f"{plot.name}.png").write_bytes(plot.png)
