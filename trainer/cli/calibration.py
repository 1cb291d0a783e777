"""What a bundle says of its own limits: uncertainty, out-of-distribution score, input checks."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli import options

if TYPE_CHECKING:
    from rebrain_node.model.bundle import ModelBundle
    from trainer.heads import Head
    from trainer.ood.series import EvaluatedSeries, SeriesEvaluator

Cache = Annotated[Path, typer.Option(help="Folder of simulated series; missing ones are added.")]
#: of every simulated series; a cache of another seed would hold other series
_SEED = 0
#: in-distribution series for each series of a condition
_IN_DISTRIBUTION_SHARE = 2


def calibrate(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle.")],
    maps: options.Maps,
    out: options.Out,
    version: options.Version,
    data: options.Data = None,
    as_json: options.AsJson = False,
) -> None:
    """Calibrate uncertainty and abstention limits.

    Simulates thick-slice series of each subject with tissue maps, applies the steps of the node and
    compares the result with the true T1. The training subjects train the residual-scale network;
    the held-out subjects set the widths of the intervals (conformal, 90 %) and the limits above
    which the node abstains. Writes the new bundle to OUT, and a report to OUT-uncertainty.json and
    OUT-uncertainty.md.
    """
    import torch

    from rebrain_node.model.bundle import load_bundle
    from trainer.calibrate.report import markdown
    from trainer.calibrate.run import Steps, SubjectSplit
    from trainer.calibrate.run import calibrate as run

    torch.set_num_threads(1)
    subjects = SubjectSplit.of(options.heads_of(data), maps)
    with options.bar_of("starting", 1) as (bar, task):
        steps = Steps(
            lambda what, count: bar.reset(task, description=what, total=count),
            lambda: bar.advance(task),
        )
        report = run(load_bundle(bundle), subjects, out, version, steps)
    text, page = json.dumps(report, indent=1) + "\n", markdown(report)
    out.with_name(f"{out.name}-uncertainty.json").write_text(text)
    out.with_name(f"{out.name}-uncertainty.md").write_text(page)
    typer.echo(json.dumps(report) if as_json else page)


def fit_ood(
    bundle: options.Bundle,
    maps: options.Maps,
    cache: Cache,
    out: options.Out,
    data: options.Data = None,
    series: Annotated[int, typer.Option(min=1, help="Series per training subject.")] = 5,
) -> None:
    """Fit the out-of-distribution (OOD) model.

    The model describes simulated series of the training subjects. Writes a new bundle.
    """
    from rebrain_node.model.bundle import load_bundle
    from trainer.ood.fit import fit
    from trainer.ood.series import in_distribution
    from trainer.release.bundle import release_ood

    verified = load_bundle(bundle)
    heads = [head for head in options.heads_of(data, "train") if head.whole_head_truth]
    wanted: dict[int, tuple[str, ...]] = dict.fromkeys(range(series), ())
    evaluated = in_distribution(_evaluated(verified, heads, maps, cache, wanted))
    encoder = verified.manifest.files.get("encoder.onnx")
    sha256 = None if encoder is None else encoder.sha256
    model = fit(evaluated, sha256, verified.recipe.grid.pixel_mm)
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

    verified = load_bundle(bundle)
    model = verified.ood_model
    if model is None:
        raise BundleError(f"{bundle} has no domain.json; make it with `rebrain-train fit-ood`")
    heads = options.heads_of(data, "validation", "demonstration")
    wanted = {k: CONDITIONS if k < series else () for k in range(_IN_DISTRIBUTION_SHARE * series)}
    evaluated = [*_evaluated(verified, heads, maps, cache, wanted)]
    embedded = _embedding(verified)
    real = report.real_series(_evaluator(verified), options.data_of(data))
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


def _evaluator(bundle: "ModelBundle") -> "SeriesEvaluator":
    from rebrain_node.limits_file import shipped_limits
    from trainer.ood.series import SeriesEvaluator

    return SeriesEvaluator(limits=shipped_limits(), recipe=bundle.recipe)


def _embedding(bundle: "ModelBundle") -> "Callable[[EvaluatedSeries], EvaluatedSeries]":
    """Return the function that adds embeddings; without an encoder it changes nothing."""
    if not bundle.holds("encoder.onnx"):
        return lambda series: series
    from rebrain_node.engine.open import encoder_of_graph

    encoder = encoder_of_graph(bundle.read("encoder.onnx"), threads=1)
    return lambda series: series.embedded(encoder)


def _evaluated(
    bundle: "ModelBundle",
    heads: "Sequence[Head]",
    maps: Path,
    cache: Path,
    conditions: dict[int, tuple[str, ...]],
) -> "Iterator[EvaluatedSeries]":
    """Yield one series in distribution and the conditions, for each subject and number."""
    from trainer.ood.series import IN_DISTRIBUTION, cached_series

    evaluator, embedded = _evaluator(bundle), _embedding(bundle)
    wanted = {number: (IN_DISTRIBUTION, *more) for number, more in conditions.items()}
    total = len(heads) * sum(map(len, wanted.values()))
    with options.bar_of("series", total) as (bar, task):
        for head in heads:
            tissues = partial(options.tissues_of, maps, head)
            for series in cached_series(evaluator, tissues, head.name, wanted, _SEED, cache):
                yield embedded(series)
                bar.advance(task)
