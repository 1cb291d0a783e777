"""`benchmark`: the node beside Orthanc, dcmtk and other libraries on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rebrain_node.benchmark.row import BenchmarkTask
from rebrain_node.cli.terminal import AsJson, Config, print_json, print_table, progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rebrain_node.benchmark.row import BenchmarkRow


def benchmark(
    tasks: Annotated[
        list[BenchmarkTask] | None, typer.Argument(help="What to measure; default: everything.")
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="Study to process instead of the demonstration's."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of which the median is taken.")] = 3,
    save: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Also write the JSON into this file.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Measure the node beside other programs on this machine.

    Peers are Orthanc, dcmtk, torch and ONNX Runtime; one that is not installed is listed as
    skipped. Compare ratios, not times: machines are shared. Nothing of the node's own state is
    read or changed. Takes some minutes.
    """
    from rebrain_node.benchmark.run import run_benchmark
    from rebrain_node.settings import load_settings

    with progress() as display:
        task = display.add_task("starting", total=None)
        run = run_benchmark(
            load_settings(config),
            study,
            tasks or tuple(BenchmarkTask),
            repeats,
            lambda what: display.update(task, description=what),
        )
    answer = run.to_json()
    if save is not None:
        save.write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")
    if as_json:
        print_json(answer)
        return
    print_table(_title(run.machine), _COLUMNS, [_cells(row) for row in run.rows])


_COLUMNS = ("ratio", "wanted", "what", "node", "peer", "of the peer", "remark")


def _title(machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load_before']} to "
        f"{machine['load_after']}, {' '.join(machine['instructions'])}"
    )


def _cells(row: BenchmarkRow) -> tuple[str, ...]:
    sign = ">=" if row.better == "larger" else "<="
    remark = f"skipped: {row.skipped}" if row.skipped else ""
    if row.reached is False:
        remark = "not reached"
    return (
        "" if row.ratio is None else f"{row.ratio:.2f}",
        "" if row.wanted is None else f"{sign} {row.wanted:g}",
        row.what,
        f"{row.ours:.4g} {row.unit}",
        row.peer,
        "" if row.theirs is None else f"{row.theirs:.4g} {row.unit}",
        remark,
    )
