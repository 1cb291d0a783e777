"""The benchmark says what was measured, beside whom, and what was skipped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rebrain_node.benchmark import dcmtk
from rebrain_node.benchmark.reception import measure_reception
from rebrain_node.benchmark.retrieval import measure_retrieval
from rebrain_node.benchmark.row import BenchmarkRow
from rebrain_node.cli import program


def row(**changes) -> BenchmarkRow:
    values = {"what": "w", "unit": "s", "ours": 3.0, "peer": "p", "theirs": 2.0, "wanted": 1.5}
    return BenchmarkRow(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "reached"),
    [
        ({}, True),
        ({"ours": 3.1}, False),
        ({"better": "larger"}, True),
        ({"better": "larger", "ours": 2.9}, False),
        ({"wanted": None}, None),
        ({"theirs": None, "skipped": "not installed"}, None),
    ],
)
def test_a_ratio_is_held_against_what_is_wanted(changes, reached):
    assert row(**changes).reached is reached


def test_a_machine_without_dcmtk_has_its_reception_listed_as_skipped(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = measure_reception(tmp_path, 1, 1, print)
    assert found.ratio is None
    assert "dcmtk is not installed" in found.skipped


def test_programs_of_dcmtk_are_not_confused_with_those_of_pynetdicom(tmp_path, monkeypatch):
    versions = {"environment": "storescu.py v0.4.0", "system": "$dcmtk: storescu v3.6.7 $"}
    for folder, version in versions.items():
        file = tmp_path / folder / "storescu"
        file.parent.mkdir()
        file.write_text(f"#!/bin/sh\necho '{version}'\n", encoding="utf-8")
        file.chmod(0o755)
    folders = [str(tmp_path / folder) for folder in versions]
    monkeypatch.setenv("PATH", os.pathsep.join(folders))
    assert dcmtk.program("storescu") == str(tmp_path / "system" / "storescu")


def test_the_exact_search_is_measured_beside_one_pass_through_the_rows():
    (found,) = measure_retrieval(print, rows=2000, dimension=16, repeats=1)
    assert found.ratio is not None
    assert found.ratio > 0
    assert found.wanted == 1.1


def test_the_command_keeps_its_answer_with_the_machine_and_its_load(tmp_path: Path):
    kept = tmp_path / "entry.json"
    words = ["benchmark", "help", "--repeats", "1", "--json", "--save", str(kept)]
    result = CliRunner().invoke(program, words)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer == json.loads(kept.read_text(encoding="utf-8"))
    assert {"processor", "cores", "instructions", "load_before", "version"} <= set(
        answer["machine"]
    )
    assert [each["what"] for each in answer["rows"]] == ["rebrain-node --help"]
