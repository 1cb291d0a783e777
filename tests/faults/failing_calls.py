"""Every n-th system call of a receiver fails, call by call, under traffic.

Run: ``python -m tests.faults.failing_calls [INSTANCES] [SEED]`` (40 for each call and 1). strace
makes the calls fail (Debian package strace), which needs the right to trace a process.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path

from tests.faults.mutations import echo
from tests.faults.receiving import lost, receiving, send_numbered

STRACE = shutil.which("strace")
#: system calls of the intake, each with an error that it can give
CALLS = (
    ("openat", "EMFILE"), ("write", "ENOSPC"), ("pwrite64", "ENOSPC"), ("fsync", "EIO"),
    ("fdatasync", "EIO"), ("rename", "EIO"), ("unlink", "EIO"), ("ftruncate", "EIO"),
    ("flock", "ENOLCK"), ("mmap", "ENOMEM"), ("recvfrom", "ECONNRESET"),
    ("sendto", "ECONNRESET"), ("accept4", "EMFILE"),
)  # fmt: skip
#: associations that are tried to bring the instances of one call
_ASSOCIATIONS = 6


@dataclass(kw_only=True)
class Outcome:
    """What came of one system call that failed now and then."""

    call: str
    every: int  #: so many calls, the last of them fails
    failures: int
    acknowledged: int
    statuses: Counter[str] = field(default_factory=Counter)  #: other answers
    ended: bool  #: whether the receiver ended itself, to be started again by the supervisor


def can_trace() -> bool:
    """Whether strace is installed and may make calls fail."""
    if STRACE is None:
        return False
    command = [STRACE, "-qq", "-e", "inject=fsync:error=EIO", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def failing(pid: int, call: str, error: str, every: int) -> Iterator[Path]:
    """Let every n-th of the calls fail; the trace, one line a call."""
    with tempfile.NamedTemporaryFile() as trace:
        inject = f"inject={call}:error={error}:when={every}+{every}"
        command = [str(STRACE), "-f", "-p", str(pid), "-o", trace.name]
        process = subprocess.Popen(
            [*command, "-e", f"trace={call}", "-e", inject], stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        process.stderr.readline()  # "attached"
        try:
            yield Path(trace.name)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
            process.stderr.close()


def fail_calls(
    folder: Path, calls: Sequence[tuple[str, str]], instances: int, seed: int
) -> tuple[list[Outcome], list[int]]:
    """Send instances while calls fail; the outcomes, and what was acknowledged and lost."""
    choice = random.Random(seed)
    acknowledged: list[int] = []
    outcomes = []
    for position, (call, error) in enumerate(calls):
        numbers = count(1 + position * instances * _ASSOCIATIONS)
        before, every = len(acknowledged), choice.randint(3, 9)
        statuses: Counter[str] = Counter()
        with receiving(folder) as (process, port):
            with failing(process.pid, call, error, every) as trace:
                for _ in range(_ASSOCIATIONS):
                    left = instances - (len(acknowledged) - before)
                    if left > 0 and process.poll() is None:
                        others = send_numbered(port, islice(numbers, left), acknowledged)
                        statuses.update(f"{status:04X}" for status in others)
                failures = len(re.findall(r"\(INJECTED\)", trace.read_text(errors="replace")))
            ended = process.poll() is not None
            if not ended:
                echo(port)
        outcomes.append(
            Outcome(
                call=call,
                every=every,
                failures=failures,
                acknowledged=len(acknowledged) - before,
                statuses=statuses,
                ended=ended,
            )
        )
    return outcomes, lost(folder, acknowledged)


def main() -> None:
    """Let calls fail and print the counts."""
    instances, seed = map(int, [*sys.argv[1:], *("40", "1")[len(sys.argv) - 1 :]])
    if not can_trace():
        raise SystemExit("strace is not installed, or may not trace (Debian package strace; root)")
    with tempfile.TemporaryDirectory() as made:
        outcomes, missing = fail_calls(Path(made), CALLS, instances, seed)
    sys.stdout.write(f"seed {seed}\n")
    for each in outcomes:
        others = ", ".join(f"{status} {n}" for status, n in sorted(each.statuses.items()))
        sys.stdout.write(
            f"{each.call}: every {each.every}th fails, {each.failures} failed; "
            f"{each.acknowledged} acknowledged; other answers: {others or 'none'}"
            f"{'; the receiver ended itself' if each.ended else ''}\n"
        )
    taken = sum(each.acknowledged for each in outcomes)
    sys.stdout.write(f"{taken} instances acknowledged, {len(missing)} lost\n")


if __name__ == "__main__":
    main()
