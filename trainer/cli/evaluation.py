"""Scores of a run before its release, and reports on a bundle."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from trainer.cli import options

if TYPE_CHECKING:
    from rebrain_node.model.card import Score
    from trainer.evaluate.run import Progress

_SCORES = "evaluation.json"
_REPORTS = (_SCORES, "ablation.json", "retrieval.json", "acceptance.json")
_SHOWN = ("psnr", "ssim", "nrmse", "i_ssim_gap", "slice_id_exact", "slice_id_within_one",
         "brain_correlation", "lncc")  # fmt: skip
#: as the slice-position check of the node at slices 5 mm apart: 1.5 times the gap
_WINDOW_MM = 7.5

ReportFolder = Annotated[Path, typer.Option(help="Folder of the report; replaces an older one.")]
Seed = Annotated[int, typer.Option(help="Random seed of sampled noise and bootstrap.")]


def score(
    config: options.Config,
    pool: options.Samples,
    run: options.Run,
    data: options.Data = None,
    every: Annotated[
        int, typer.Option(min=1, help="Score every n-th sample of the held-out subjects.")
    ] = 3,
    as_json: options.AsJson = False,
) -> None:
    """Score a training run, as `release` requires.

    Scores held-out simulated samples and the real CT/T1 pairs of the data folder. Writes
    RUN/scores.json.
    """
    from trainer import stages
    from trainer.config import TrainConfig

    with _progress("predictions") as progress:
        folders = stages.Folders(pool, run, options.data_of(data))
        scores = stages.score_run(TrainConfig.load(config), folders, every, progress)
    stages.write_scores(run, scores)
    if as_json:
        typer.echo(json.dumps([entry.model_dump() for entry in scores]))
        return
    for test in dict.fromkeys(entry.test for entry in scores):
        Console().print(_score_table(test, [entry for entry in scores if entry.test == test]))


def _score_table(test: str, scores: "list[Score]") -> Table:
    names = list(dict.fromkeys(name for entry in scores for name in entry.figures))
    table = Table("method", *names, title=test)
    for entry in scores:
        table.add_row(
            entry.method, *(f"{entry.figures.get(name, float('nan')):.3f}" for name in names)
        )
    return table


def evaluate(  # noqa: PLR0913 - one option each
    bundle: Annotated[str, typer.Option(help="Folder of a bundle or training run, or demo.")],
    data: Annotated[Path, typer.Option(help="Prepared data set, or .npz archive of 2-D pairs.")],
    out: ReportFolder,
    protocol: Annotated[
        str,
        typer.Option(
            help="Slices that are given: none (all), decimate:K (every K-th) or thick:K (means of "
            "K slices); K = 2, 3, 4, 8."
        ),
    ] = "none",
    predictions: Annotated[
        list[str] | None, typer.Option(help="NAME=DIR: volumes of another method; repeatable.")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH: another bundle or run; repeatable.")
    ] = None,
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="Role of the subjects to score.")
    ] = "test",
    mode: Annotated[
        Literal["standard", "ct2mri"],
        typer.Option(help="Definitions of NRMSE, PSNR, SSIM and MAE: ours, or of CT2MRI code."),
    ] = "standard",
    other_report: Annotated[
        list[Path] | None,
        typer.Option(help="Report by another protocol, for a common table; repeatable."),
    ] = None,
    curves: Annotated[
        Path | None, typer.Option(help="curves.csv of `compare-objectives`, for a figure.")
    ] = None,
    registered: Annotated[
        bool,
        typer.Option("--registered", help="Move the T1 of 2-D pairs onto their CT before scoring."),
    ] = False,
    write_predictions: Annotated[
        Path | None,
        typer.Option(help="Folder for the volumes of the networks: METHOD/SUBJECT.npz."),
    ] = None,
    seed: Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Compare image quality with baselines.

    Synthesises the volumes of the subjects, compares them with the real MR, and does the same for
    simple baselines. Writes a report as HTML, Markdown and JSON to OUT.
    """
    from trainer.data.protocols import Sparsity
    from trainer.evaluate import run
    from trainer.evaluate.plots import read_curves
    from trainer.evaluate.report import Supplement
    from trainer.evaluate.report_files import json_text, replaced, write_report

    check_out(out)
    supplement = Supplement(
        documents=[json.loads((folder / _SCORES).read_bytes()) for folder in other_report or []],
        curves=read_curves(curves) if curves else {},
    )
    request = run.Request(
        bundle=bundle,
        data=data,
        sparsity=Sparsity.parse(protocol),
        split=split,
        mode=mode,
        predictions={name: Path(folder) for name, folder in named(predictions, "DIR").items()},
        networks=named(network, "PATH"),
        registered=registered,
        written=write_predictions,
        seed=seed,
    )
    with _progress("positions") as progress:
        evaluation = run.evaluate(request, progress)
    replaced(out, lambda part: write_report(evaluation, part, supplement))
    if as_json:
        typer.echo(json_text(evaluation.document), nl=False)
        return
    table = Table("method", *_SHOWN, title=f"{data.name}, {protocol}, mean over subjects")
    for name, metrics in evaluation.document["methods"].items():
        means = [f"{metrics[key]['mean']:.3f}" if key in metrics else "" for key in _SHOWN]
        table.add_row(name, *means)
    Console().print(table)


