"""Start and memory of a node without work: ``python -m tests.benchmarks.idle [CHECKOUT ...]``.

Starts the node of each checkout in turn (without arguments: this one) on a folder in which it ran
before, and prints

- the seconds from the start of `serve` to `ready`, and the CPU time of all its processes until
  then, which does not depend on what else the machine does;
- two seconds later the memory of each process: resident (RSS, in which pages that processes share
  count in each) and proportional (PSS, in which they count once: what the node takes of the
  machine).

The bundle is the one that ships; one destination is set, and nothing is to be delivered.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from rebrain_node.demonstration.running_node import free_port
from tests.support.quick_node import PROGRAM, ROOT

_RUNS = 3
_SETTLED_S = 2.0


def _memory(process: psutil.Process) -> tuple[float, float]:
    """Return RSS and PSS, MB."""
    use = process.memory_full_info()
    return use.rss / 1e6, use.pss / 1e6


def _role(process: psutil.Process) -> str:
    words = process.cmdline()
    names = ("receiver", "worker", "serve", "decoding_child")
    return next((name for name in names if any(name in word for word in words)), "another")


class _Node:
    def __init__(self, root: Path, config: Path, log: Path) -> None:
        self.log = log
        self.begun = time.monotonic()
        with log.open("wb") as stream:
            self.popen = subprocess.Popen(
                [*PROGRAM, "serve", "--config", str(config)],
                env={**os.environ, "PYTHONPATH": str(root)},
                cwd=root,
                stdin=subprocess.DEVNULL,
                stderr=stream,
            )
        self.supervisor = psutil.Process(self.popen.pid)
        self.cpu: dict[int, float] = {}

    def family(self) -> list[psutil.Process]:
        return [self.supervisor, *self.supervisor.children(recursive=True)]

    def await_ready(self) -> float:
        while '"event": "ready"' not in self.log.read_text():
            for each in self.family():
                try:
                    times = each.cpu_times()
                    self.cpu[each.pid] = times.user + times.system
                except psutil.NoSuchProcess:
                    continue
            time.sleep(0.05)
        return time.monotonic() - self.begun

    def end(self) -> None:
        self.popen.terminate()
        self.popen.wait()


def _measure(root: Path, config: Path, log: Path) -> str:
    node = _Node(root, config, log)
    ready_s = node.await_ready()
    time.sleep(_SETTLED_S)
    use = {_role(each): _memory(each) for each in node.family()}
    node.end()
    parts = ", ".join(f"{role} {rss:.0f}/{pss:.0f}" for role, (rss, pss) in use.items())
    rss, pss = (sum(each[k] for each in use.values()) for k in (0, 1))
    return (
        f"ready after {ready_s:.1f} s, CPU {sum(node.cpu.values()):.1f} s; "
        f"idle RSS {rss:.0f} MB, PSS {pss:.0f} MB ({parts})"
    )


def main() -> None:
    roots = [Path(each) for each in sys.argv[1:]] or [ROOT]
    with tempfile.TemporaryDirectory() as name:
        configs = []
        for k, root in enumerate(roots):
            folder = Path(name) / str(k)
            folder.mkdir()
            config = folder / "node.toml"
            config.write_text(
                f'[storage]\nfolder = "{folder}/state"\nsoft_mark_bytes = 0\n'
                f"hard_mark_bytes = 0\n[receiver]\nport = {free_port()}\n"
                '[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\n'
            )
            configs.append(config)
            first = _Node(root, config, folder / "log")
            first.await_ready()
            first.end()
        for _ in range(_RUNS):
            for root, config in zip(roots, configs, strict=True):
                print(f"{root}: {_measure(root, config, config.parent / 'log')}")  # noqa: T201


if __name__ == "__main__":
    main()
