"""Shadow mode switched on and off between kills, while deliveries are on their way.

Run: ``python -m tests.faults.shadow_switch [ROUNDS] [SEED]`` (12 rounds, seed 1 by default). Before
each round some sets enter the outbox. Each round starts a real node, in shadow mode or not, lets it
deliver for a moment and ends it with SIGKILL. In shadow mode nothing may arrive; in the end
everything must have.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.uid import MRImageStorage

from rebrain_node.app.presence import running_node
from tests.support.quick_node import (
    PROGRAM,
    ROOT,
    Node,
    make_node,
    wait_for,
    write_quick_bundle,
)
from tests.support.scripted_pacs import a_peer, instance
from tests.support.store_cases import accept, derived_set, received

SETS, OBJECTS = 12, 3
SHADOW = "\n[shadow]\nactive = true\n"


@dataclass
class Result:
    """What arrived."""

    put: int  #: objects
    arrived: int  #: different objects
    in_shadow_mode: int  #: objects that arrived while shadow mode was active
    in_other_rounds: int  #: objects that arrived in rounds without it
    cut_off: int  #: rounds that ended with deliveries left


def switch(folder: Path, rounds: int, seed: int) -> Result:
    """Switch and kill."""
    choice = random.Random(seed)
    with a_peer(_slow, [MRImageStorage]) as (peer, address):
        node = make_node(folder, write_quick_bundle(folder / "bundle"), "PACS", address.port)
        plain = node.config.read_text()
        node.settings.storage.folder.mkdir()
        with _serving(node):
            pass  # the first start makes the database
        put, came, cut_off = 0, {True: 0, False: 0}, 0
        for number in range(rounds):
            put += _fill(node, number)
            shadow = number % 2 == 1
            node.config.write_text(plain + (SHADOW if shadow else ""))
            before = len(peer.received)
            with _serving(node):
                time.sleep(choice.uniform(0.2, 1.0))
            came[shadow] += len(peer.received) - before
            cut_off += _waiting(node) > 0
        node.config.write_text(plain)
        with _serving(node):
            wait_for(lambda: not _waiting(node), say=lambda: f"{_waiting(node)} wait")
        arrived = {uid for uid, _, _ in peer.received}
    return Result(put, len(arrived), came[True], came[False], cut_off)


def _slow(_: object) -> int:
    time.sleep(0.02)
    return 0x0000


def _fill(node: Node, number: int) -> int:
    """Put sets into the outbox as a worker does outside of shadow mode; the number of objects."""
    with node.state() as state:
        for k in range(SETS):
            series = f"1.2.{number + 1}.{k + 1}"
            state.ledger.record_received(received(1, series, series))
            job = accept(state.ledger, series, series)
            first = ((number * SETS) + k) * OBJECTS + 1
            objects = tuple(instance(n) for n in range(first, first + OBJECTS))
            state.outbox.put(replace(derived_set(job), instances=objects), ["pacs"], job)
    return SETS * OBJECTS


def _waiting(node: Node) -> int:
    with node.state() as state:
        return len(state.deliveries.pending())


@contextmanager
def _serving(node: Node) -> Iterator[None]:
    """Run a node from ready to SIGKILL, and wait until its processes have ended."""
    log = node.folder / "serve.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*PROGRAM, "serve", "--config", str(node.config)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=stream,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_for(lambda: '"event": "ready"' in log.read_text(), say=log.read_text)
        yield
    finally:
        process.kill()
        process.wait()
        folder = node.settings.storage.folder
        wait_for(lambda: running_node(folder) is None, say=lambda: "its processes go on")


def main() -> None:
    """Switch and print the counts."""
    rounds, seed = map(int, [*sys.argv[1:], *("12", "1")[len(sys.argv) - 1 :]])
    with tempfile.TemporaryDirectory() as made:
        result = switch(Path(made), rounds, seed)
    sys.stdout.write(
        f"seed {seed}: {rounds} rounds, {result.cut_off} ended with deliveries left; "
        f"{result.put} objects put, {result.arrived} arrived; {result.in_shadow_mode} came in "
        f"shadow mode, {result.in_other_rounds} in the other rounds\n"
    )


if __name__ == "__main__":
    main()