def acceptance(
    bundle: Annotated[str, typer.Argument(help="Folder of the bundle to judge, or demo.")],
    out: ReportFolder,
    against: Annotated[
        str | None,
        typer.Option(
            help="Earlier bundle (folder, or demo), or the acceptance.json of its own run. "
            "Times are comparable within one run only."
        ),
    ] = None,
    data: options.Data = None,
    maps: Annotated[
        Path | None,
        typer.Option(
            help="Tissue maps of the data's heads (`tissue-maps`): also measures the "
            "held-out heads, half a minute each: volumes in the synthetic T1, coverage."
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Judge a bundle by the figures that it must reach.

    Synthesises the demonstration head, the same head with planted disease and, where the shared
    data are at hand, a hospital study and the real pairs. Prints target, earlier bundle and new
    bundle side by side and writes acceptance.json, acceptance.md and pictures of the whole volumes
    to OUT. Takes about seven minutes of one core for a bundle. The exit code is 0 whatever the
    figures are.
    """
    from trainer.evaluate import acceptance as judged
    from trainer.evaluate.networks import bundle_at
    from trainer.evaluate.report_files import json_text, replaced

    check_out(out)
    folder = _data_or_none(data)
    pictures = judged.CaseMontage()

    def measured(where: str) -> "judged.BundleScore":
        loaded = bundle_at(where)
        label = f"{loaded.name} {loaded.version}"
        with options.bar_of(label, 1) as (bar, task):
            return judged.measure(
                loaded,
                folder,
                maps,
                lambda case: bar.console.print(f"{label}: {case} done"),
                lambda: bar.advance(task, 0),
                pictures,
            )

    old = None
    if against is not None:
        earlier = Path(against)
        old = judged.read_figures(earlier) if earlier.suffix == ".json" else measured(against)
    found = judged.document(measured(bundle), old)
    text = json_text(found)

    def write(part: Path) -> None:
        (part / judged.ACCEPTANCE).write_text(text, encoding="utf-8")
        (part / "acceptance.md").write_text(judged.markdown(found), encoding="utf-8")
        for name, picture in pictures.png().items():
            (part / name).write_bytes(picture)

    replaced(out, write)
    typer.echo(text if as_json else judged.markdown(found), nl=False)


def _data_or_none(data: Path | None) -> Path | None:
    """Return the folder of shared data, or None where there is none."""
    try:
        return options.data_of(data)
    except FileNotFoundError:
        return None


def register_pairs(
    archive: Annotated[Path, typer.Argument(metavar="PAIRS.npz", help="Archive of 2-D pairs.")],
    out: Annotated[Path, typer.Option(help="JSON file of the transforms.")],
) -> None:
    """Register the T1 slices of pairs to their CT.

    Uses the CT and the real T1 alone. Writes one transform for each pair, the SHA-256 of the
    archive and a digest; no image. About four seconds of one core for a pair.
    """
    from trainer.data.archive import registration_of_archive
    from trainer.data.pair_registration import IDENTITY

    with options.bar_of("pairs", 1) as (bar, task):
        found = registration_of_archive(archive, lambda: bar.advance(task, 0))
    out.write_text(found.to_json(), encoding="utf-8")
    left = sum(each == IDENTITY for each in found.transforms.values())
    typer.echo(f"{out}: {len(found.transforms)} pairs, {left} left as they were")


def guidance_report(  # noqa: PLR0913 - one option each
    bundle: options.NetworkBundle,
    data: Annotated[Path, typer.Option(help="Prepared data set of CT volumes in HU.")],
    out: ReportFolder,
    positions: Annotated[
        int | None, typer.Option(min=1, help="Positions per subject and gap; default: all.")
    ] = None,
    brief: Annotated[
        bool, typer.Option("--brief", help="Without smaller knowledge bases and lesions.")
    ] = False,
    seed: Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Measure what guidance by exemplars adds.

    Compares slices synthesised with and without exemplars at missing positions of held-out CT
    volumes (one slice of 2, 4 and 8 is given), inside the brain and in the whole head, by
    similarity threshold and size of the knowledge base. Also measures whether simulated lesions of
    an exemplar appear in the result, and whether lesions of the subject disappear.
    """
    from trainer.data.dataset import PreparedData
    from trainer.evaluate.ablation import AblationRequest, ablate
    from trainer.evaluate.networks import bundle_at
    from trainer.evaluate.report_files import json_text, replaced, write_report_files
    from trainer.evaluate.retrieval_reports import ablation_report

    check_out(out)
    request = AblationRequest(
        bundle_at(bundle),
        PreparedData.open(data),
        data.resolve().name,
        seed,
        most=positions,
        thorough=not brief,
    )
    with _progress("positions") as progress:
        document = ablate(request, progress)
    report = ablation_report(document)
    replaced(out, lambda part: write_report_files(report, document, part, "ablation"))
    typer.echo(document["verdict"], err=True)
    if as_json:
        typer.echo(json_text(document), nl=False)


def retrieval_report(
    bundle: options.NetworkBundle,
    data: Annotated[Path, typer.Option(help="Folder of simulated stacks of slices (RUN/stacks).")],
    out: ReportFolder,
    network: Annotated[
        list[str] | None, typer.Option(help="NAME=RUN: another encoder; repeatable.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure how well the encoder finds the same anatomy.

    Thick-slice series of the held-out subjects query the slices of all training subjects. The
    encoder of the bundle is compared with an untrained one.
    """
    from trainer.evaluate.networks import bundle_at
    from trainer.evaluate.report_files import json_text, replaced, write_report_files
    from trainer.evaluate.retrieval_reports import UNTRAINED, compared, encoder_of, retrieval_report
    from trainer.release.card import OURS
    from trainer.simulate.stacks import Stacks
    from trainer.train.encoder import trained, untrained

    check_out(out)
    verified = bundle_at(bundle)
    networks = {OURS: encoder_of(verified), UNTRAINED: untrained()}
    networks |= {name: trained(Path(run)) for name, run in named(network, "RUN").items()}
    base = Stacks.open(data, "train")
    queries = Stacks.open(data, "validation", "demonstration").thick()
    document = compared(verified, networks, base, queries, _WINDOW_MM)
    report = retrieval_report(document)
    replaced(out, lambda part: write_report_files(report, document, part, "retrieval"))
    for name, figures in document["encoders"].items():
        typer.echo(f"{name}: median position error {figures['median_mm']:.1f} mm", err=True)
    if as_json:
        typer.echo(json_text(document), nl=False)


def check_out(out: Path) -> None:
    """Refuse to replace anything but a report."""
    if not out.exists():
        return
    is_report = out.is_dir() and any((out / name).is_file() for name in _REPORTS)
    if not (is_report or (out.is_dir() and not any(out.iterdir()))):
        raise typer.BadParameter(f"{out} holds something that is not a report; give another --out")


def named(given: list[str] | None, what: str) -> dict[str, str]:
    """Read options of the form NAME=VALUE; `what` says in a refusal what the value is."""
    values: dict[str, str] = {}
    for item in given or []:
        name, equals, value = item.partition("=")
        if not (name and equals and value) or name in values:
            raise typer.BadParameter(f"{item!r}: expected NAME={what}, each name once")
        values[name] = value
    return values


@contextmanager
def _progress(label: str) -> "Iterator[Progress]":
    from trainer.evaluate.run import Progress

    with options.bar_of(label, 1) as (bar, task):
        yield Progress(lambda total: bar.update(task, total=total), lambda: bar.advance(task))
