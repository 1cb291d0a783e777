"""docs/path-of-a-series.md has the steps of the pipeline, in its order."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from rebrain_node import pipeline

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/path-of-a-series.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \d+ \| ([a-z, ]+) \| (.+?) \|", PAGE, flags=re.MULTILINE)


def _steps_of(function) -> list[str]:
    """Return the names of the steps that a function of the pipeline runs, in order."""
    return re.findall(r"\bstep\((?:ports\.inbox\.)?(\w+),", inspect.getsource(function))


def _steps_of_the_pipeline() -> list[str]:
    """Return every step of `process`, the sub-paths `guide` and `quantify` at their places."""
    steps = []
    calls = r"\b(step)\(\s*(?:ports\.inbox\.)?(\w+),|\b(guide|quantify)\(step,"
    for _, step, part in re.findall(calls, inspect.getsource(pipeline.process)):
        steps += _steps_of(getattr(pipeline, part)) if part else [step]
    return steps


def test_the_page_has_the_steps_of_the_pipeline_in_its_order():
    documented = [step for names, _ in ROWS for step in names.split(", ")]
    first, last = documented.index("read"), documented.index("gate")
    assert documented[first : last + 1] == _steps_of_the_pipeline()
    assert documented[first - 1] == "select"
    assert "return select(" in inspect.getsource(pipeline.judge_study)


@pytest.mark.parametrize("room", re.findall(r"`([a-z_/]+)`", "".join(rooms for _, rooms in ROWS)))
def test_every_room_of_the_page_exists(room):
    path = ROOT / "rebrain_node" / room
    assert path.is_dir() or path.with_suffix(".py").is_file()
