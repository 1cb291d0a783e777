"""Image error against iterations, read from the CSV that a training run leaves."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.evaluate.vocabulary import metric


@dataclass(frozen=True)
class Curve:
    """What one run scored at which step; `figures` by metric, as long as `steps`."""

    steps: tuple[int, ...]
    figures: Mapping[str, tuple[float, ...]]


def read_curve(path: Path) -> Curve:
    """Read a CSV with a column `step` and columns named like metrics; other columns are ignored.

    A row without a value in every metric's column (a step that was not scored) is passed over.

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
        rows = [row for row in reader if all(row[name] for name in names)]
    try:
        return Curve(
            tuple(int(row["step"]) for row in rows),
            {name: tuple(float(row[name]) for row in rows) for name in names},
        )
    except ValueError as wrong:
        raise ValueError(f"{path}: {wrong}") from wrong
