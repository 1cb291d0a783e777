"""What a bundle says of its own limits: uncertainty, out-of-distribution score, input checks."""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli import options

if TYPE_CHECKING:
    from rebrain_node.model.bundle import ModelBundle
    from trainer.heads import Head
    from trainer.ood.series import EvaluatedSeries

Cache = Annotated[Path, typer.Option(help="Folder of simulated series; missing ones are added.")]
#: of every simulated series; a cache of another seed would hold other series
_SEED = 0
#: in-distribution series for each series of a condition
_IN_DISTRIBUTION_SHARE = 2


def calibrate(  # noqa: PLR0913 - one option each
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    out: options.Out,
    version: options.Version,
    maps: options.MapsOrNone = None,
    prepared: options.Prepared = None,
    data: options.Data = None,
    as_json: options.AsJson = False,
) -> None:
    """Calibrate uncertainty and abstention limits.

    Takes thick-slice series of each subject, simulated from tissue maps or thinned from a prepared
    data set, applies the steps of the node and compares the result with the true T1. The training
    subjects train the residual-scale network; the held-out subjects set the widths of the intervals
    (conformal, 90 %) and the limits above which the node abstains. Writes the new bundle to OUT,
    and a report to OUT-uncertainty.json and OUT-uncertainty.md.
    """
    import torch

    from rebrain_node.model.bundle import load_bundle
    from trainer.calibrate.report import markdown, write_report
    from trainer.calibrate.run import CalibrationSet, Steps, SubjectSplit
    from trainer.calibrate.run import calibrate as run
    from trainer.data.dataset import PreparedData

    torch.set_num_threads(1)
    verified = load_bundle(bundle)
    if prepared is not None and maps is None:
        subjects = CalibrationSet.paired(PreparedData.open(prepared), verified.recipe)
    elif maps is not None and prepared is None:
        split = SubjectSplit.of(options.heads_of(data), maps)
        subjects = CalibrationSet.simulated(split, verified.recipe)
    else:
        raise typer.BadParameter("give either --prepared or --maps")
    with options.bar_of("starting", 1) as (bar, task):
        steps = Steps(
            lambda what, count: bar.reset(task, description=what, total=count),
            lambda: bar.advance(task),
        )
        report = run(verified, subjects, out, version, steps)
    write_report(report, out)
    typer.echo(json.dumps(report) if as_json else markdown(report))


def fit_ood(  # noqa: PLR0913 - one option each
    bundle: options.Bundle,
    out: options.Out,
    maps: options.MapsOrNone = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="With --maps: folder of simulated series; missing ones are added."),
    ] = None,
    prepared: options.Prepared = None,
    data: options.Data = None,
    series: Annotated[
        int, typer.Option(min=1, help="With --maps: series per training subject.")
    ] = 5,
) -> None:
    """Fit the out-of-distribution (OOD) model.

    The model describes series of the training subjects: simulated from tissue maps, or CT of a
    prepared data set under several distances and thicknesses of slices. Writes a new bundle.
    """
    from rebrain_node.model.bundle import load_bundle
    from trainer.data.dataset import PreparedData
    from trainer.release.bundle import release_ood
    from trainer.release.ood_model import ood_model_of, prepared_series

    verified = load_bundle(bundle)
    if prepared is not None and maps is None:
        pairs = PreparedData.open(prepared)
        with options.bar_of("subjects", len(pairs.split["train"])) as (bar, task):
            evaluated = prepared_series(verified, pairs, lambda: bar.advance(task))
            model = ood_model_of(verified, evaluated)
    elif maps is not None and cache is not None and prepared is None:
        heads = [head for head in options.heads_of(data, "train") if head.whole_head_truth]
        wanted: dict[int, tuple[str, ...]] = dict.fromkeys(range(series), ())
        model = ood_model_of(verified, _evaluated(verified, heads, maps, cache, wanted))
    else:
        raise typer.BadParameter("give either --prepared, or --maps and --cache")
    made = release_ood(verified, model, out)
    typer.echo(
        f"{out}: {made.name} {made.version}, threshold {model.threshold:.3f} from {model.series} "
        f"series of {model.people} subjects, {made.digest}"
    )


