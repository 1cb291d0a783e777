"""`demo`: the whole node on one machine, in a minute."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rebrain_node.cli.options import AsJson
from rebrain_node.cli.present import console, print_json, print_table, progress

if TYPE_CHECKING:
    from rebrain_node.demonstration.show import Shown


def demo(
    out: Annotated[
        Path,
        typer.Option(
            file_okay=False, help="Folder for the objects, a picture and the audit report."
        ),
    ],
    study: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Study to send instead of the shipped head CT."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the node once on this machine with a head CT.

    Starts a node and a small PACS on loopback, sends the head CT, receives the synthetic series,
    then sends four studies that must be refused. Exit code 1 if a result is not as expected.
    """
    from rebrain_node.demonstration.show import show

    with progress() as display:
        task = display.add_task("starting", total=None)
        shown = show(out, study, lambda what: display.update(task, description=what))
    if as_json:
        print_json(_answer(shown))
    else:
        _print(shown)
    if not shown.as_expected:
        raise typer.Exit(1)


def _answer(shown: Shown) -> dict[str, object]:
    return {
        "rows": [asdict(row) for row in shown.rows],
        "as_expected": shown.as_expected,
        "objects": [str(path) for path in shown.objects],
        "picture": None if shown.picture is None else str(shown.picture),
        "audit_report": str(shown.report),
        "score": None if shown.score is None else asdict(shown.score),
        "seconds": round(shown.seconds, 1),
    }


def _print(shown: Shown) -> None:
    marks = {True: "yes", False: "NO"}
    rows = [(row.sent, row.expected, row.got, marks[row.as_expected]) for row in shown.rows]
    print_table("Demonstration", ("sent", "expected", "got", "as expected"), rows)
    terminal = console()
    if shown.score is not None:
        score = shown.score
        terminal.print(
            f"score against the head's true T1: SSIM {score.ssim:.3f}, PSNR {score.psnr_db:.1f} dB "
            f"(the CT itself: {score.ct_ssim:.3f}, {score.ct_psnr_db:.1f} dB); {score.note}"
        )
    terminal.print(f"picture       {shown.picture or 'none: no result was made'}")
    terminal.print(f"audit report  {shown.report}")
    terminal.print(f"{len(shown.objects)} objects, {shown.seconds:.0f} s; not for diagnosis")
