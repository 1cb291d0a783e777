"""Judges of written objects that share no code with the writer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from highdicom._standard_utils import (
    check_required_attributes,
    get_iod_module_map,
    get_sop_class_iod_map,
)
from pydicom.dataset import Dataset

_BEYOND_THE_TABLES = ("functional-groups", "sr-document-content")


def dciodvfy_errors(content: bytes, folder: Path) -> list[str]:
    """Error lines of dciodvfy (dicom3tools) on the bytes of one DICOM file."""
    beside_python = Path(sys.executable).parent / "dciodvfy"
    program = str(beside_python) if beside_python.exists() else shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is absent: install the development requirements (dicom3tools)")
    path = folder / "object.dcm"
    path.write_bytes(content)
    run = subprocess.run([program, "-new", str(path)], capture_output=True, check=False, timeout=60)
    lines = run.stderr.decode("utf-8", "replace").splitlines()
    return [line for line in lines if line.startswith(("Error", "Abort"))]


def missing_attributes(dataset: Dataset) -> list[str]:
    """What mandatory modules of the object's IOD require (type 1 and 2) and it lacks.

    Functional groups and the content tree are left to dciodvfy: the tables do not say that a
    group stands either in the shared or in the per-frame sequence, nor which value type of a
    content item needs what.
    """
    faults = []
    iod = get_sop_class_iod_map()[dataset.SOPClassUID]
    for module in get_iod_module_map()[iod]:
        if module["usage"] != "M" or module["key"].endswith(_BEYOND_THE_TABLES):
            continue
        try:
            check_required_attributes(dataset, module["key"])
        except AttributeError as error:
            faults.append(f"{module['key']}: {error}")
    return faults
