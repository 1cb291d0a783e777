"""What the tests of the whole node share: a quick bundle, a quick study, a node that runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rebrain_node.app import bundle, open_state
from rebrain_node.demonstration.running_node import free_port
from rebrain_node.model.bundle import FILES, write_bundle
from rebrain_node.settings import DestinationSettings, Settings, load_settings
from tests import phantoms

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "rebrain_node.cli")


def write_quick_bundle(folder: Path, spacing_mm: float = 8.0) -> Path:
    """Write the shipped network with a recipe of few slices."""
    shipped = bundle(Settings())
    contents = {name: shipped.read(name) for name in FILES}
    recipe = json.loads(contents["recipe.json"]) | {"spacing_mm": spacing_mm}
    contents["recipe.json"] = json.dumps(recipe).encode()
    write_bundle(folder, "quick", "0.0.1", contents)
    return folder


def quick_study(**changes):
    """Make a small head CT that the node takes."""
    return phantoms.head_ct(**changes)


def run(*arguments, bundle_folder: Path | None = None, timeout_s: float = 150.0):
    """Run the program to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if bundle_folder is not None:
        environment["REBRAIN_MODEL__BUNDLE"] = str(bundle_folder)
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
