"""`serve`: starts the processes of the node, monitors, restarts and stops them.

The supervisor imports no heavy library and keeps no state. Each child process has two pipes: its
standard input is the parent-death pipe (it closes when the supervisor ends, however it ends, and
the child then stops), and it writes ``ready`` once to its standard output. Logs go to standard
error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

#: exit codes after which a restart is useless: settings (2) or bundle (4) refused
PERMANENT_EXIT_CODES = frozenset({2, 4})
#: a child that ran this long is restarted after the first delay again
STEADY_S = 60.0
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 30.0
#: how long a child may take to stop before it is killed
STOP_S = 10.0
_TICK_S = 0.05
_READY = b"ready\n"


@dataclass(frozen=True, kw_only=True)
class Role:
    """One process of the node: its name in the logs and its command line."""

    name: str
    command: tuple[str, ...]


@dataclass(kw_only=True)
class _Child:
    role: Role
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    started_s: float = 0.0  #: monotonic
    due_s: float = 0.0  #: monotonic; when to start next
    delay_s: float = FIRST_DELAY_S
    output: bytes = field(default=b"", repr=False)


def supervise(roles: Sequence[Role]) -> int:
    """Run all roles until SIGTERM or SIGINT; return the exit code of `serve`.

    0 after a clean stop; the exit code of a child if it is one of `PERMANENT_EXIT_CODES`.
    """
    begun = time.monotonic()
    log = structlog.get_logger("supervisor")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    children = [_Child(role=role) for role in roles]
    announced = False
    try:
        while not stop.is_set():
            for child in children:
                code = _poll(child, log)
                if code in PERMANENT_EXIT_CODES:
                    return code
            if not announced and all(child.ready for child in children):
                announced = True
                log.info("ready", seconds=round(time.monotonic() - begun, 2))
            stop.wait(_TICK_S)
    finally:
        _stop(children)
        log.info("stopped")
    return 0


def _poll(child: _Child, log: structlog.stdlib.BoundLogger) -> int | None:
    """Start, poll or reap one child process; return its exit code if it has just ended."""
    now = time.monotonic()
    if child.process is None:
        if now >= child.due_s:
            _start(child)
            log.info("started", role=child.role.name, pid=child.process and child.process.pid)
        return None
    _read_ready(child)
    code = child.process.poll()
    if code is None:
        return None
    if now - child.started_s >= STEADY_S:
        child.delay_s = FIRST_DELAY_S
    log.error("ended", role=child.role.name, exit_code=code, restart_in_s=child.delay_s)
    _close(child.process)
    child.process, child.ready = None, False
    child.due_s = now + child.delay_s
    child.delay_s = min(2.0 * child.delay_s, LONGEST_DELAY_S)
    return code


def _start(child: _Child) -> None:
    child.output = b""
    child.started_s = time.monotonic()
    child.process = subprocess.Popen(  # noqa: S603 - our own program, no shell
        child.role.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches the supervisor alone; it stops the children
    )
    assert child.process.stdout is not None  # noqa: S101 - asked for a pipe above
    os.set_blocking(child.process.stdout.fileno(), False)


def _read_ready(child: _Child) -> None:
    if child.ready or child.process is None or child.process.stdout is None:
        return
    child.output += child.process.stdout.read() or b""
    child.ready = _READY in child.output


def _stop(children: Sequence[_Child]) -> None:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + STOP_S
    for process in running:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


@dataclass(frozen=True)
class ParentPipe:
    """The child's end of the two pipes."""

    stop: threading.Event  #: set at SIGTERM or when the supervisor has ended

    @classmethod
    def watch(cls) -> ParentPipe:
        """Set `stop` at SIGTERM or when the supervisor ends; call once, in the main thread."""
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        threading.Thread(target=_await_end, args=(stop,), daemon=True, name="parent-pipe").start()
        return cls(stop)

    def report_ready(self) -> None:
        """Tell the supervisor that this process is ready."""
        sys.stdout.buffer.write(_READY)
        sys.stdout.buffer.flush()


def _await_end(stop: threading.Event) -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written: this returns when the pipe closes
    stop.set()
    time.sleep(STOP_S)
    os._exit(1)  # the supervisor has ended and the clean stop hangs
