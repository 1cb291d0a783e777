"""Several machines against one, with an engine that sleeps: how well the work is shared.

usage: python -m tests.benchmarks.workers [--series N] [--seconds S] [--machines M]

Each machine is a worker process with its own settings; PostgreSQL and the folder are shared, all on
this computer. The engine sleeps, so that what is measured is the sharing of the work and not the
processor. Needs PostgreSQL.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.support.machines import SharedNode, end
from tests.support.postgres import running_cluster
from tests.support.quick_node import wait_for


def measure(node: SharedNode, machines: int, series: int, seconds: float) -> float:
    """Seconds from the acceptance of the last series to the last result."""
    names = [f"m{n}" for n in range(machines)]
    workers = [node.start(name, seconds) for name in names]
    try:
        wait_for(lambda: _living(node) == machines, say=lambda: node.log(names[0]))
        node.accept_series(series)
        began = time.monotonic()
        wait_for(lambda: node.states() == ["synthesised"] * series, series * (seconds + 5.0))
        return time.monotonic() - began
    finally:
        for worker in workers:
            end(worker)


def _living(node: SharedNode) -> int:
    with node.state() as state:
        return sum(each.state == "runs" for each in state.executors.all())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--machines", type=int, default=3)
    arguments = parser.parse_args()
    took = {}
    with running_cluster() as cluster:
        if cluster is None:
            raise SystemExit("PostgreSQL is not installed (Debian package postgresql)")
        for machines in (1, arguments.machines):
            with tempfile.TemporaryDirectory() as folder:
                node = SharedNode(Path(folder), cluster.new_database())
                took[machines] = measure(node, machines, arguments.series, arguments.seconds)
                shares = {name: node.begun().count(name) for name in sorted(set(node.begun()))}
            sys.stdout.write(
                f"{machines} machines: {arguments.series} series of {arguments.seconds:g} s in "
                f"{took[machines]:.1f} s; begun by {shares}\n"
            )
            sys.stdout.flush()
    sys.stdout.write(f"{took[1] / took[arguments.machines]:.2f} times as fast\n")


if __name__ == "__main__":
    main()
