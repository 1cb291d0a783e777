"""Processes for decoding whose JPEG-LS decoder does what a broken one may do.

``python -m tests.support.decoding_children WHAT MEMORY_BYTES TIME_S``; the frames themselves are
harmless.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from rebrain_node.instance.decoders import DECODERS
from rebrain_node.instance.decoding import DecodingLimits, DecodingProcess
from rebrain_node.instance.decoding_child import ChildLimits, serve

JPEG_LS = "1.2.840.10008.1.2.4.80"
_TEST_PIXELS = 48 * 40  # of the self-test, which a decoder must pass to be asked at all


def _allocate(encoded: bytes) -> np.ndarray:
    return np.ones(64 << 20, np.uint8)


def _write(encoded: bytes) -> np.ndarray:
    Path("/tmp/rebrain-decoder-wrote").write_bytes(b"x" * 100)
    return np.zeros(1)


_FAULTS = {
    "sleeps": lambda encoded: time.sleep(600),
    "allocates": _allocate,
    "dies": lambda encoded: os.kill(os.getpid(), signal.SIGSEGV),
    "exits": lambda encoded: os._exit(3),
    "raises": lambda encoded: 1 // 0,
    "writes": _write,
}


def process(what: str, *, idle_s: float = 60.0, **limits: float) -> DecodingProcess:
    """Return a process for decoding with one fault, and limits that are turned down."""
    command = (sys.executable, "-m", "tests.support.decoding_children", what)
    return DecodingProcess(DecodingLimits(**limits), command=command, idle_s=idle_s)


def main() -> None:
    what = sys.argv.pop(1)
    good = DECODERS[JPEG_LS]

    def decoder(encoded: bytes) -> np.ndarray:
        pixels = good(encoded)
        return pixels if pixels.size == _TEST_PIXELS else _FAULTS[what](encoded)

    if what == "never starts":
        sys.exit(5)
    if what == "is wrong":
        faulty = {JPEG_LS: lambda encoded: good(encoded) ^ 1}
    else:
        faulty = {JPEG_LS: decoder} if what in _FAULTS else {}
    serve({**DECODERS, **faulty}, ChildLimits.of_arguments())


if __name__ == "__main__":
    main()
