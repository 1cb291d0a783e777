"""`process`: derive the synthetic series of a study folder without a network."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rebrain_node.cli.terminal import AsJson, Config, console, print_json, print_table, progress

if TYPE_CHECKING:
    from rich.progress import TaskID

    from rebrain_node.app.tasks import FolderRun
    from rebrain_node.domain.job import Receipt
    from rebrain_node.folder import SeriesResult

_ALL_REFUSED = 3


def process(
    study: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="Folder with the DICOM instances of a study."
        ),
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the synthetic series.")],
    config: Config = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print why each series was accepted or refused.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Derive synthetic series of a study folder, without a network.

    Exit code 3 if every series was refused; the output gives the reason of each.
    """
    from rebrain_node.app.tasks import process_folder
    from rebrain_node.settings import load_settings

    settings = load_settings(config)
    with progress() as display:
        tasks: dict[str, TaskID] = {}

        def report_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = display.add_task(what)
            display.update(tasks[what], completed=done, total=max(done, total))

        run = process_folder(settings, study, out, report_progress)
    if as_json:
        print_json(_answer(run))
    else:
        _print(run)
    if explain:
        _explain(run, to_stderr=as_json)
    if not run.outputs:
        raise typer.Exit(_ALL_REFUSED)


def _answer(run: FolderRun) -> dict[str, object]:
    return {
        "series": [_series(result) for result in run.results],
        "refused_files": [vars(refused) for refused in run.folder.refused],
        "outputs": [str(path) for path in run.outputs],
        "manifests": [str(path) for path in run.manifests],
        "slices": [row for result in run.results for row in _slices(result)],
        "seconds": round(run.seconds, 2),
        "steps": {
            r.candidate.series_instance_uid: r.receipt.step_seconds
            for r in run.results
            if r.receipt
        },
        "engine": run.engine,
        "bundle_digest": run.bundle_digest,
        "peak_memory_bytes": _peak_memory_bytes(),
    }


def _series(result: SeriesResult) -> dict[str, Any]:
    candidate = result.candidate
    return {
        "series_instance_uid": candidate.series_instance_uid,
        "description": candidate.series_description,
        "instances": candidate.instances,
        "decision": result.decision,
        "codes": list(dict.fromkeys(finding.code for finding in result.findings)),
        "sentence": result.sentence,
        "explanation": list(candidate.explanation),
        "ood": None if result.ood is None else result.ood.to_json(),
        "tissue_level": _tissue_level(result.receipt),
        "calibration": None if result.receipt is None else result.receipt.meaning.label,
    }


def _tissue_level(receipt: Receipt | None) -> dict[str, float | None] | None:
    if receipt is None or receipt.tissue is None:
        return None
    return receipt.tissue.to_json()


def _slices(result: SeriesResult) -> list[dict[str, object]]:
    if result.receipt is None:
        return []
    receipt = result.receipt
    return [
        {
            "position_mm": round(guide.target.distance_mm, 4),
            "kind": guide.kind,
            "alpha": guide.target.alpha,
            "reason": guide.reason,
            "similarity": guide.similarity,
            "tau": guide.tau,
            "exemplar": guide.exemplar,
            "position_difference_mm": guide.position_difference_mm,
            "registration": None if guide.registration is None else guide.registration.to_json(),
            "uncertainty": round(uncertainty, 6),
            "trusted": receipt.meaning.trusts(uncertainty),
        }
        for guide, uncertainty in zip(receipt.guides, receipt.uncertainty, strict=True)
    ]


def _print(run: FolderRun) -> None:
    rows = [
        (s["description"], s["instances"], s["decision"], ", ".join(s["codes"]), s["sentence"])
        for s in map(_series, run.results)
    ]
    if rows:
        print_table("Series", ("series", "instances", "decision", "codes", "reason"), rows)
    if run.folder.refused:
        files = [(refused.path, refused.code, refused.sentence) for refused in run.folder.refused]
        print_table("Files refused", ("file", "code", "reason"), files)
    if not run.results and not run.folder.refused:
        console(stderr=True).print("the folder contains no DICOM instance")
    if run.outputs:
        console().print(
            f"{len(run.outputs)} objects in {run.outputs[0].parent}, "
            f"{run.seconds:.1f} s, {run.engine}"
        )


def _explain(run: FolderRun, *, to_stderr: bool) -> None:
    rows: list[tuple[str, str, str]] = []
    for result in run.results:
        rows.append((result.candidate.series_description, result.decision, result.sentence))
        rows += [("", f"{f.severity} {f.code}", f.sentence) for f in result.findings]
        rows += [("", "observation", line) for line in result.candidate.explanation]
    print_table("Explanation", ("series", "decision", "reason"), rows, stderr=to_stderr)


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
