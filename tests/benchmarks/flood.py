"""How long an honest C-ECHO takes while others flood the node: python -m tests.benchmarks.flood.

A node of its own (receiver process) gets up to 100 connections a second from 60 addresses: silent
ones, halves of a request header, nonsense, each left open. Wanted: 99 of 100 echoes within 1 s.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.benchmarks.receive import node
from tests.support.dicom_peers import echo

ECHOES, INTERVAL_S = 200, 0.01
_BEGINNINGS = (b"", b"\x01\x00\x00", b"\xffnonsense")


class Flood(threading.Thread):
    """Opens connections until told to stop; the oldest are closed, lest the flood run out first."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._over = threading.Event()
        self.connections = 0

    def run(self) -> None:
        """Flood."""
        opened: list[socket.socket] = []
        while not self._over.wait(INTERVAL_S):
            source = (f"127.0.1.{self.connections % 60 + 1}", 0)
            opened.append(
                socket.create_connection(("127.0.0.1", self._port), 5, source_address=source)
            )
            with contextlib.suppress(ConnectionError):  # displaced already
                opened[-1].sendall(_BEGINNINGS[self.connections % 3])
            self.connections += 1
            while len(opened) > 500:
                opened.pop(0).close()
        for connection in opened:
            connection.close()

    def stop(self) -> None:
        """End it."""
        self._over.set()
        self.join()


def echoes(port: int) -> dict[str, float]:
    """Milliseconds from the call until the association is released, of one after the other."""
    taken = []
    for _ in range(ECHOES):
        begun = time.perf_counter()
        if echo(port) != 0x0000:
            raise SystemExit("an echo was not answered")
        taken.append(1000 * (time.perf_counter() - begun))
    taken.sort()
    return {
        "echoes": ECHOES,
        "median_ms": round(statistics.median(taken), 1),
        "p99_ms": round(taken[int(0.99 * (ECHOES - 1))], 1),
        "largest_ms": round(taken[-1], 1),
    }


def main() -> None:
    """Measure in peace, then under the flood, and print one JSON object."""
    with tempfile.TemporaryDirectory() as folder:
        process, port = node(Path(folder))
        flood = Flood(port)
        try:
            results = {"in_peace": echoes(port)}
            flood.start()
            begun = time.perf_counter()
            time.sleep(1.0)
            results["under_flood"] = echoes(port)
            results["under_flood"]["connections_per_s"] = round(
                flood.connections / (time.perf_counter() - begun), 1
            )
            flood.stop()
        finally:
            os.kill(process.pid, signal.SIGTERM)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    sys.stdout.write(json.dumps({"cores": os.cpu_count()} | results, indent=2) + "\n")


if __name__ == "__main__":
    main()
