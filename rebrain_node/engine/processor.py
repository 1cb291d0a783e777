"""The physical cores of the processor: by these, the threads of an engine are counted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_TOPOLOGY: Final = Path("/sys/devices/system/cpu")


def physical_cores(topology: Path = _TOPOLOGY) -> int:
    """Count the physical cores that this process may use: two threads of a core are one.

    Where the system does not say which threads share a core, each counts as a core.
    """
    cores = set()
    for cpu in os.sched_getaffinity(0):
        folder = topology / f"cpu{cpu}" / "topology"
        try:
            names = [(folder / name).read_text() for name in ("physical_package_id", "core_id")]
        except OSError:
            names = [str(cpu)]
        cores.add(tuple(names))
    return len(cores)
