"""SIGKILL under traffic. Run: ``python -m tests.faults.kills [KILLS] [SEED]`` (50 by default)."""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path

from tests.faults.receiving import lost, receiving, send_numbered


def kill_under_traffic(folder: Path, kills: int, seed: int) -> list[int]:
    """Kill a receiver again and again while it takes instances; numbers of those acknowledged.

    What was on its way is sent again to the next receiver over the same folder.
    """
    choice = random.Random(seed)
    acknowledged: list[int] = []
    for _ in range(kills):
        before = len(acknowledged)
        numbers = count(acknowledged[-1] + 1 if acknowledged else 1)
        with receiving(folder) as (process, port):
            thread = threading.Thread(target=send_numbered, args=(port, numbers, acknowledged))
            thread.start()
            deadline = time.monotonic() + 60
            while len(acknowledged) < before + 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(choice.random() * 0.05)
            os.kill(process.pid, signal.SIGKILL)
            thread.join(90)
        assert len(acknowledged) >= before + 3, "the receiver takes instances after each kill"
    return acknowledged


def main() -> None:
    """Kill and print the counts."""
    kills, seed = map(int, [*sys.argv[1:], *("50", "1")[len(sys.argv) - 1 :]])
    with tempfile.TemporaryDirectory() as made:
        acknowledged = kill_under_traffic(Path(made), kills, seed)
        missing = lost(Path(made), acknowledged)
    sys.stdout.write(
        f"seed {seed}: {kills} kills, {len(acknowledged)} instances acknowledged, "
        f"{len(missing)} lost\n"
    )


if __name__ == "__main__":
    main()
