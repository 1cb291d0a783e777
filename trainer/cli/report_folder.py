"""The folder of a report: nothing but a report is ever replaced, and never half of one is there."""

import shutil
from collections.abc import Callable
from pathlib import Path

import typer

SCORES = "evaluation.json"
REPORTS = (SCORES, "ablation.json", "retrieval.json")


def check_out(out: Path) -> None:
    """Refuse to replace anything but a report.

    Raises
    ------
    typer.BadParameter
        `out` holds other things.
    """
    if not out.exists():
        return
    written = out.is_dir() and any((out / name).is_file() for name in REPORTS)
    if not (written or (out.is_dir() and not any(out.iterdir()))):
        raise typer.BadParameter(f"{out} holds something that is not a report; give another --out")


def replaced(out: Path, write_into: Callable[[Path], None]) -> None:
    """Write a folder beside its place, then put it there: never half of one."""
    part, old = out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.old")
    for left in (part, old):
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        write_into(part)
    except BaseException:
        shutil.rmtree(part)
        raise
    if out.exists():
        out.rename(old)
    part.rename(out)
    shutil.rmtree(old, ignore_errors=True)
