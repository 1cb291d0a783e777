"""Machines of one node that share a PostgreSQL and a folder: a worker each, with a slow engine."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rebrain_node.app.compose import open_state
from rebrain_node.settings import Settings, Storage
from tests.support.store_cases import accept, received

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "tests/faults/sleeping_worker.py"


@dataclass(frozen=True)
class SharedNode:
    """What all machines have in common."""

    folder: Path
    url: str

    @contextmanager
    def state(self):
        """Open the facts as a command does."""
        settings = Settings(storage=Storage(folder=self.folder / "shared", database_url=self.url))
        with open_state(settings) as state:
            yield state

    def accept_series(self, count):
        """Enter accepted series, each of a study of its own."""
        with self.state() as state:
            for n in range(1, count + 1):
                study, series = f"1.2.{n}", f"1.2.{n}.1"
                state.ledger.record_received(received(1, series, study))
                accept(state.ledger, series, study)

    def states(self):
        """State of each series."""
        with self.state() as state:
            return [one.state for one in state.ledger.series()]

    def begun(self):
        """Names of the machines that began a synthesis, in that order."""
        path = self.folder / "shared/begun.txt"
        return path.read_text().split() if path.exists() else []

    def _config(self, machine):
        config = self.folder / f"{machine}.toml"
        config.write_text(
            f"""
            machine = "{machine}"
            [storage]
            folder = "{self.folder}/shared"
            machine_folder = "{self.folder}/{machine}"
            database_url = "{self.url}"
            soft_mark_bytes = 0
            hard_mark_bytes = 0
            """
        )
        return config

    def command(self, machine, seconds, *options):
        """Return the command of the worker of a machine, whose engine sleeps so long."""
        return [sys.executable, str(WORKER), str(self._config(machine)), str(seconds), *options]

    def start(self, machine, seconds, *options):
        """Start the worker of a machine."""
        command = self.command(machine, seconds, *options)
        with (self.folder / f"{machine}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def log(self, machine):
        """What the worker of a machine has logged."""
        return (self.folder / f"{machine}.log").read_text()


def end(process):
    """End a worker in order, as the end of its supervisor does; kill it where it hangs."""
    process.stdin.close()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
