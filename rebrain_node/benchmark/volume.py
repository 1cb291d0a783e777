"""One study by the command `process`, beside the limits of the product."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rebrain_node.benchmark.row import BenchmarkRow, Progress, Rows
from rebrain_node.demonstration.study import simulate_study
from rebrain_node.errors import RebrainError

_PROGRAM: Final = (sys.executable, "-P", "-m", "rebrain_node.cli")
VOLUME_S: Final = 120.0  #: of a volume of at most 200 slices, uncertainty included
MEMORY_MB: Final = 700.0  #: peak of the process
AROUND_S: Final = 3.0  #: to write and to check the objects
HELP_S: Final = 0.4


def measure_help(repeats: int, progress: Progress) -> Rows:
    """Measure how long the command line takes to answer `--help`."""
    progress("--help")
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        _run("--help")
        seconds.append(time.perf_counter() - begun)
    return [_against("rebrain-node --help", "s", statistics.median(seconds), HELP_S)]


def measure_volume(folder: Path, study: Path | None, repeats: int, progress: Progress) -> Rows:
    """Process a study, by default the one of the demonstration.

    Parameters
    ----------
    folder : Path
        Empty; study and results are put there.

    Raises
    ------
    RebrainError
        No series of the study was taken.
    """
    if study is None:
        study = folder / "study"
        study.mkdir()
        for number, instance in enumerate(simulate_study().instances):
            instance.save_as(study / f"{number:04d}.dcm", enforce_file_format=True)
    answers = []
    for turn in range(repeats):
        progress("one volume")
        out = folder / f"out-{turn}"
        answers.append(json.loads(_run("process", str(study), "--out", str(out), "--json")))
    slices = len(answers[0]["slices"])
    whole = statistics.median(answer["seconds"] for answer in answers)
    around = statistics.median(_around(answer) for answer in answers)
    peak = statistics.median(answer["peak_memory_bytes"] / 1e6 for answer in answers)
    return [
        _against(f"one volume, {slices} slices", "s", whole, VOLUME_S),
        _against("its objects written and checked", "s", around, AROUND_S),
        _against("its peak memory", "MB", peak, MEMORY_MB),
    ]


def _around(answer: Mapping[str, Any]) -> float:
    """Return the seconds to write and to check the objects of all series."""
    return sum(float(each["write"]) + float(each["gate"]) for each in answer["steps"].values())


def _run(*words: str) -> str:
    run = subprocess.run((*_PROGRAM, *words), capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    if run.returncode:
        lines = run.stderr.strip().splitlines() or ["it printed nothing"]
        raise RebrainError(f"rebrain-node {words[0]} ended with {run.returncode}: {lines[-1]}")
    return run.stdout


def _against(what: str, unit: str, ours: float, limit: float) -> BenchmarkRow:
    return BenchmarkRow(what=what, unit=unit, ours=ours, peer="limit", theirs=limit, wanted=1.0)
