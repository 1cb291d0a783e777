"""The out-of-domain score of a bundle: fitting it, and measuring what is caught."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.options import AsJson, Data, Maps, bar_of, data_of

if TYPE_CHECKING:
    from rebrain_node.model.bundle import ModelBundle
    from trainer.heads import Head
    from trainer.ood.series import EvaluatedSeries, SeriesEvaluator
    from trainer.simulate.hounsfield import Tissues

Bundle = Annotated[Path, typer.Argument(help="Folder of a bundle.")]
Kept = Annotated[Path, typer.Option(help="Where drawn series are kept; missing ones are drawn.")]
#: of everything drawn; series that are kept from another seed would not be these
_SEED = 0
#: series in domain are drawn so many times as often as each condition
_IN_DOMAIN_DRAWS = 2


def domain(
    bundle: Bundle,
    maps: Maps,
    kept: Kept,
    out: Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")],
    data: Data = None,
    draws: Annotated[int, typer.Option(min=1, help="Series of each training head.")] = 5,
) -> None:
    """Fit a bundle's domain and write it into a new bundle."""
    from rebrain_node.model.bundle import load_bundle
    from trainer.ood.fit import fit
    from trainer.ood.series import in_distribution
    from trainer.release.bundle import release_ood

    verified = load_bundle(bundle)
    heads = [head for head in _heads(data, "train") if head.whole_head_truth]
    series = in_distribution(_drawn(verified, heads, maps, kept, dict.fromkeys(range(draws), ())))
    known = fit(series, _encoder_sha256(verified), verified.recipe.grid.pixel_mm)
    made = release_ood(verified, known, out)
    typer.echo(
        f"{out}: {made.name} {made.version}, threshold {known.threshold:.3f} from {known.series} "
        f"series of {known.people} people, {made.digest}"
    )


def domain_report(
    bundle: Bundle,
    maps: Maps,
    kept: Kept,
    data: Data = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of each held-out head.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Measure what the rules and the score catch.

    On held-out heads and on real series.
    """
    from rebrain_node.errors import BundleError
    from rebrain_node.model.bundle import load_bundle
    from trainer.ood import report
    from trainer.ood.series import CONDITIONS

    verified = load_bundle(bundle)
    known = verified.ood_model
    if known is None:
        raise BundleError(f"{bundle} has no domain.json; make it with `rebrain-train domain`")
    heads = _heads(data, "validation", "demonstration")
    wanted = {k: CONDITIONS if k < draws else () for k in range(_IN_DOMAIN_DRAWS * draws)}
    seen = [*_drawn(verified, heads, maps, kept, wanted)]
    encoded = _encoded(verified)
    seen += [encoded(one) for one in report.real_series(_way(verified), data_of(data))]
    table = report.rows([report.verdict(one, known) for one in seen])
    if as_json:
        names = [head.name for head in heads]
        told = {"bundle": verified.digest, "threshold": known.threshold, "people": names}
        typer.echo(json.dumps({**told, "rows": table}))
    else:
        typer.echo(report.markdown(table))


def _heads(data: Path | None, *roles: str) -> "list[Head]":
    from trainer.heads import catalogue

    return [head for head in catalogue(data_of(data)) if head.role in roles]


def _way(bundle: "ModelBundle") -> "SeriesEvaluator":
    from rebrain_node.limits_file import shipped_limits
    from trainer.ood.series import SeriesEvaluator

    return SeriesEvaluator(limits=shipped_limits(), recipe=bundle.recipe)


def _encoder_sha256(bundle: "ModelBundle") -> str | None:
    return bundle.manifest.files["encoder.onnx"].sha256 if bundle.holds("encoder.onnx") else None


def _encoded(bundle: "ModelBundle") -> "Callable[[EvaluatedSeries], EvaluatedSeries]":
    """Give what adds embeddings to a series, or leaves it where the bundle has no encoder."""
    if not bundle.holds("encoder.onnx"):
        return lambda seen: seen
    from rebrain_node.engine.open import encoder_of_graph

    encoder = encoder_of_graph(bundle.read("encoder.onnx"), threads=1)
    return lambda seen: seen.embedded(encoder)


def _drawn(
    bundle: "ModelBundle",
    heads: "Sequence[Head]",
    maps: Path,
    kept: Path,
    draws: dict[int, tuple[str, ...]],
) -> "Iterator[EvaluatedSeries]":
    """Give the series in domain of every draw of every head, and its conditions."""
    from trainer.ood.series import IN_DOMAIN, kept_series

    way, encoded = _way(bundle), _encoded(bundle)
    wanted = {draw: (IN_DOMAIN, *conditions) for draw, conditions in draws.items()}
    total = len(heads) * sum(map(len, wanted.values()))
    with bar_of("series", total) as (bar, task):
        for head in heads:
            tissues = _tissues(maps, head)
            for seen in kept_series(way, tissues, head.name, wanted, _SEED, kept):
                yield encoded(seen)
                bar.advance(task)


def _tissues(maps: Path, head: "Head") -> "Callable[[], Tissues]":
    def read() -> "Tissues":
        import numpy as np

        from trainer.simulate.hounsfield import tissues

        with np.load(maps / f"{head.name}.npz") as arrays:
            return tissues(dict(arrays))

    return read
