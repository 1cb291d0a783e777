"""`evaluate --report ablation` and `evaluate --report retrieval`."""

from collections.abc import Mapping
from pathlib import Path

import typer

from trainer.cli.options import bar_of
from trainer.cli.report_folder import replaced


def ablation(bundle: str, data: Path, out: Path, seed: int) -> Mapping[str, object]:
    """Draw the missing positions of held-out subjects in every way; write the report to `out`."""
    from trainer.data.dataset import PreparedData
    from trainer.evaluate.ablation import AblationRequest, ablate
    from trainer.evaluate.networks import bundle_at
    from trainer.evaluate.report_files import write_report_files
    from trainer.evaluate.retrieval_reports import ablation_report
    from trainer.evaluate.run import Progress

    request = AblationRequest(bundle_at(bundle), PreparedData.open(data), data.resolve().name, seed)
    with bar_of("positions", 1) as (bar, task):
        progress = Progress(lambda total: bar.update(task, total=total), lambda: bar.advance(task))
        found = ablate(request, progress)
    report = ablation_report(found)
    replaced(out, lambda part: write_report_files(report, found, part, "ablation"))
    typer.echo(found["verdict"], err=True)
    return found


def retrieval(bundle: str, stacks: Path, out: Path, runs: dict[str, str]) -> Mapping[str, object]:
    """Compare encoders on folders of stacks; write the report to `out`.

    Queries are the thick series of the held-out heads, the base holds all training heads. An
    encoder without training stands beside them.
    """
    from trainer.evaluate.networks import bundle_at
    from trainer.evaluate.report_files import write_report_files
    from trainer.evaluate.results import OURS
    from trainer.evaluate.retrieval_reports import UNTRAINED, compared, encoder_of, retrieval_report
    from trainer.simulate.stacks import Stacks
    from trainer.train.encoder import trained, untrained

    opened = bundle_at(bundle)
    networks = {OURS: encoder_of(opened), UNTRAINED: untrained()}
    networks |= {name: trained(Path(run)) for name, run in runs.items()}
    base = Stacks.open(stacks, "train")
    queries = Stacks.open(stacks, "validation", "demonstration").thick()
    found = compared(opened, networks, base, queries, WINDOW_MM)
    report = retrieval_report(found)
    replaced(out, lambda part: write_report_files(report, found, part, "retrieval"))
    for name, figures in found["encoders"].items():
        typer.echo(f"{name}: median position error {figures['median_mm']:.1f} mm", err=True)
    return found


#: 1.5 times a gap of 5 mm, as the node's slice-position check has it
WINDOW_MM = 7.5
