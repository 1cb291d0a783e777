"""`rebrain-train evaluate`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from trainer.cli.options import AsJson, bar_of
from trainer.cli.report_folder import SCORES, check_out, replaced

SHOWN = ("psnr", "ssim", "nrmse", "i_ssim_gap", "slice_id_exact", "slice_id_within_one",
         "brain_correlation", "lncc")  # fmt: skip


def evaluate(  # noqa: PLR0913 -- each is an option of the command
    bundle: Annotated[str, typer.Option(help="demo, the folder of a bundle, or of a run.")],
    data: Annotated[
        Path,
        typer.Option(help="Prepared data set, or .npz of 2-D pairs; stacks for retrieval."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the report; a report there is replaced.")],
    report: Annotated[
        Literal["scores", "ablation", "retrieval"],
        typer.Option(
            help="Scores by one protocol, ablation of guidance, or retrieval of exemplars."
        ),
    ] = "scores",
    protocol: Annotated[str, typer.Option(help="none, decimate:K or thick:K; K = 2, 3, 4.")] = (
        "none"
    ),
    predictions: Annotated[
        list[str] | None, typer.Option(help="NAME=DIR: volumes of another method.")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH: another bundle or a training run.")
    ] = None,
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="Subjects that are scored.")
    ] = "test",
    mode: Annotated[
        Literal["standard", "ct2mri"],
        typer.Option(help="Definitions of NRMSE, PSNR, SSIM and MAE."),
    ] = "standard",
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Report of the same subjects by another protocol; for one table of all."),
    ] = None,
    curves: Annotated[
        Path | None, typer.Option(help="curves.csv of `objectives`; drawn into the report.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise and of the bootstrap.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Score a bundle beside every baseline, by one protocol.

    Writes a report to OUT.

    With --report ablation: what guidance adds at missing positions, decimate:2 and decimate:4.
    With --report retrieval: how well the encoder finds the same anatomy; --network names the runs
    of other encoders.
    """
    from trainer.cli import guidance_reports
    from trainer.data.protocols import Sparsity
    from trainer.evaluate import run
    from trainer.evaluate.plots import read_curves
    from trainer.evaluate.report import Supplement
    from trainer.evaluate.report_files import json_text, write_report
    from trainer.evaluate.run import Progress

    check_out(out)
    if report != "scores":
        foreign = {
            "--protocol": protocol != "none",
            "--mode": mode != "standard",
            "--predictions": predictions,
            "--beside": beside,
            "--curves": curves,
        }
        if any(foreign.values()):
            named = ", ".join(name for name, given in foreign.items() if given)
            raise typer.BadParameter(f"{named}: not an option of --report {report}")
        if report == "ablation":
            document = guidance_reports.ablation(bundle, data, out, seed)
        else:
            document = guidance_reports.retrieval(bundle, data, out, _named(network, "RUN"))
        if as_json:
            typer.echo(json_text(document), nl=False)
        return
    supplement = Supplement(
        documents=[json.loads((folder / SCORES).read_bytes()) for folder in beside or []],
        curves=read_curves(curves) if curves else {},
    )
    request = run.Request(
        bundle=bundle,
        data=data,
        sparsity=Sparsity.parse(protocol),
        split=split,
        mode=mode,
        predictions={name: Path(folder) for name, folder in _named(predictions, "DIR").items()},
        networks=_named(network, "PATH"),
        seed=seed,
    )
    with bar_of("positions", 1) as (bar, task):
        evaluation = run.evaluate(
            request,
            Progress(lambda total: bar.update(task, total=total), lambda: bar.advance(task)),
        )
    replaced(out, lambda part: write_report(evaluation, part, supplement))
    if as_json:
        typer.echo(json_text(evaluation.document), nl=False)
        return
    table = Table("method", *SHOWN, title=f"{data.name}, {protocol}, mean over subjects")
    for name, found in evaluation.document["methods"].items():
        means = [f"{found[key]['mean']:.3f}" if key in found else "" for key in SHOWN]
        table.add_row(name, *means)
    Console().print(table)


def _named(given: list[str] | None, what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in given or []:
        name, equals, value = item.partition("=")
        if not (name and equals and value) or name in found:
            raise typer.BadParameter(f"{item!r}: expected NAME={what}, each name once")
        found[name] = value
    return found
