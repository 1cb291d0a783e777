"""Heads known by their maps of anatomy become pairs of simulated CT and T1, in their roles."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.support.ball_head import ball_maps
from trainer.cli import program
from trainer.data import simulated
from trainer.data.dataset import DatasetError, PreparedData
from trainer.simulate.mni import MOST_STRETCH


def prepared(source: Path, out: Path, *more: str) -> Result:
    arguments = ["prepare", "maps", str(source), "--out", str(out), "--json", *more]
    return CliRunner().invoke(program, arguments)


def test_every_head_has_the_role_of_the_catalogue(tmp_path: Path) -> None:
    for name in ("colin27", "sub21", "sub01", "t1w_biolab", "sub02.part"):
        (tmp_path / f"{name}.npz").touch()

    found = {head.name: head for head in simulated.find(tmp_path)}

    roles = {name: head.role for name, head in found.items() if head.problem is None}
    assert roles == {"colin27": "test", "sub21": "test", "sub01": "train"}
    assert "no truth outside the brain" in str(found["t1w_biolab"].problem)
    with pytest.raises(DatasetError, match="is no folder"):
        simulated.find(tmp_path / "nowhere")


def test_a_head_is_scanned_and_one_whose_fit_went_astray_is_refused(tmp_path: Path) -> None:
    astray = ball_maps()
    astray["mni_z"] = np.clip(astray["mni_z"] * (MOST_STRETCH + 0.1), -125, 125).astype(np.int8)
    (tmp_path / "maps").mkdir()
    np.savez(tmp_path / "maps" / "colin27.npz", **ball_maps())
    np.savez(tmp_path / "maps" / "sub01.npz", **astray)
    (tmp_path / "maps" / "sub02.npz").write_bytes(b"PK no")

    result = prepared(tmp_path / "maps", tmp_path / "out")

    assert result.exit_code == 1, result.output
    document = json.loads(result.stdout)
    assert document["split"] == {"train": [], "validation": [], "test": ["colin27"]}
    assert "went astray" in document["refused"]["sub01"]
    assert "holds no maps" in document["refused"]["sub02"]
    data = PreparedData.open(tmp_path / "out")
    subject = data.subject("colin27")
    assert (data.source_kind, data.volumetric, subject.pixel_mm) == ("ct", True, (0.9, 0.9))
    np.testing.assert_allclose(np.diff(subject.positions_mm), 2.5)
    assert 15 < np.median(subject.source[subject.brain]) < 60
    assert (subject.source[subject.mask & ~subject.brain] > 500).mean() > 0.1  # the skull
    assert np.median(subject.source[~subject.mask]) < -950
    assert 0.4 < np.median(subject.target[subject.brain]) < 0.65  # canonical T1: grey and white
    notes = (tmp_path / "out" / "colin27" / "meta.json").read_text()
    assert "BSD-3-Clause" in notes


def test_who_trains_and_who_tests_is_not_to_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "sub01.npz").touch()

    result = prepared(tmp_path, tmp_path / "out", "--split", "1/0/0")

    assert "leave --split out" in str(result.exception)
    assert not (tmp_path / "out").exists()
