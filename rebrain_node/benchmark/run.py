"""All rows of the benchmark, and the machine on which they were measured."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rebrain_node import __version__
from rebrain_node.app.compose import read_bundle
from rebrain_node.benchmark.engines import measure_engines
from rebrain_node.benchmark.reception import measure_reception
from rebrain_node.benchmark.retrieval import measure_retrieval
from rebrain_node.benchmark.row import BenchmarkRow, BenchmarkTask, Progress, Rows
from rebrain_node.benchmark.volume import measure_help, measure_volume
from rebrain_node.settings import Settings

_SENT: Final = 100  #: instances of a study that is sent
#: instructions of the processor on which the time of a network depends, as Linux names them
_INSTRUCTIONS: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


@dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """What was measured, where and when."""

    machine: Mapping[str, Any]
    rows: tuple[BenchmarkRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the entry that docs/benchmarks keeps."""
        return {"machine": dict(self.machine), "rows": [row.to_json() for row in self.rows]}


def run_benchmark(
    settings: Settings,
    study: Path | None,
    tasks: Collection[BenchmarkTask],
    repeats: int,
    progress: Progress,
) -> BenchmarkRun:
    """Measure the tasks in turn, each beside its peers in the same run.

    Parameters
    ----------
    study : Path or None
        Folder with the study that is processed; None: the one of the demonstration.
    tasks : collection of BenchmarkTask
        What is measured.
    repeats : int
        Of which the median is taken.

    Raises
    ------
    RebrainError
        A part of the node does not run here.
    OSError
        A peer does not run here.
    """
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="rebrain-benchmark-") as name:
        folder, threads = Path(name), _threads(settings)
        receive, volume = (_new(folder, each) for each in ("receive", "volume"))
        measured: dict[BenchmarkTask, Callable[[], Rows]] = {
            BenchmarkTask.HELP: lambda: measure_help(repeats, progress),
            BenchmarkTask.ENGINE: lambda: measure_engines(
                read_bundle(settings).path, threads, repeats, progress
            ),
            BenchmarkTask.RETRIEVAL: lambda: measure_retrieval(progress, repeats=repeats),
            BenchmarkTask.RECEIVE: lambda: measure_reception(receive, _SENT, repeats, progress),
            BenchmarkTask.VOLUME: lambda: measure_volume(volume, study, repeats, progress),
        }
        rows = tuple(row for task in BenchmarkTask if task in tasks for row in measured[task]())
    return BenchmarkRun(machine=_machine(before), rows=rows)


def _new(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


def _threads(settings: Settings) -> int:
    return settings.model.threads or len(os.sched_getaffinity(0))


def _machine(load_before: float) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "version": __version__,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": [name for name in _INSTRUCTIONS if name in _cpu_info().get("flags", "")],
        "load_before": round(load_before, 1),
        "load_after": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


def _cpu_info() -> dict[str, str]:
    """Return the properties of the first processor; none outside Linux."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return {}
    first = file.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}
