"""Start and memory of a node without work: ``python -m tests.benchmarks.idle``.

Prints the seconds from the start of `serve` to `ready`, the largest memory while it starts, and
the resident memory of each process two seconds later. The bundle is the one that ships.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from rebrain_node.demonstration.running_node import free_port
from tests.support.quick_node import PROGRAM, ROOT

_RUNS = 3
_SETTLED_S = 2.0


def _megabytes(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def _role(process: psutil.Process) -> str:
    words = process.cmdline()
    return next((role for role in ("receiver", "worker", "serve") if role in words), "check")


def _measure(folder: Path) -> None:
    config, log = folder / "node.toml", folder / "log"
    config.write_text(
        f'[storage]\nfolder = "{folder}/state"\nsoft_mark_bytes = 0\nhard_mark_bytes = 0\n'
        f"[receiver]\nport = {free_port()}\n"
    )
    begun = time.monotonic()
    with log.open("wb") as stream:
        node = subprocess.Popen(
            [*PROGRAM, "serve", "--config", str(config)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stderr=stream,
        )
    supervisor, most = psutil.Process(node.pid), 0.0
    while '"event": "ready"' not in log.read_text():
        family = [supervisor, *supervisor.children(recursive=True)]
        most = max(most, sum(map(_megabytes, family)))
        time.sleep(0.05)
    ready_s = time.monotonic() - begun
    time.sleep(_SETTLED_S)
    family = [supervisor, *supervisor.children(recursive=True)]
    use = {_role(each): _megabytes(each) for each in family}
    node.terminate()
    node.wait()
    parts = ", ".join(f"{role} {size:.0f}" for role, size in use.items())
    print(  # noqa: T201 - the result
        f"ready after {ready_s:.1f} s, at most {most:.0f} MB until then; "
        f"idle {sum(use.values()):.0f} MB ({parts})"
    )


if __name__ == "__main__":
    for _ in range(_RUNS):
        with tempfile.TemporaryDirectory() as name:
            _measure(Path(name))
