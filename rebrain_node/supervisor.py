"""`serve`: starts the processes of the node, monitors, restarts and stops them.

The supervisor imports no heavy library and keeps no state. Each child process has two pipes: its
standard input is the parent-death pipe (it closes when the supervisor ends, however it ends, and
the child then stops); to its standard output it writes a byte every second, from a thread of its
own, and ``ready`` once. A child that is alive and silent for `SILENT_S` is killed and started
again. Logs go to standard error.

The sign of life shows that the child runs Python code and that the threads it names are alive. It
does not show that they proceed: a thread stuck in native code that released the interpreter's
lock, or waiting without limit, is not noticed. A synthesis gives signs of life all the time, until
it takes longer than the settings allow.

SIGHUP is passed on to the children, which read the settings again; to one that has given no sign
of life yet, once it has.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import structlog

#: exit codes after which a restart is useless: settings (2) or bundle (4) refused
PERMANENT_EXIT_CODES = frozenset({2, 4})
#: a child that ran this long is restarted after the first delay again
STEADY_S = 60.0
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 30.0
#: how long a child may take to stop before it is killed
STOP_S = 10.0
#: pause between two signs of life of a child, s
BEAT_S: Final = 1.0
#: silence after which a child is killed: once it has given a sign of life, and before, s
SILENT_S: Final = 10.0
SILENT_AT_START_S: Final = 60.0
#: pause between two reports of `supervise`, s
REPORT_S: Final = 2.0
_TICK_S = 0.05
#: most of one pause of the supervisor that counts as silence of a child, s
_LONGEST_TICK_S: Final = 0.5
_READY = b"ready\n"


@dataclass(frozen=True, kw_only=True)
class Role:
    """One process of the node: its name in the logs and its command line.

    A process that replaces a silent one gets ``--silent-s SECONDS`` at the end of it.
    """

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ProcessState:
    """What the supervisor knows of one process."""

    role: str
    state: Literal["starting", "ready", "no answer", "ended"]
    pid: int | None
    silent_s: float  #: since its last sign of life
    restarts: int  #: since the supervisor started


@dataclass(kw_only=True)
class _Child:
    role: Role
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    beats: bool = False  #: whether it has given a sign of life
    reload: bool = False  #: whether it is to read the settings again
    silent_s: float = 0.0
    replaced_silent_s: float | None = None  #: silence of the process that it replaces
    killed: bool = False
    starts: int = 0
    started_s: float = 0.0  #: monotonic
    due_s: float = 0.0  #: monotonic; when to start next
    delay_s: float = FIRST_DELAY_S
    output: bytes = field(default=b"", repr=False)

    @property
    def state(self) -> ProcessState:
        """What is known of it."""
        starting: Literal["starting", "ready"] = "ready" if self.ready else "starting"
        return ProcessState(
            role=self.role.name,
            state="ended" if self.process is None else "no answer" if self.killed else starting,
            pid=None if self.process is None else self.process.pid,
            silent_s=round(self.silent_s, 1),
            restarts=max(0, self.starts - 1),
        )


def supervise(
    roles: Sequence[Role],
    *,
    check: Callable[[], None] = lambda: None,
    report: Callable[[Sequence[ProcessState]], None] = lambda _: None,
    keep_open: Sequence[int] = (),
) -> int:
    """Run all roles until SIGTERM or SIGINT; return the exit code of `serve`.

    SIGHUP is passed on to the processes.

    0 after a clean stop; the exit code of a child if it is one of `PERMANENT_EXIT_CODES`.

    Parameters
    ----------
    check
        Called every `REPORT_S`; what it raises ends the processes and is raised.
    report
        Called every `REPORT_S`, and when the state of a process has changed.
    keep_open
        File descriptors that the processes keep open as well.
    """
    begun = time.monotonic()
    log = structlog.get_logger("supervisor")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    children = [_Child(role=role) for role in roles]
    signal.signal(signal.SIGHUP, lambda *_: _reload(children))
    announced, reported, reported_s, last = False, [""], 0.0, begun
    try:
        while not stop.is_set():
            now = time.monotonic()
            tick, last = min(now - last, _LONGEST_TICK_S), now
            for child in children:
                code = _poll(child, tick, log, keep_open)
                if code in PERMANENT_EXIT_CODES:
                    return code
            if not announced and all(child.ready for child in children):
                announced = True
                log.info("ready", seconds=round(time.monotonic() - begun, 2))
            states = [child.state for child in children]
            if reported != [each.state for each in states] or now - reported_s >= REPORT_S:
                reported, reported_s = [each.state for each in states], now
                report(states)
                check()
            stop.wait(_TICK_S)
    finally:
        _stop(children)
        log.info("stopped")
    return 0


def _reload(children: Sequence[_Child]) -> None:
    for child in children:
        child.reload = True


def _poll(
    child: _Child, tick_s: float, log: structlog.stdlib.BoundLogger, keep_open: Sequence[int]
) -> int | None:
    """Start, poll or reap one child process; return its exit code if it has just ended."""
    now = time.monotonic()
    if child.process is None:
        if now >= child.due_s:
            _start(child, keep_open)
            log.info("started", role=child.role.name, pid=child.process and child.process.pid)
        return None
    _read(child, tick_s)
    code = child.process.poll()
    if code is None:
        _kill_if_silent(child, log)
        if child.reload and child.beats:
            child.reload = False
            child.process.send_signal(signal.SIGHUP)
        return None
    if now - child.started_s >= STEADY_S:
        child.delay_s = FIRST_DELAY_S
    log.error("ended", role=child.role.name, exit_code=code, restart_in_s=child.delay_s)
    _close(child.process)
    child.process, child.ready = None, False
    child.due_s = now + child.delay_s
    child.delay_s = min(2.0 * child.delay_s, LONGEST_DELAY_S)
    return code


def _start(child: _Child, keep_open: Sequence[int]) -> None:
    child.output = b""
    child.started_s = time.monotonic()
    child.silent_s, child.beats, child.killed, child.reload = 0.0, False, False, False
    child.starts += 1
    replaced = child.replaced_silent_s
    options = () if replaced is None else ("--silent-s", f"{replaced:.1f}")
    child.process = subprocess.Popen(  # noqa: S603 - our own program, no shell
        (*child.role.command, *options),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=tuple(keep_open),
        start_new_session=True,  # Ctrl-C reaches the supervisor alone; it stops the children
    )
    assert child.process.stdout is not None  # noqa: S101 - asked for a pipe above
    os.set_blocking(child.process.stdout.fileno(), False)


def _read(child: _Child, tick_s: float) -> None:
    """Read signs of life; only time in which the supervisor itself ran counts as silence."""
    assert child.process is not None  # noqa: S101 - for the type checker
    assert child.process.stdout is not None  # noqa: S101 - for the type checker
    content = child.process.stdout.read()
    if not content:
        child.silent_s += tick_s
        return
    child.silent_s, child.beats = 0.0, True
    if not child.ready:
        child.output += content
        child.ready = _READY in child.output
        if child.ready:
            child.replaced_silent_s = None


def _kill_if_silent(child: _Child, log: structlog.stdlib.BoundLogger) -> None:
    limit_s = SILENT_S if child.beats else SILENT_AT_START_S
    if child.killed or child.process is None or child.silent_s < limit_s:
        return
    child.killed, child.replaced_silent_s = True, child.silent_s
    log.error(
        "no answer",
        role=child.role.name,
        pid=child.process.pid,
        silent_s=round(child.silent_s, 1),
        limit_s=limit_s,
    )
    child.process.kill()


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


@dataclass
class ParentPipe:
    """The child's end of the two pipes."""

    stop: threading.Event  #: set at SIGTERM or when the supervisor has ended
    reload: threading.Event = field(default_factory=threading.Event)  #: set at SIGHUP
    #: whether what the child is there for goes on; it gives no sign of life while it does not
    works: Callable[[], bool] = lambda: True

    @classmethod
    def watch(cls) -> ParentPipe:
        """Give signs of life, and set `stop` at SIGTERM or when the supervisor ends.

        Call once, in the main thread, and before anything heavy is imported.
        """
        pipe = cls(threading.Event())
        signal.signal(signal.SIGTERM, lambda *_: pipe.stop.set())
        signal.signal(signal.SIGHUP, lambda *_: pipe.reload.set())
        for target in (pipe._await_end, pipe._beat):
            threading.Thread(target=target, daemon=True, name="parent-pipe").start()
        return pipe

    def report_ready(self) -> None:
        """Tell the supervisor that this process is ready."""
        os.write(sys.stdout.fileno(), _READY)

    def at_reload(self, read_again: Callable[[], None]) -> None:
        """Call a function, in a thread of its own, whenever the supervisor got SIGHUP."""

        def wait() -> None:
            while True:
                self.reload.wait()
                self.reload.clear()
                read_again()

        threading.Thread(target=wait, daemon=True, name="reload").start()

    def _beat(self) -> None:
        with contextlib.suppress(OSError):  # the supervisor has ended
            while True:
                if self.works():
                    os.write(sys.stdout.fileno(), b".")
                time.sleep(BEAT_S)

    def _await_end(self) -> None:
        os.read(sys.stdin.fileno(), 1)  # nothing is ever written: returns when the pipe closes
        self.stop.set()
        time.sleep(STOP_S)
        os._exit(1)  # the supervisor has ended and the clean stop hangs
