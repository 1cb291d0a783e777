"""Power cuts under traffic.

Run as root: ``python -m tests.faults.power_cuts [CUTS] [SEED] [TYPE]`` (10, 1 and ext4). The folder
of the receiver is a file system of its own, ext4 or xfs, in a file. A cut is the file system's own
shutdown without a flush of its journal (FS_IOC_SHUTDOWN): what was not synced is gone with the
next mount. What is acknowledged after the cut has begun does not count: the processor goes on, and
fdatasync of a file that grows may return without an error in the middle of a shutdown (ext4 of
Linux 6.18: 12 of 12 such appends were gone, none of 135 that had returned before; overwriting
loses none). The control is a receiver without fsync of its files: it must lose some.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tests.faults.receiving import RECEIVER, lost, receiving, send_numbered

WITHOUT_SYNC = "tests.faults.receiver_without_sync"
#: bytes of the file system; xfs takes no less than 300 MiB
SIZE_BYTES = 320 << 20
_SHUTDOWN, _NO_FLUSH = 0x8004587D, struct.pack("I", 2)


def can_cut(kind: str = "ext4") -> bool:
    """Whether this machine lets us make and mount file systems."""
    return (
        os.geteuid() == 0
        and Path("/dev/loop-control").exists()
        and bool(shutil.which(f"mkfs.{kind}"))
    )


@contextlib.contextmanager
def file_system(image: Path) -> Iterator[Path]:
    """Mount the file system; its folder."""
    folder = image.with_suffix(".mounted")
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def cut_power(folder: Path) -> None:
    """Lose what the file system of the folder has not yet been told to keep."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, _NO_FLUSH)
    finally:
        os.close(descriptor)


def cut_under_traffic(
    image: Path, cuts: int, seed: int, *, kind: str = "ext4", module: str = RECEIVER
) -> tuple[int, list[int]]:
    """Cut the power again and again; count of acknowledged instances, and those that were lost."""
    choice = random.Random(seed)
    image.touch()
    os.truncate(image, SIZE_BYTES)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
    acknowledged: list[int] = []
    for _ in range(cuts):
        before = len(acknowledged)
        numbers = count(acknowledged[-1] + 1 if acknowledged else 1)
        with file_system(image) as folder, receiving(folder, module) as (process, port):
            thread = threading.Thread(target=send_numbered, args=(port, numbers, acknowledged))
            thread.start()
            deadline = time.monotonic() + 60
            while len(acknowledged) < before + 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(choice.random() * 0.2)
            told = len(acknowledged)
            cut_power(folder)
            process.kill()
            thread.join(90)
            del acknowledged[told:]  # without power nobody would have been told
    with file_system(image) as folder:
        return len(acknowledged), lost(folder, acknowledged)


def main() -> None:
    """Cut and print the counts."""
    given = [*sys.argv[1:], *("10", "1", "ext4")[len(sys.argv) - 1 :]]
    cuts, seed, kind = int(given[0]), int(given[1]), given[2]
    for name, module in (("receiver", RECEIVER), ("control without fsync", WITHOUT_SYNC)):
        with tempfile.TemporaryDirectory() as made:
            taken, missing = cut_under_traffic(
                Path(made) / "disk", cuts, seed, kind=kind, module=module
            )
        sys.stdout.write(
            f"{name}, {kind}, seed {seed}: {cuts} power cuts, {taken} instances acknowledged, "
            f"{len(missing)} lost\n"
        )


if __name__ == "__main__":
    main()
