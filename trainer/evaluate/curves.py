"""Image error against iterations, read from the CSV that an experiment leaves."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trainer.evaluate.vocabulary import metric

_RUN: Final = ("data", "objective", "seed")  # the columns that tell runs apart


@dataclass(frozen=True)
class Curve:
    """What one run scored at which step; `figures` by metric, as long as `steps`."""

    steps: tuple[int, ...]
    figures: Mapping[str, tuple[float, ...]]


def read_curves(path: Path) -> dict[str, Curve]:
    """Read the runs of a CSV, e.g. of `curves.csv` of `rebrain-train objectives`.

    The columns are `step`, any of `data`, `objective` and `seed`, and columns named like metrics;
    other columns, as losses, are ignored. A step that was not scored is passed over.

    Raises
    ------
    ValueError
        There is no column `step`, or no column of a metric, or a value is no number.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        columns = reader.fieldnames or ()
        names = [name for name in columns if metric(name).meaning]
        if "step" not in columns or not names:
            raise ValueError(
                f"{path} has the columns {', '.join(columns) or 'none'}; needed are step and at "
                "least one metric, e.g. psnr"
            )
        runs: dict[str, list[dict[str, str]]] = {}
        for row in reader:
            if all(row[name] for name in names):
                runs.setdefault(_name(row, path), []).append(row)
    try:
        return {run: _curve(rows, names) for run, rows in runs.items()}
    except ValueError as wrong:
        raise ValueError(f"{path}: {wrong}") from wrong


def _name(row: Mapping[str, str], path: Path) -> str:
    told = [f"seed {row[key]}" if key == "seed" else row[key] for key in _RUN if row.get(key)]
    return ", ".join(told) or path.stem


def _curve(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> Curve:
    return Curve(
        tuple(int(row["step"]) for row in rows),
        {name: tuple(float(row[name]) for row in rows) for name in names},
    )