def ood_report(
    bundle: options.Bundle,
    maps: options.Maps,
    cache: Cache,
    data: options.Data = None,
    series: Annotated[int, typer.Option(min=1, help="Series per subject and condition.")] = 10,
    as_json: options.AsJson = False,
) -> None:
    """Report what input checks and OOD score detect.

    Simulates series of the held-out subjects, twice as many in distribution (false alarms) as of
    each condition that must be detected, and adds the real series in the data folder. BUNDLE needs
    an OOD model (`fit-ood`).
    """
    from rebrain_node.errors import BundleError
    from rebrain_node.model.bundle import load_bundle
    from trainer.ood import report
    from trainer.ood.series import CONDITIONS
    from trainer.release.ood_model import embedding_of, evaluator_of

    verified = load_bundle(bundle)
    model = verified.ood_model
    if model is None:
        raise BundleError(f"{bundle} has no domain.json; make it with `rebrain-train fit-ood`")
    heads = options.heads_of(data, "validation", "demonstration")
    wanted = {k: CONDITIONS if k < series else () for k in range(_IN_DISTRIBUTION_SHARE * series)}
    evaluated = [*_evaluated(verified, heads, maps, cache, wanted)]
    embedded = embedding_of(verified)
    real = report.real_series(evaluator_of(verified), options.data_of(data))
    evaluated += [embedded(each) for each in real]
    table = report.rows([report.verdict(each, model) for each in evaluated])
    if as_json:
        names = [head.name for head in heads]
        facts = {"bundle": verified.digest, "threshold": model.threshold, "people": names}
        typer.echo(json.dumps({**facts, "rows": table}))
    else:
        typer.echo(report.markdown(table))


def input_checks(
    maps: options.Maps,
    data: options.Data = None,
    series: Annotated[int, typer.Option(min=1, help="Series per subject and condition.")] = 1,
    seed: Annotated[int, typer.Option(help="Random seed of the simulation.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Measure the input checks on simulated series.

    Simulates series of each subject without a condition (false alarms) and with each condition that
    the node must detect. Missing tissue maps are computed, about one minute per subject.
    """
    from rebrain_node.limits_file import shipped_limits
    from trainer.evaluate import input_checks as checks

    results = []
    total = len(options.heads_of(data)) * (len(checks.CLASSES) + 1) * series
    with options.bar_of("series", total) as (bar, task):
        for result in checks.measure(options.data_of(data), maps, series, seed, shipped_limits()):
            results.append(result)
            bar.advance(task)
    rates = checks.detection_rates(results)
    if as_json:
        rows = [{"class": r.code, "n": r.n, "hits": r.hits, "interval": r.interval} for r in rates]
        typer.echo(json.dumps(rows))
    else:
        typer.echo(checks.table(rates))


def _evaluated(
    bundle: "ModelBundle",
    heads: "Sequence[Head]",
    maps: Path,
    cache: Path,
    conditions: dict[int, tuple[str, ...]],
) -> "Iterator[EvaluatedSeries]":
    """Yield one series in distribution and the conditions, for each subject and number."""
    from trainer.ood.series import IN_DISTRIBUTION, cached_series
    from trainer.release.ood_model import embedding_of, evaluator_of

    evaluator, embedded = evaluator_of(bundle), embedding_of(bundle)
    wanted = {number: (IN_DISTRIBUTION, *more) for number, more in conditions.items()}
    total = len(heads) * sum(map(len, wanted.values()))
    with options.bar_of("series", total) as (bar, task):
        for head in heads:
            tissues = partial(options.tissues_of, maps, head)
            for series in cached_series(evaluator, tissues, head.name, wanted, _SEED, cache):
                yield embedded(series)
                bar.advance(task)
