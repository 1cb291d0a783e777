"""How much memory a study of a thousand slices takes, in the command `process`."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest

from rebrain_node.demonstration.study import simulate_study

SLICES = 1000
LARGEST_BYTES = 2e9


def write_study(folder):
    """Write one series of a thousand slices of 512 x 512 pixels, half a gigabyte."""
    folder.mkdir()
    image = copy.deepcopy(simulate_study().instances[0])
    image.Rows = image.Columns = 512
    image.PixelData = bytes(2 * 512 * 512)
    position = list(image.ImagePositionPatient)
    for number in range(SLICES):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        image.InstanceNumber = number + 1
        image.ImagePositionPatient = [*position[:2], round(float(position[2]) + 0.6 * number, 3)]
        image.save_as(folder / f"{number:04}.dcm", enforce_file_format=True)


@pytest.mark.full
def test_a_thousand_slices_are_read_and_judged_within_two_gigabytes(tmp_path):
    write_study(tmp_path / "study")
    words = ("process", tmp_path / "study", "--out", tmp_path / "out", "--json")
    run = subprocess.run(
        [sys.executable, "-m", "rebrain_node.cli", *words], capture_output=True, check=False
    )
    assert run.returncode == 3, run.stderr
    answer = json.loads(run.stdout)
    (series,) = answer["series"]
    assert (series["instances"], series["decision"]) == (SLICES, "refused")
    assert 2 * 512 * 512 * SLICES < answer["peak_memory_bytes"] < LARGEST_BYTES
