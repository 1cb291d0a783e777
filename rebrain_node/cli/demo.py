"""`demo`: the whole node on one machine, in a minute."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rebrain_node.cli.terminal import AsJson, console, print_json, print_table, progress

if TYPE_CHECKING:
    from rebrain_node.demonstration.show import DemonstrationResult, Row


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

    Starts a node and a small PACS on loopback, sends the head CT and receives the synthetic series.
    Judges eleven more studies without synthesising them: some are taken, one of them with a part of
    the head missing and a flag that says so; the others are refused. Exit code 1 if a result is not
    as expected.
    """
    from rebrain_node.demonstration.show import show

    with progress() as display:
        task = display.add_task("starting", total=None)
        result = show(out, study, lambda what: display.update(task, description=what))
    if as_json:
        print_json(_answer(result))
    else:
        _print(result)
    if not result.as_expected:
        raise typer.Exit(1)


def _answer(result: DemonstrationResult) -> dict[str, object]:
    return {
        "rows": [asdict(row) for row in result.rows],
        "as_expected": result.as_expected,
        "objects": [str(path) for path in result.objects],
        "picture": None if result.picture is None else str(result.picture),
        "audit_report": str(result.report),
        "score": None if result.score is None else asdict(result.score),
        "seconds": round(result.seconds, 1),
    }


def _came(row: Row) -> str:
    return row.got if row.as_expected else f"{row.got}, NOT AS EXPECTED ({row.expected})"


def _print(result: DemonstrationResult) -> None:
    rows = [
        (row.sent, row.expected.partition(":")[0].partition(",")[0], _came(row), row.why)
        for row in result.rows
    ]
    right = sum(row.as_expected for row in result.rows)
    made = sum(row.synthesised for row in result.rows)
    title = (
        f"Demonstration: {right} of {len(rows)} studies as expected. Synthesised: {made}; the "
        "others are judged only."
    )
    print_table(title, ("study", "right", "came", "why"), rows)
    terminal = console()
    if result.score is not None:
        score = result.score
        terminal.print(
            f"score against the head's true T1: SSIM {score.ssim:.3f}, PSNR {score.psnr_db:.1f} dB "
            f"(the CT itself: {score.ct_ssim:.3f}, {score.ct_psnr_db:.1f} dB); {score.note}"
        )
    terminal.print(f"picture       {result.picture or 'none: no result was made'}")
    terminal.print(f"audit report  {result.report}")
    terminal.print(f"{len(result.objects)} objects, {result.seconds:.0f} s; not for diagnosis")
